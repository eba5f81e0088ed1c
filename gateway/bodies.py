"""JSON bodies, read once and strictly, straight into the type that a handler declares.

Litestar itself reads a body as plain JSON first and converts it leniently afterwards: the text "12" would
pass for the number 12, and a batch would be walked twice. With this request class a handler still says
``data: JSONBody[NewImage]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from litestar import Request

from gateway.auth.tokens import Identity
from gateway.problems import Problem, invalid_request, malformed_json
from gateway.validation import FieldError, error_in_body


class StrictRequest(Request[Identity, Any, Any]):
    """A request whose JSON body is exactly of the type of its handler's ``data``, or refused by the field."""

    async def json(self) -> Any:
        """Read the body. Raises a `Problem`: 400 for what is no JSON, 415 for what says that it is none.

        And 422 for what is not of the type.
        """
        field = self.route_handler.parsed_data_field
        decoder = _decoder(field.annotation) if field is not None else _decoder(Any)
        body = await self.body()
        if body:
            _check_is_json(self.scope["headers"])
        try:
            return decoder.decode(body)
        except msgspec.ValidationError as error:
            raise invalid_request([error_in_body(error)]) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise malformed_json(_without_classes(error)) from error


@lru_cache(maxsize=256)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _check_is_json(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Take a body that says that it is JSON, in UTF-8 and not compressed, or that says nothing of itself."""
    for name, value in headers:
        if name == b"content-type":
            kind, *parameters = (part.strip() for part in value.lower().split(b";"))
            charsets = [each[8:].strip(b'"') for each in parameters if each.startswith(b"charset=")]
            if kind != b"application/json" or not {b"utf-8", b"utf8"}.issuperset(charsets):
                raise _unsupported("Content-Type", "must be application/json")
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            raise _unsupported("Content-Encoding", "is not understood: send the body as it is")


def _unsupported(header: str, message: str) -> Problem:
    return Problem(
        415,
        "unsupported_media_type",
        f"{header}: {message}",
        hint="Send JSON in UTF-8, with the header `Content-Type: application/json`.",
        errors=[FieldError(header, message)],
    )


def _without_classes(error: Exception) -> str:
    match error:
        case UnicodeDecodeError():
            return "the body is not UTF-8"
        case RecursionError():
            return "the body is nested too deeply"
    return str(error)
