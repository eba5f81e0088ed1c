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
    return Router(
        "/",
        route_handlers=[
            *reads.routes(parts),
            *album_reads.routes(parts),
            *writes.routes(parts),
            *bulk_writes.routes(parts),
            *activity_writes.routes(parts),
            *album_writes.routes(parts),
            *place_writes.routes(parts),
        ],
        exception_handlers={GalleryError: refuse, InvalidValue: refuse},
        tags=["images"],
    )
