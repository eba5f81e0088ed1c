"""The one way in which routes write: one transaction, answered after its commit, and once for each Idempotency-Key.

    async def rate(request, …):
        return await writes.answer(request, lambda write: …)

What a route gives is the work of the write, which gives the members of the answer; the `version` is added here, and
so is I7. A route that changes something has no other way to the primary, so none can forget either.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from litestar.openapi.spec import OpenAPIType, Operation, Parameter, Schema

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.openapi import problem_spec
from gateway.problems import Problem, invalid_request
from gateway.validation import FieldError
from primary.errors import PrimaryBusy, PrimaryError, Refused
from primary.once import Asked, Given, KeyReused, once, sweep
from primary.postgres import Primary
from primary.write import Write

KEY = "Idempotency-Key"
KEY_MAX_CHARS = 255  # longer than any UUID or digest that clients make
SWEEP_INTERVAL_S = 600  # an answer may be kept that much longer; to look costs one read of an index

CONFLICT = problem_spec(409, "constraint_conflict", "note: uq_note_user_id_slug: there is such a row already")
"""Describes what a write answers where a constraint is in its way, for the ``responses`` of a route."""

_KEY = KEY.lower().encode()
_AGAIN = (b"idempotent-replayed", b"true")

_log = structlog.get_logger("tidepool.once")


@dataclass(frozen=True, slots=True)
class Done:
    """What a write did: the members of the answer's JSON object, without its braces, and HTTP's status."""

    members: bytes
    status: int = 200


Work = Callable[[Write], Awaitable[Done]]


class Writes:
    """Runs what routes write. Answers under a key are kept for ``kept_s``."""

    def __init__(self, primary: Primary, *, kept_s: float) -> None:
        self._primary = primary
        self._kept_s = kept_s

    async def answer(self, request: StrictRequest, work: Work, *, conditional: bool = False) -> Answer:
        """Do the work in one transaction and answer with its ``version``, or as the same request was answered before.

        Raises what the work raises, as `primary.once.once` does, and a `Problem`: 422 for a key that is none, or is
        another request's, and for an If-Match unless the route is ``conditional`` and looks at it.
        """
        if not conditional and any(name == b"if-match" for name, _ in request.scope["headers"]):
            # Who sends it expects that nothing is done to what has changed meanwhile.
            raise invalid_request([FieldError("If-Match", "is not looked at by this route")])

        asked = await _asked(request)

        async def told(write: Write) -> Given:
            done = await work(write)
            cursor = await write.cursor()
            return Given(done.status, b'{%b,"version":"%b"}' % (done.members, str(cursor).encode()))

        try:
            given = await once(self._primary, request.user.user, asked, told, kept_s=self._kept_s)
        except KeyReused as error:
            errors = [FieldError(KEY, "was given with another request before")]
            raise Problem(422, "idempotency_key_reused", str(error), hint=error.hint, errors=errors) from None
        except Refused as error:
            route = request.scope.get("path_template")
            _log.info("refused", route=route, table=error.table, field=error.field, postgres=error.said)
            raise
        except PrimaryBusy as error:
            _log.warning("given_up", route=request.scope.get("path_template"), postgres=str(error))
            raise
        return Answer.json(given.body, status=given.status, headers=[_AGAIN] if given.again else [])


async def sweep_on(primary: Primary, *, kept_s: float) -> None:
    """Forget now and then the answers that were kept long enough, until cancelled."""
    while True:
        await asyncio.sleep(SWEEP_INTERVAL_S)
        with contextlib.suppress(PrimaryError):  # another time, then
            if gone := await sweep(primary, kept_s=kept_s):
                _log.info("swept", answers=gone)


@dataclass
class WriteOperation(Operation):
    """A write through `Writes`: say ``operation_class=WriteOperation`` and its header is described."""

    def __post_init__(self) -> None:
        told = "Any text of your own: sent again with it, the same request has no second effect and the same answer."
        schema = Schema(type=OpenAPIType.STRING, examples=["0b9c6c1e-7a57-4f62-a4a6-0e6d4f8a3c55"])
        self.parameters = [*(self.parameters or []), Parameter(KEY, "header", description=told, schema=schema)]


async def _asked(request: StrictRequest) -> Asked | None:
    """Read the key of a request, and what tells the request from others. Raises a `Problem`."""
    key: bytes | None = None
    if_match = b""
    for name, value in request.scope["headers"]:
        if name == _KEY:
            if key is not None:
                raise invalid_request([FieldError(KEY, "is given more than once")])
            key = value.strip()
        elif name == b"if-match":
            if_match += value + b"\n"
    if key is None:
        return None
    if not 1 <= len(key) <= KEY_MAX_CHARS or not all(0x20 <= byte < 0x7F for byte in key):
        raise invalid_request([FieldError(KEY, f"must be 1 to {KEY_MAX_CHARS} printable ASCII characters")])
    scope = request.scope
    parts = (scope["method"].encode(), scope["raw_path"], scope["query_string"], if_match, await request.body())
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:%b" % (len(part), part))
    return Asked(key.decode("ascii"), digest.digest())
