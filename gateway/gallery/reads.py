"""The routes that read images, from the asking user's replica. Nothing is made here for each image of a page."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import lru_cache, partial

from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.freshness import MIN_VERSION_PARAMETER
from gateway.gallery.asked import image_id_asked, page_asked
from gateway.gallery.documents import FOUND, PAGE, PageRead
from gateway.gallery.problems import not_found
from gateway.openapi import FreshRead, problem_spec
from gateway.parameters import only
from gateway.parts import Parts
from replica.gallery import images
from replica.gallery.images import Page

_QUERY_KEPT_MAX_BYTES = 300
"""A page cursor and a version fit; what is longer is no client's habit."""


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    store, freshness, settings = parts.store, parts.freshness, parts.settings

    def reader_of(query: bytes) -> Callable[[sqlite3.Connection], Page]:
        asked = page_asked(query, limit_default=settings.page_default, limit_max=settings.page_max)
        return partial(images.newest, limit=asked.limit, after=asked.after)

    # Clients ask for a few pages again and again, the first ones most of all.
    known_reader_of = lru_cache(maxsize=1_000)(reader_of)

    @get("/images", operation_class=PageRead, responses={200: PAGE}, summary="List images, the newest first")
    async def list_images(request: StrictRequest) -> Answer:
        """Give a page. Following `next_cursor` shows every image once, whatever is saved meanwhile."""
        scope = request.scope
        query = scope["query_string"]
        read = known_reader_of(query) if len(query) <= _QUERY_KEPT_MAX_BYTES else reader_of(query)
        user = request.user.user
        if (unchanged := await freshness.before(scope, user)) is not None:
            return unchanged
        reading = await store.read(user, read)
        page = reading.value
        body = b'{"images":[%b],"next_cursor":%b,"version":"%b"}' % (
            page.images,
            b'"%b"' % str(page.next).encode() if page.next is not None else b"null",
            str(reading.version).encode(),
        )
        return freshness.answer(user, reading.version, body)

    @get(
        "/images/{image_id:str}",
        operation_class=FreshRead,
        responses={200: FOUND, 404: problem_spec(404, "not_found", "there is no such image")},
        summary="Give one image",
    )
    async def get_image(request: StrictRequest, image_id: FromPath[str]) -> Answer:
        """Give an image and what its owner thinks of it."""
        only(request.scope, MIN_VERSION_PARAMETER)
        read = partial(images.one, image_id=str(image_id_asked(image_id)))
        user = request.user.user
        if (unchanged := await freshness.before(request.scope, user, there=False)) is not None:
            return unchanged
        reading = await store.read(user, read)
        if reading.value is None:
            raise not_found()
        body = b'{%b,"version":"%b"}' % (reading.value, str(reading.version).encode())
        return freshness.answer(user, reading.version, body)

    return [list_images, get_image]
