"""Where a request is wrong, in the client's own terms: ``images[3].seed``, ``limit``, ``X-Min-Version``.

msgspec tells the place only within its message, as a JSON path at the end. What reads that message is here.
"""

from __future__ import annotations

from typing import Any

import msgspec
from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.params import ParameterKwarg

_PLACE = " - at `$"
_NAMING = ("Object contains unknown field `", "Object missing required field `")


class FieldError(msgspec.Struct, frozen=True):
    """One thing that is wrong with a request; ``field`` is empty for the body as a whole."""

    field: str
    message: str


def error_in_body(error: msgspec.ValidationError) -> FieldError:
    """Read a validation error of a body.

    >>> error_in_body(msgspec.ValidationError("Expected `int`, got `str` - at `$.images[3].seed`"))
    FieldError(field='images[3].seed', message='Expected `int`, got `str`')
    >>> error_in_body(msgspec.ValidationError("Object contains unknown field `sede` - at `$.images[3]`")).field
    'images[3].sede'
    """
    message, _, place = str(error).rpartition(_PLACE) if _PLACE in str(error) else (str(error), "", "")
    place = place.removesuffix("`").removeprefix(".")
    for naming in _NAMING:
        if message.startswith(naming):
            # The object is where the path leads, but the field is what the client has to look at.
            name = message.removeprefix(naming).removesuffix("`")
            return FieldError(f"{place}.{name}" if place else name, message)
    return FieldError(place, message)


def errors_of(error: ValidationException, handler: BaseRouteHandler | None = None) -> list[FieldError]:
    """Read what Litestar refuses: path, query and header parameters. Empty when the body is missing."""
    if isinstance(error.__cause__, KeyError):  # a required parameter is not there
        return [FieldError(str(error.__cause__.args[0]), "Missing required parameter")]
    told = [entry for entry in error.extra or () if isinstance(entry, dict)]
    if not told:
        return [FieldError("", error.detail)]
    return [
        FieldError(_as_written(str(entry.get("key", "")), handler), str(entry.get("message", "")))
        for entry in told
        if entry.get("key") != "data"
    ]


def _as_written(name: str, handler: BaseRouteHandler | None) -> str:
    """Give a parameter's name in the request, which can be another than in the handler's signature."""
    parameter = handler.parsed_fn_signature.parameters.get(name) if handler is not None else None
    definition: Any = parameter.kwarg_definition if parameter is not None else None
    if isinstance(definition, ParameterKwarg):
        return definition.name or name
    return name
