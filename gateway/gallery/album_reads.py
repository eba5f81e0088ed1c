"""The routes that read albums, from the asking user's replica."""

from __future__ import annotations

from functools import partial

import apsw
from litestar import get
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.freshness import MIN_VERSION_PARAMETER
from gateway.gallery import browse_documents as documents
from gateway.gallery.album_documents import NOT_FOUND
from gateway.gallery.asked import album_id_asked, entries_asked, page_asked
from gateway.gallery.browse_operations import AlbumPageRead, PagedRead
from gateway.gallery.problems import no_such_album
from gateway.gallery.reads import answer_found, cursor_json, page_members
from gateway.openapi import FreshRead
from gateway.parameters import only
from gateway.parts import Parts
from replica.gallery import albums
from replica.gallery.browse import browse
from replica.gallery.images import Page


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    store, freshness, settings = parts.store, parts.freshness, parts.settings
    limits = {"limit_default": settings.page_default, "limit_max": settings.page_max}

    @get("/albums", operation_class=PagedRead, responses={200: documents.ALBUMS}, summary="List albums")
    async def list_albums(request: StrictRequest) -> Answer:
        """Give a page of albums, the newest first, each with its cover and the number of its images."""
        limit, after = entries_asked(request.scope["query_string"], albums.ALBUMS, **limits)
        user = request.user.user
        if (unchanged := await freshness.before(request.scope, user)) is not None:
            return unchanged
        reading = await store.read(user, partial(albums.albums, limit=limit, after=after))
        body = b'{"albums":[%b],"next_cursor":%b,"version":"%b"}' % (
            reading.value.albums,
            cursor_json(reading.value.next),
            str(reading.version).encode(),
        )
        return freshness.answer(request.scope, user, reading.version, body)

    @get(
        "/albums/{album_id:str}",
        operation_class=FreshRead,
        responses={200: documents.ALBUM, 404: NOT_FOUND},
        summary="Give one album",
    )
    async def get_album(request: StrictRequest, album_id: FromPath[str]) -> Answer:
        """Give an album with its cover and the number of its images."""
        only(request.scope, MIN_VERSION_PARAMETER)
        read = partial(albums.album, album_id=str(album_id_asked(album_id)))
        return await answer_found(parts, request.scope, no_such_album, read)

    @get(
        "/albums/{album_id:str}/images",
        operation_class=AlbumPageRead,
        responses={200: documents.ALBUM_PAGE, 404: NOT_FOUND},
        summary="List the images of an album",
    )
    async def list_album_images(request: StrictRequest, album_id: FromPath[str]) -> Answer:
        """Give a page of an album's images, in its order: the images as everywhere, and what they are here."""
        album = album_id_asked(album_id)
        asked = page_asked(request.scope["query_string"], album=album, **limits)

        def read(connection: apsw.Connection) -> Page | None:
            if not albums.is_there(connection, str(album)):
                return None
            return browse(connection, asked.listing, asked.limit, asked.after, placed=True)

        user = request.user.user
        if (unchanged := await freshness.before(request.scope, user, there=False)) is not None:
            return unchanged
        reading = await store.read(user, read, long=asked.listing.filters.q is not None)
        if reading.value is None:
            raise no_such_album()
        body = b"{%b}" % page_members(reading.value, reading.version)
        return freshness.answer(request.scope, user, reading.version, body)

    return [list_albums, get_album, list_album_images]
