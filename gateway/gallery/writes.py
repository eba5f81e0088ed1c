"""The routes that write single images, and the one that saves many. See `gateway.once` for how a route writes."""

from __future__ import annotations

from litestar import delete, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.gallery import documents
from gateway.gallery.asked import image_id_asked, row_version_asked
from gateway.gallery.problems import image_json
from gateway.once import Done, WriteOperation
from gateway.openapi import problem_spec
from gateway.parameters import only
from gateway.parts import Parts
from gateway.problems import invalid_request
from gateway.validation import FieldError
from primary.gallery import images
from primary.gallery.image import Image
from primary.gallery.records import ImageBatch, ImagePatch, NewImage, check, check_batch
from primary.write import Write

_ID_TAKEN = problem_spec(409, "id_taken", "the id … already belongs to an image with other values")
_CONFLICT = problem_spec(412, "row_version_conflict", "the image is at row version 4 now")


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    writes, batch_max = parts.writes, parts.settings.batch_max

    @post(
        "/images",
        operation_class=WriteOperation,
        responses={201: documents.SAVED, 200: documents.SAVED_BEFORE, 409: _ID_TAKEN},
        summary="Save an image",
    )
    async def save_image(request: StrictRequest, data: JSONBody[NewImage]) -> Answer:
        """Save an image. With an `id` of the client's own making, sending it again does no harm (200)."""
        only(request.scope)
        record = check(data)

        async def save(write: Write) -> Done:
            saved = await images.create(write, record)
            return Done(_members(saved.image), 201 if saved.created else 200)

        return await writes.answer(request, save)

    @post(
        "/images/batch",
        operation_class=WriteOperation,
        responses={201: documents.SAVED_TOGETHER, 200: documents.SAVED_TOGETHER, 409: _ID_TAKEN},
        summary="Save images together",
    )
    async def save_images(request: StrictRequest, data: JSONBody[ImageBatch]) -> Answer:
        """Save images, all or none. Those without a `created_at` keep their order, the last being the newest."""
        only(request.scope)
        within(batch_max, "images", len(data.images))
        check_batch(data.images)

        async def save(write: Write) -> Done:
            saved = await images.create_many(write, data.images)
            return Done(b'"images":[%b]' % b",".join(map(image_json, saved.images)), 201 if saved.created else 200)

        return await writes.answer(request, save)

    @patch(
        "/images/{image_id:str}",
        operation_class=documents.ConditionalEdit,
        responses={200: documents.CHANGED, 404: documents.NOT_FOUND, 412: _CONFLICT},
        summary="Edit an image",
    )
    async def edit_image(request: StrictRequest, image_id: FromPath[str], data: JSONBody[ImagePatch]) -> Answer:
        """Change the given fields; null empties one. `If-Match` refuses if someone else edited first."""
        only(request.scope)
        row_version = row_version_asked(if_match(request))
        edited, changes = image_id_asked(image_id), check(data)

        async def edit(write: Write) -> Done:
            return Done(_members(await images.patch(write, edited, changes, row_version=row_version)))

        return await writes.answer(request, edit, conditional=True)

    @delete(
        "/images/{image_id:str}",
        status_code=200,
        operation_class=documents.ConditionalEdit,
        responses={200: documents.DELETED, 404: documents.NOT_FOUND, 412: _CONFLICT},
        summary="Delete an image",
    )
    async def delete_image(request: StrictRequest, image_id: FromPath[str]) -> Answer:
        """Delete an image, and with it its place in albums, its activity and its history.

        `If-Match` refuses if someone edited it meanwhile.
        """
        only(request.scope)
        row_version = row_version_asked(if_match(request))
        gone = image_id_asked(image_id)

        async def remove(write: Write) -> Done:
            await images.delete(write, gone, row_version=row_version)
            return Done(b'"id":"%b"' % str(gone).encode())

        return await writes.answer(request, remove, conditional=True)

    return [save_image, save_images, edit_image, delete_image]


def if_match(request: StrictRequest) -> str | None:
    """Give the If-Match header, joined as RFC 9110 §5.3 has it where it comes in more than one line."""
    given = request.headers.getall("if-match", None)
    return ",".join(given) if given is not None else None


def within(most: int, field: str, count: int) -> None:
    """Let a request pass that names ``count`` things at once. Raises a `Problem` if that is more than ``most``."""
    if count > most:
        raise invalid_request([FieldError(field, f"must be at most {most}, not {count}")])


def _members(image: Image) -> bytes:
    return image_json(image)[1:-1]
