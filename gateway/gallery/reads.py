"""The routes that read images, from the asking user's replica. Nothing is made here for each image of a page."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial

import apsw
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath
from litestar.types import HTTPScope

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.gallery import browse_documents as documents
from gateway.gallery.asked import entries_asked, filters_asked, id_text_asked, include_asked, page_asked
from gateway.gallery.browse_operations import DetailRead, FacetsRead, ListRead, PagedRead
from gateway.gallery.documents import NOT_FOUND, PAGE
from gateway.gallery.problems import no_such_image
from gateway.parts import Parts
from gateway.problems import Problem
from gateway.straight import straight
from primary.cursor import Cursor
from replica.gallery import detail, images
from replica.gallery.browse import browse
from replica.gallery.facets import facets
from replica.gallery.images import Page
from replica.gallery.page_cursor import PageCursor

_QUERY_KEPT_MAX_BYTES = 300
"""A page cursor and a version fit; what is longer is no client's habit."""


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    store, freshness, settings = parts.store, parts.freshness, parts.settings

    def reader_of(query: bytes) -> tuple[Callable[[apsw.Connection], Page], bool]:
        """Give the read that a query asks for, and whether it is long: full-text search does much in one step."""
        asked = page_asked(query, limit_default=settings.page_default, limit_max=settings.page_max)
        if asked.listing.is_plain:
            return partial(images.newest, limit=asked.limit, after=asked.after), False
        read = partial(browse, listing=asked.listing, limit=asked.limit, after=asked.after)
        return read, asked.listing.filters.q is not None

    # Clients ask for a few pages again and again, the first ones most of all.
    known_reader_of = lru_cache(maxsize=1_000)(reader_of)

    @straight("/images", operation_class=ListRead, responses={200: PAGE}, summary="List images, the newest first")
    async def list_images(scope: HTTPScope) -> Answer:
        """Give a page of the images that pass all filters, in any order.

        Following `next_cursor` shows every image once, whatever is saved meanwhile.
        """
        query = scope["query_string"]
        read, is_long = known_reader_of(query) if len(query) <= _QUERY_KEPT_MAX_BYTES else reader_of(query)
        user: str = scope["user"].user
        if (unchanged := await freshness.before(scope, user)) is not None:
            return unchanged
        reading = await store.read(user, read, long=is_long)
        return freshness.answer(scope, user, reading.version, b"{%b}" % page_members(reading.value, reading.version))

    @get(
        "/images/facets", operation_class=FacetsRead, responses={200: documents.FACETS}, summary="Count images by kind"
    )
    async def count_images(request: StrictRequest) -> Answer:
        """Count the images that pass the filters: all, the favourites, and those of each model, source and album.

        At most 50 of each are told, those of the most images.
        """
        read = partial(facets, filters=filters_asked(request.scope["query_string"]))
        user = request.user.user
        if (unchanged := await freshness.before(request.scope, user)) is not None:
            return unchanged
        reading = await store.read(user, read, long=True)
        body = b'{%b,"version":"%b"}' % (reading.value, str(reading.version).encode())
        return freshness.answer(request.scope, user, reading.version, body)

    @straight(
        "/images/{image_id:str}",
        operation_class=DetailRead,
        responses={200: documents.FOUND, 404: NOT_FOUND},
        summary="Give one image",
    )
    async def get_image(scope: HTTPScope) -> Answer:
        """Give an image, what its owner thinks of it, and its history; with `include` also its events, its albums."""
        include = include_asked(scope["query_string"])
        image = id_text_asked("image_id", scope["path_params"]["image_id"])
        return await answer_found(parts, scope, no_such_image, partial(detail.detail, image_id=image, include=include))

    def entries_of(request: StrictRequest, image_id: str, of: str) -> Callable[[apsw.Connection], bytes | None]:
        limit, after = entries_asked(
            request.scope["query_string"], of, limit_default=settings.page_default, limit_max=settings.page_max
        )
        return partial(detail.page, of=of, image_id=id_text_asked("image_id", image_id), limit=limit, after=after)

    @get(
        "/images/{image_id:str}/history",
        operation_class=PagedRead,
        responses={200: documents.HISTORY, 404: NOT_FOUND},
        summary="List what was changed of an image",
    )
    async def list_edits(request: StrictRequest, image_id: FromPath[str]) -> Answer:
        """Give the edits of an image, the latest first: which field, from what to what, by whom and when."""
        return await answer_found(parts, request.scope, no_such_image, entries_of(request, image_id, detail.HISTORY))

    @get(
        "/images/{image_id:str}/events",
        operation_class=PagedRead,
        responses={200: documents.EVENTS, 404: NOT_FOUND},
        summary="List what was done with an image",
    )
    async def list_events(request: StrictRequest, image_id: FromPath[str]) -> Answer:
        """Give the views, counts and uses of an image, the latest first."""
        return await answer_found(parts, request.scope, no_such_image, entries_of(request, image_id, detail.EVENTS))

    return [list_images, count_images, get_image, list_edits, list_events]


async def answer_found(
    parts: Parts,
    scope: HTTPScope,
    missing: Callable[[], Problem],
    read: Callable[[apsw.Connection], bytes | None],
) -> Answer:
    """Answer with the members of what ``read`` finds, and the version; raise ``missing`` where it finds nothing."""
    user: str = scope["user"].user
    if (unchanged := await parts.freshness.before(scope, user, there=False)) is not None:
        return unchanged
    reading = await parts.store.read(user, read)
    if reading.value is None:
        raise missing()
    body = b'{%b,"version":"%b"}' % (reading.value, str(reading.version).encode())
    return parts.freshness.answer(scope, user, reading.version, body)


def page_members(page: Page, version: Cursor) -> bytes:
    """Write a page of images, without the braces."""
    return b'"images":[%b],"next_cursor":%b,"version":"%b"' % (
        page.images,
        cursor_json(page.next),
        str(version).encode(),
    )


def cursor_json(cursor: PageCursor | None) -> bytes:
    """Write a ``next_cursor``."""
    return b'"%b"' % str(cursor).encode() if cursor is not None else b"null"
