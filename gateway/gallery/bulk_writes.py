"""The routes that edit and delete many images at once, all or none."""

from __future__ import annotations

from litestar import delete, patch
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.gallery import documents
from gateway.gallery.problems import image_json
from gateway.gallery.writes import if_match, within
from gateway.once import Done, WriteOperation
from gateway.openapi import problem_spec
from gateway.parameters import only
from gateway.parts import Parts
from gateway.problems import invalid_request
from gateway.validation import FieldError
from primary.gallery import bulk
from primary.gallery.errors import InvalidRecord
from primary.gallery.records import ImageChanges, ImageIds, check_changes, repeated
from primary.write import Write

_CONFLICT = problem_spec(412, "row_version_conflict", "images[3]: the image is at row version 4 now")


def routes(parts: Parts) -> list[HTTPRouteHandler]:
    """Give the routes, to be mounted below /api."""
    writes, batch_max = parts.writes, parts.settings.batch_max

    @patch(
        "/images",
        operation_class=WriteOperation,
        responses={200: documents.CHANGED_TOGETHER, 404: documents.NOT_FOUND, 412: _CONFLICT},
        summary="Edit images together",
    )
    async def edit_images(request: StrictRequest, data: JSONBody[ImageChanges]) -> Answer:
        """Change the given fields of each image, all or none; `row_version` refuses if someone else edited it first.

        Each edit that cannot be made is named by its place. Where one was edited by someone else, `current` is a
        list of what those images are now.
        """
        only(request.scope)
        _no_if_match(request)
        within(batch_max, "images", len(data.images))
        check_changes(data.images)

        async def edit(write: Write) -> Done:
            return Done(b'"images":[%b]' % b",".join(map(image_json, await bulk.patch_many(write, data.images))))

        return await writes.answer(request, edit)

    @delete(
        "/images",
        status_code=200,
        operation_class=WriteOperation,
        responses={200: documents.DELETED_TOGETHER, 404: documents.NOT_FOUND},
        summary="Delete images together",
    )
    async def delete_images(request: StrictRequest, data: JSONBody[ImageIds]) -> Answer:
        """Delete images, all or none, and with each its place in albums, its activity and its history."""
        only(request.scope)
        _no_if_match(request)
        within(batch_max, "ids", len(data.ids))
        if faults := repeated(data.ids, "ids[{}]"):
            raise InvalidRecord(faults)

        async def remove(write: Write) -> Done:
            await bulk.delete_many(write, data.ids)
            return Done(b'"ids":[%b]' % b",".join(b'"%b"' % str(one).encode() for one in data.ids))

        return await writes.answer(request, remove)

    return [edit_images, delete_images]


def _no_if_match(request: StrictRequest) -> None:
    # Who sends it expects that it is looked at, and there is no one row version of many images.
    if if_match(request) is not None:
        raise invalid_request([FieldError("If-Match", "is not for many: give each image its row_version")])
