"""What the gallery refuses, as clients read it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Response

from gateway.problems import Problem, answer, invalid_request
from gateway.validation import FieldError
from primary.errors import InvalidValue
from primary.gallery.errors import (
    EventTaken,
    Fault,
    GalleryError,
    IdTaken,
    InvalidRecord,
    NotFound,
    OrderIncomplete,
    RowVersionConflict,
    refused,
)
from primary.gallery.image import Image


def refuse(request: Request[Any, Any, Any], error: GalleryError | InvalidValue) -> Response[bytes]:
    """Answer what the gallery or its tables refuse; to be the routes' exception handler."""
    if isinstance(error, InvalidValue):
        error = refused(error)
    response = answer(request, problem_of(error))
    if isinstance(error, RowVersionConflict):
        # What the client has to merge with, so that it need not ask again (an extension member, RFC 9457 §3.2).
        response.content = response.content[:-1] + b',"current":' + msgspec.json.encode(error.current) + b"}"
    return response


def problem_of(error: GalleryError) -> Problem:
    """Give the answer to what the gallery refuses."""
    match error:
        case InvalidRecord():
            return invalid_request(_fields(error.faults))
        case NotFound():
            return Problem(404, "not_found", str(error), errors=_fields(error.faults))
        case IdTaken():
            field = f"images[{error.index}].id" if error.index is not None else "id"
            return Problem(
                409,
                "id_taken",
                str(error),
                hint="Make a new id for something new; to change the stored one, use PATCH.",
                errors=[FieldError(field, "already belongs to something with other values")],
            )
        case EventTaken():
            return Problem(
                409,
                "client_event_id_taken",
                str(error),
                hint="Make a new id for each event, and keep it only for sending that one again.",
                errors=[FieldError("client_event_id", "already belongs to another event")],
            )
        case OrderIncomplete():
            return Problem(
                409,
                "order_incomplete",
                str(error),
                hint="Read the album again, and name each of its images once; or move one before or after another.",
                errors=[FieldError("image_ids", f"leaves out {error.missing}")],
            )
        case RowVersionConflict():
            return Problem(
                412,
                "row_version_conflict",
                str(error),
                hint="Someone else edited first. `current` is what there is now: decide, and try again with its "
                "row_version.",
                errors=_fields(error.faults),
            )
    raise NotImplementedError(type(error))


def _fields(faults: Sequence[Fault]) -> list[FieldError]:
    return [FieldError(fault.field, fault.reason) for fault in faults]


def no_such_image() -> Problem:
    """Say that the user owns no such image; whether someone else does is not told."""
    return Problem(404, "not_found", "there is no such image")


def no_such_album() -> Problem:
    """Say that the user owns no such album."""
    return Problem(404, "not_found", "there is no such album")


def image_json(image: Image) -> bytes:
    """Write an image as it is given out everywhere."""
    return msgspec.json.encode(image)
