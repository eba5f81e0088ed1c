"""The gallery's routes, put together."""

from __future__ import annotations

from litestar import Router

from gateway.gallery import activity_writes, album_reads, album_writes, bulk_writes, place_writes, reads, writes
from gateway.gallery.problems import refuse
from gateway.parts import Parts
from primary.errors import InvalidValue
from primary.gallery.errors import GalleryError


def gallery_routers(parts: Parts) -> list[Router]:
    """Give all routes of the gallery, to be mounted below /api.

    Not within a router of their own: Litestar copies all of each for each that it is within, some 13 ms of every start.
    """
    images = [reads, writes, bulk_writes, activity_writes]
    albums = [album_reads, album_writes, place_writes]
    return [
        Router(
            "/",
            route_handlers=[route for one in modules for route in one.routes(parts)],
            tags=[tag],
            exception_handlers={GalleryError: refuse, InvalidValue: refuse},
        )
        for tag, modules in (("images", images), ("albums", albums))
    ]
