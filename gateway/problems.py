"""What goes wrong, as clients read it: RFC 9457 problems with a stable ``code``.

One table says which exception becomes which answer; what is not in it is a defect of ours, logged whole and
answered with the request's id alone. Nothing here lets a traceback, SQL or a path of this machine out.

    raise Problem(404, "not_found", "there is no such image")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.exceptions import HTTPException, InternalServerException, ValidationException
from litestar.handlers import BaseRouteHandler

from gateway.auth.asking import CrossSiteRequest
from gateway.auth.tokens import KeysUnavailable, Unauthenticated
from gateway.observe.request_ids import request_id_of
from gateway.validation import FieldError, errors_of
from primary.errors import (
    Conflict,
    EpochMismatch,
    InvalidCursor,
    InvalidValue,
    MigrationsPending,
    PrimaryBusy,
    PrimarySlow,
    PrimaryUnavailable,
)
from replica.errors import ReadTimeout, ReplicaUnavailable, Unfinished

MEDIA_TYPE = "application/problem+json"

_log = structlog.get_logger("tidepool.problems")


class Problem(Exception):
    """An answer that says what is wrong. ``code`` is what programs go by and never changes its meaning.

    ``hint`` says what to do about it; ``errors`` names the fields at fault as the client wrote them.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        hint: str | None = None,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.hint = hint
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


class ProblemBody(msgspec.Struct, omit_defaults=True):
    """The body of every answer that is not what was asked for."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str | None = None
    errors: tuple[FieldError, ...] = ()
    hint: str | None = None


def invalid_request(errors: Sequence[FieldError]) -> Problem:
    """Say which fields of a request cannot be taken, and why."""
    first = errors[0] if errors else None
    detail = "the request cannot be taken as it is"
    if first is not None:
        detail = f"{first.field}: {first.message}" if first.field else first.message
    return Problem(422, "invalid_request", detail, errors=errors)


def malformed_json(detail: str) -> Problem:
    """Say that a body is no JSON."""
    return Problem(400, "malformed_json", detail)


def _of_validation(error: ValidationException, handler: BaseRouteHandler | None) -> Problem:
    errors = errors_of(error, handler)
    if not errors:
        return malformed_json("the request needs a JSON body")
    return invalid_request(errors)


def _of_value(error: InvalidValue) -> Problem:
    return invalid_request([FieldError(error.field, error.reason)])


def _of_unauthenticated(error: Unauthenticated) -> Problem:
    # RFC 6750 §3.1: a request without a token is told the scheme and nothing of an error.
    challenge = "Bearer" if error.code == "token_missing" else 'Bearer error="invalid_token"'
    return Problem(
        401,
        error.code,
        error.reason,
        hint="Send `Authorization: Bearer TOKEN` with a token that is valid now.",
        headers={"www-authenticate": challenge},
    )


def _of_internal(error: InternalServerException) -> Problem:
    if error.detail == "client disconnected prematurely":  # Litestar has no type for it
        return Problem(400, "client_disconnected", "the request ended before its body did")
    return _of_http(error)


def _of_http(error: HTTPException) -> Problem:
    """Turn what Litestar refuses by itself (no such route or method, too large a body, a bad header)."""
    if error.status_code >= 500:
        return _internal_error()
    code = {400: "bad_request", 413: "body_too_large"}.get(error.status_code)
    phrase = HTTPStatus(error.status_code).phrase
    return Problem(
        error.status_code,
        code or phrase.lower().replace(" ", "_").replace("-", "_"),
        error.detail or phrase,
        headers=error.headers,
    )


def _internal_error() -> Problem:
    return Problem(500, "internal_error", "something went wrong here; the log has it under this request's id")


_UNAVAILABLE = {"retry-after": "1"}

_TABLE: dict[type[Exception], Callable[[Any], Problem]] = {
    Problem: lambda error: error,
    Unauthenticated: _of_unauthenticated,
    CrossSiteRequest: lambda error: Problem(
        403, "csrf", str(error), hint="Other programs send the token as `Authorization: Bearer TOKEN`."
    ),
    KeysUnavailable: lambda _: Problem(
        503,
        "keys_unavailable",
        "tokens cannot be checked right now: their signing keys cannot be fetched",
        headers=_UNAVAILABLE,
    ),
    PrimaryBusy: lambda _: Problem(
        503,
        "primary_unavailable",
        "the primary database is busy, and nothing was written",
        hint="Try again shortly: something else had what this request needs.",
        headers=_UNAVAILABLE,
    ),
    PrimarySlow: lambda error: Problem(
        503,
        "primary_unavailable",
        "the primary database took too long, and was told to stop",
        hint=error.hint,
        headers=_UNAVAILABLE,
    ),
    PrimaryUnavailable: lambda _: Problem(
        503,
        "primary_unavailable",
        "the primary database cannot be reached",
        hint="Nothing was promised: try again shortly. Reads of what is already replicated go on meanwhile.",
        headers=_UNAVAILABLE,
    ),
    MigrationsPending: lambda _: Problem(
        503,
        "migrations_pending",
        "the primary database is not migrated yet",
        hint="Whoever runs this server has to run: tidepool migrate",
        headers=_UNAVAILABLE,
    ),
    ReplicaUnavailable: lambda _: Problem(
        503,
        "replica_unavailable",
        "your replica cannot be served right now",
        hint="Try again shortly.",
        headers=_UNAVAILABLE,
    ),
    Unfinished: lambda _: Problem(
        503,
        "replica_unavailable",
        "your replica was just filled, and cannot be searched yet",
        hint="Its full-text index is being made; try again shortly. All that does not search is served.",
        headers=_UNAVAILABLE,
    ),
    ReadTimeout: lambda error: Problem(
        503, "read_timeout", "the read took too long and was stopped", hint=error.hint, headers=_UNAVAILABLE
    ),
    InvalidValue: _of_value,
    Conflict: lambda error: Problem(
        409, "constraint_conflict", str(error), hint=error.hint, errors=[FieldError(error.field, error.reason)]
    ),
    InvalidCursor: lambda error: Problem(422, "invalid_cursor", str(error), hint=error.hint),
    EpochMismatch: lambda error: Problem(
        409,
        "cursor_epoch_changed",
        "the cursor is of another primary than the one there is now",
        hint=error.hint,
    ),
    InternalServerException: _of_internal,
    HTTPException: _of_http,
}


def problem_of(error: Exception, handler: BaseRouteHandler | None = None) -> Problem:
    """Give the answer to an exception: that of its class, or of the nearest base in the table.

    ``handler`` is the route's, which knows what its parameters are called in a request.
    """
    if isinstance(error, ValidationException):
        return _of_validation(error, handler)
    for kind in type(error).__mro__:
        if (make := _TABLE.get(kind)) is not None:
            return make(error)
    return _internal_error()


def body_of(problem: Problem, request_id: str) -> bytes:
    """Write the problem as JSON."""
    return msgspec.json.encode(
        ProblemBody(
            type=f"urn:tidepool:problem:{problem.code}",
            title=HTTPStatus(problem.status).phrase,
            status=problem.status,
            detail=problem.detail,
            code=problem.code,
            instance=f"urn:tidepool:request:{request_id}" if request_id else None,
            errors=problem.errors,
            hint=problem.hint,
        )
    )


def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Answer an exception: the one exception handler of the application."""
    problem = problem_of(error, request.scope.get("route_handler"))
    if problem.code == "internal_error":
        _log.error("internal_error", path_template=request.scope.get("path_template"), exc_info=error)
    return Response(
        body_of(problem, request_id_of(request.scope)),
        status_code=problem.status,
        media_type=MEDIA_TYPE,
        headers=problem.headers,
    )
