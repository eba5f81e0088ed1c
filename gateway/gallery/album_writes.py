"""The routes that make, edit and delete albums; `gateway.gallery.place_writes` has those for what is in them."""

from __future__ import annotations

import msgspec
from litestar import delete, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.gallery import album_documents as documents
from gateway.gallery.asked import album_id_asked, row_version_asked
from gateway.gallery.documents import ConditionalEdit
from gateway.gallery.writes import if_match
from gateway.once import Done, WriteOperation
from gateway.parameters import only
from gateway.parts import Parts
from primary.gallery import albums
from primary.gallery.album_records import AlbumPatch, NewAlbum
from primary.gallery.image import Album
from primary.gallery.records import check
from primary.write import Write


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    writes = parts.writes

    @post(
        "/albums",
        operation_class=WriteOperation,
        responses={
            201: documents.MADE,
            200: documents.MADE_BEFORE,
            404: documents.NOT_FOUND,
            409: documents.ID_TAKEN,
        },
        summary="Make an album",
    )
    async def make_album(request: StrictRequest, data: JSONBody[NewAlbum]) -> Answer:
        """Make an album. With an `id` of the client's own making, sending it again does no harm (200)."""
        only(request.scope)
        record = check(data)

        async def make(write: Write) -> Done:
            made = await albums.create(write, record)
            return Done(_members(made.album), 201 if made.created else 200)

        return await writes.answer(request, make)

    @patch(
        "/albums/{album_id:str}",
        operation_class=ConditionalEdit,
        responses={200: documents.CHANGED, 404: documents.NOT_FOUND, 412: documents.CONFLICT},
        summary="Edit an album",
    )
    async def edit_album(request: StrictRequest, album_id: FromPath[str], data: JSONBody[AlbumPatch]) -> Answer:
        """Change title, description or cover; null takes the latter two away.

        The cover may be any image of yours. `If-Match` refuses if someone else edited first.
        """
        only(request.scope)
        row_version = row_version_asked(if_match(request))
        edited, changes = album_id_asked(album_id), check(data)

        async def edit(write: Write) -> Done:
            return Done(_members(await albums.patch(write, edited, changes, row_version=row_version)))

        return await writes.answer(request, edit, conditional=True)

    @delete(
        "/albums/{album_id:str}",
        status_code=200,
        operation_class=ConditionalEdit,
        responses={200: documents.DELETED, 404: documents.NOT_FOUND, 412: documents.CONFLICT},
        summary="Delete an album",
    )
    async def delete_album(request: StrictRequest, album_id: FromPath[str]) -> Answer:
        """Delete an album; its images stay. `If-Match` refuses if someone edited it meanwhile."""
        only(request.scope)
        row_version = row_version_asked(if_match(request))
        gone = album_id_asked(album_id)

        async def remove(write: Write) -> Done:
            await albums.delete(write, gone, row_version=row_version)
            return Done(b'"id":"%b"' % str(gone).encode())

        return await writes.answer(request, remove, conditional=True)

    return [make_album, edit_album, delete_album]


def _members(album: Album) -> bytes:
    return msgspec.json.encode(album)[1:-1]
