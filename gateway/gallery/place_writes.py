"""The routes that put images into an album, order them, caption them, and take them out."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec
from litestar import delete, patch, post, put
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody
from msgspec import UNSET

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.gallery import album_documents as documents
from gateway.gallery.asked import album_id_asked, image_id_asked
from gateway.gallery.writes import within
from gateway.once import Done, WriteOperation
from gateway.parameters import only
from gateway.parts import Parts
from primary.gallery import places
from primary.gallery.album_records import (
    NewCaption,
    NewPlace,
    NewPlaces,
    Order,
    PlacePatch,
    check_order,
    check_place,
    check_places,
)
from primary.gallery.image import Placed
from primary.write import Write


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    writes, batch_max = parts.writes, parts.settings.batch_max

    @post(
        "/albums/{album_id:str}/images",
        operation_class=WriteOperation,
        responses={
            201: documents.PUT_TOGETHER,
            200: documents.PUT_TOGETHER,
            404: documents.NOT_FOUND,
        },
        summary="Put images into an album",
    )
    async def put_images(request: StrictRequest, album_id: FromPath[str], data: JSONBody[NewPlaces]) -> Answer:
        """Put images at the end of an album, all or none. Those in it keep their place; a given caption is theirs."""
        only(request.scope)
        album = album_id_asked(album_id)
        within(batch_max, "images", len(data.images))
        check_places(data.images)

        async def add(write: Write) -> Done:
            added = await places.put(write, album, data.images)
            return Done(_members(album, added.places), 201 if added.new else 200)

        return await writes.answer(request, add)

    @put(
        "/albums/{album_id:str}/images",
        operation_class=WriteOperation,
        responses={200: documents.ORDERED, 404: documents.NOT_FOUND, 409: documents.INCOMPLETE},
        summary="Order an album",
    )
    async def order_images(request: StrictRequest, album_id: FromPath[str], data: JSONBody[Order]) -> Answer:
        """Give all images of an album a new order. Where one is left out that is in it, nothing is done."""
        only(request.scope)
        album = album_id_asked(album_id)
        check_order(data)

        async def order(write: Write) -> Done:
            return Done(_members(album, await places.reorder(write, album, data.image_ids)))

        return await writes.answer(request, order)

    @put(
        "/albums/{album_id:str}/images/{image_id:str}",
        operation_class=WriteOperation,
        responses={201: documents.PUT, 200: documents.PUT_BEFORE, 404: documents.NOT_FOUND},
        status_code=201,
        summary="Put an image into an album",
    )
    async def put_image(
        request: StrictRequest,
        album_id: FromPath[str],
        image_id: FromPath[str],
        data: JSONBody[NewCaption | None] = None,
    ) -> Answer:
        """Put an image at the end of an album. If it is in it, it keeps its place; a given caption is its then."""
        only(request.scope)
        album, image = album_id_asked(album_id), image_id_asked(image_id)
        place = NewPlace(image_id=image, caption=data.caption if isinstance(data, NewCaption) else UNSET)
        check_places([place])

        async def add(write: Write) -> Done:
            added = await places.put(write, album, [place])
            return Done(_member(album, added.places[0]), 201 if added.new else 200)

        return await writes.answer(request, add)

    @patch(
        "/albums/{album_id:str}/images/{image_id:str}",
        operation_class=documents.PlaceEdit,
        responses={200: documents.MOVED, 404: documents.NOT_FOUND},
        summary="Caption or move an image of an album",
    )
    async def change_place(
        request: StrictRequest, album_id: FromPath[str], image_id: FromPath[str], data: JSONBody[PlacePatch]
    ) -> Answer:
        """Change an image's caption in an album, or move it right `before` or `after` another image there."""
        only(request.scope)
        album, image = album_id_asked(album_id), image_id_asked(image_id)
        change = check_place(data)

        async def move(write: Write) -> Done:
            return Done(_member(album, await places.change(write, album, image, change)))

        return await writes.answer(request, move)

    @delete(
        "/albums/{album_id:str}/images/{image_id:str}",
        status_code=200,
        operation_class=WriteOperation,
        responses={200: documents.TAKEN_OUT, 404: documents.NOT_FOUND},
        summary="Take an image out of an album",
    )
    async def take_image_out(request: StrictRequest, album_id: FromPath[str], image_id: FromPath[str]) -> Answer:
        """Take an image out of an album. The image stays, and so do its places in other albums."""
        only(request.scope)
        album, image = album_id_asked(album_id), image_id_asked(image_id)

        async def take(write: Write) -> Done:
            await places.take_out(write, album, image)
            return Done(b'"album_id":"%b","image_id":"%b"' % (str(album).encode(), str(image).encode()))

        return await writes.answer(request, take)

    return [put_images, order_images, put_image, change_place, take_image_out]


def _member(album: UUID, placed: Placed) -> bytes:
    return b'"album_id":"%b",%b' % (str(album).encode(), msgspec.json.encode(placed)[1:-1])


def _members(album: UUID, placed: Sequence[Placed]) -> bytes:
    return b'"album_id":"%b","images":%b' % (str(album).encode(), msgspec.json.encode(placed))
