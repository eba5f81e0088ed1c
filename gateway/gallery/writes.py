"""The routes that write images, to the primary. Each answers after the commit, with its cursor as ``version``."""

from __future__ import annotations

from litestar import delete, patch, post
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath, JSONBody

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.gallery import documents
from gateway.gallery.asked import image_id_asked, row_version_asked
from gateway.gallery.problems import image_json
from gateway.openapi import problem_spec
from gateway.parameters import only
from gateway.parts import Parts
from gateway.problems import invalid_request
from gateway.validation import FieldError
from primary.cursor import Cursor
from primary.gallery import images
from primary.gallery.image import Image
from primary.gallery.records import ImageBatch, ImagePatch, NewImage, check, check_batch

_NOT_FOUND = problem_spec(404, "not_found", "there is no such image")
_ID_TAKEN = problem_spec(409, "id_taken", "the id … already belongs to an image with other values")
_CONFLICT = problem_spec(412, "row_version_conflict", "the image is at row version 4 now")


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    primary, batch_max = parts.primary, parts.settings.batch_max

    @post(
        "/images",
        responses={201: documents.SAVED, 200: documents.SAVED_BEFORE, 409: _ID_TAKEN},
        summary="Save an image",
    )
    async def save_image(request: StrictRequest, data: JSONBody[NewImage]) -> Answer:
        """Save an image. With an `id` of the client's own making, sending it again does no harm (200)."""
        only(request.scope)
        saved = await images.create(primary, request.user.user, check(data))
        return _answer(saved.image, saved.cursor, status=201 if saved.created else 200)

    @post(
        "/images/batch",
        responses={201: documents.SAVED_TOGETHER, 200: documents.SAVED_TOGETHER, 409: _ID_TAKEN},
        summary="Save images together",
    )
    async def save_images(request: StrictRequest, data: JSONBody[ImageBatch]) -> Answer:
        """Save images, all or none. Those without a `created_at` keep their order, the last being the newest."""
        only(request.scope)
        if len(data.images) > batch_max:
            raise invalid_request([FieldError("images", f"must be at most {batch_max}, not {len(data.images)}")])
        check_batch(data.images)
        saved = await images.create_many(primary, request.user.user, data.images)
        body = b'{"images":[%b],"version":"%b"}' % (
            b",".join(map(image_json, saved.images)),
            str(saved.cursor).encode(),
        )
        return Answer.json(body, status=201 if saved.created else 200)

    @patch(
        "/images/{image_id:str}",
        operation_class=documents.ConditionalEdit,
        responses={200: documents.CHANGED, 404: _NOT_FOUND, 412: _CONFLICT},
        summary="Edit an image",
    )
    async def edit_image(request: StrictRequest, image_id: FromPath[str], data: JSONBody[ImagePatch]) -> Answer:
        """Change the given fields; null empties one. `If-Match` refuses if someone else edited first."""
        only(request.scope)
        row_version = row_version_asked(_if_match(request))
        changed = await images.patch(
            primary, request.user.user, image_id_asked(image_id), check(data), row_version=row_version
        )
        return _answer(changed.image, changed.cursor)

    @delete(
        "/images/{image_id:str}",
        status_code=200,
        operation_class=documents.ConditionalEdit,
        responses={200: documents.DELETED, 404: _NOT_FOUND, 412: _CONFLICT},
        summary="Delete an image",
    )
    async def delete_image(request: StrictRequest, image_id: FromPath[str]) -> Answer:
        """Delete an image, and with it its place in albums, its activity and its history.

        `If-Match` refuses if someone edited it meanwhile.
        """
        only(request.scope)
        row_version = row_version_asked(_if_match(request))
        gone = image_id_asked(image_id)
        cursor = await images.delete(primary, request.user.user, gone, row_version=row_version)
        return Answer.json(b'{"id":"%b","version":"%b"}' % (str(gone).encode(), str(cursor).encode()))

    return [save_image, save_images, edit_image, delete_image]


def _if_match(request: StrictRequest) -> str | None:
    """Give the If-Match header, joined as RFC 9110 §5.3 has it where it comes in more than one line."""
    given = request.headers.getall("if-match", None)
    return ",".join(given) if given is not None else None


def _answer(image: Image, cursor: Cursor, *, status: int = 200) -> Answer:
    body = b'%b,"version":"%b"}' % (image_json(image)[:-1], str(cursor).encode())
    return Answer.json(body, status=status)
