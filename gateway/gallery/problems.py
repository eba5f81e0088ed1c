"""What the gallery refuses, as clients read it."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Request, Response

from gateway.problems import Problem, answer, invalid_request
from gateway.validation import FieldError
from primary.gallery.errors import GalleryError, IdTaken, InvalidRecord, NotFound, RowVersionConflict
from primary.gallery.image import Image


def refuse(request: Request[Any, Any, Any], error: GalleryError) -> Response[bytes]:
    """Answer what the gallery refuses; to be the routes' exception handler."""
    response = answer(request, problem_of(error))
    if isinstance(error, RowVersionConflict):
        # What the client has to merge with, so that it need not ask again (an extension member, RFC 9457 §3.2).
        response.content = response.content[:-1] + b',"current":' + image_json(error.current) + b"}"
    return response


def problem_of(error: GalleryError) -> Problem:
    """Give the answer to what the gallery refuses."""
    match error:
        case InvalidRecord():
            return invalid_request([FieldError(fault.field, fault.reason) for fault in error.faults])
        case NotFound():
            return not_found()
        case IdTaken():
            field = f"images[{error.index}].id" if error.index is not None else "id"
            return Problem(
                409,
                "id_taken",
                str(error),
                hint="Make a new id for a new image; to change the stored one, use PATCH.",
                errors=[FieldError(field, "already belongs to an image with other values")],
            )
        case RowVersionConflict():
            return Problem(
                412,
                "row_version_conflict",
                str(error),
                hint="Someone else edited first. `current` is what the image is now: decide, and try again with "
                f'If-Match: "{error.current.row_version}".',
            )
    raise NotImplementedError(type(error))


def not_found() -> Problem:
    """Say that the user owns no such image; whether someone else does is not told."""
    return Problem(404, "not_found", "there is no such image")


def no_such_album() -> Problem:
    """Say that the user owns no such album."""
    return Problem(404, "not_found", "there is no such album")


def image_json(image: Image) -> bytes:
    """Write an image as it is given out everywhere."""
    return msgspec.json.encode(image)
