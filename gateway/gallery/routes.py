"""The gallery's routes, put together."""

from __future__ import annotations

from litestar.openapi.spec import Tag

from gateway.gallery import activity_writes, album_reads, album_writes, bulk_writes, place_writes, reads, writes
from gateway.gallery.problems import refuse
from gateway.mount import Mount
from gateway.parts import Parts
from primary.errors import InvalidValue
from primary.gallery.errors import GalleryError

TAGS = [
    Tag(name="images", description="Images: saved, marked, counted; listed and searched."),
    Tag(name="albums", description="Albums, and what is in them."),
]


def gallery_routers(parts: Parts) -> list[Mount]:
    """Give all routes of the gallery, to be mounted below /api."""
    images = [reads, writes, bulk_writes, activity_writes]
    albums = [album_reads, album_writes, place_writes]
    return [
        Mount(
            "/",
            route_handlers=[route for one in modules for route in one.routes(parts)],
            tags=[tag],
            exception_handlers={GalleryError: refuse, InvalidValue: refuse},
        )
        for tag, modules in (("images", images), ("albums", albums))
    ]
