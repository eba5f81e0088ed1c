"""The gallery's routes, put together."""

from __future__ import annotations

from litestar import Router

from gateway.gallery import activity_writes, album_reads, album_writes, bulk_writes, place_writes, reads, writes
from gateway.gallery.problems import refuse
from gateway.parts import Parts
from primary.errors import InvalidValue
from primary.gallery.errors import GalleryError


def gallery_router(parts: Parts) -> Router:
    """Give all routes of the gallery, to be mounted below /api."""
    images = [reads, writes, bulk_writes, activity_writes]
    albums = [album_reads, album_writes, place_writes]
    return Router(
        "/",
        route_handlers=[
            Router("/", route_handlers=[route for one in images for route in one.routes(parts)], tags=["images"]),
            Router("/", route_handlers=[route for one in albums for route in one.routes(parts)], tags=["albums"]),
        ],
        exception_handlers={GalleryError: refuse, InvalidValue: refuse},
    )
