"""How fresh a read is: how far back it may look, what it says of that, and when it need not be sent again.

    if (unchanged := await freshness.before(request.scope, user)) is not None:
        return unchanged
    reading = await store.read(user, work)
    return freshness.answer(request.scope, user, reading.version, reading.value)

A user whose replica is followed is served at once. Any other's replica is compared with the primary first; where that
cannot be had, what there is is served, marked stale. A client that hands back a cursor never reads an older state.
"""

from __future__ import annotations

import asyncio
import hashlib
from time import monotonic
from typing import Any, Protocol, cast
from urllib.parse import parse_qs

from litestar.types import Scope

from gateway.answers import Answer
from gateway.problems import Problem
from gateway.validation import FieldError
from gateway.whole import Header
from primary.cursor import Cursor
from primary.errors import EpochMismatch, InvalidCursor, PrimaryUnavailable
from replica.results import SyncResult

PAUSE_FIRST_S = 0.01  # a commit that was answered is visible at once; only a made-up cursor waits for long
PAUSE_MAX_S = 0.25

MIN_VERSION = "X-Min-Version"
MIN_VERSION_PARAMETER = "min_version"

_MIN_VERSION = MIN_VERSION.lower().encode()
_PARAMETER = MIN_VERSION_PARAMETER.encode()
_UNSURE = "tidepool.unsure"  # in a request's scope when the replica could not be compared for it: whatever others find
_TOLD_MAX = 10_000  # users whose headers are kept ready, 0.5 KB each
_STALE: Header = (b"x-replica-stale", b"true")
# What was read belongs to one user and ages at once: keep it, but ask before it is shown again.
_CACHING: tuple[Header, ...] = ((b"cache-control", b"private, no-cache"), (b"vary", b"authorization, cookie"))


class Replicas(Protocol):
    """What is asked of the store here."""

    async def cursor(self, user: str) -> Cursor:
        """Give the cursor of the user's replica as it is."""
        ...

    async def sync(self, user: str, *, at_least: Cursor | None = None) -> SyncResult:
        """Bring the user's replica up to date."""
        ...


class Following(Protocol):
    """What is asked of the follower here."""

    def serves(self, user: str) -> bool:
        """Say whether the user's replica is followed, and follow it from now on."""
        ...

    async def check(self, user: str) -> bool:
        """Compare the user's replica with the primary, and bring it there, if that can be had soon."""
        ...

    def vouches(self, user: str) -> bool:
        """Say whether the replica is followed, or the last check went well."""
        ...


class Reachable(Protocol):
    """What is asked of the primary here."""

    @property
    def reachable(self) -> bool:
        """Whether the last contact found it."""
        ...


class Freshness:
    """Honours ``X-Min-Version`` (or ``?min_version=``) and ``If-None-Match``, and says which state was read.

    ``wait_ms`` bounds the wait for a version. ``edition`` stands for all that shapes an answer besides the
    rows: when it changes, no answer kept by a client counts as unchanged.
    """

    def __init__(
        self, store: Replicas, following: Following, primary: Reachable, *, wait_ms: int, edition: str = ""
    ) -> None:
        self._store = store
        self._following = following
        self._primary = primary
        self._wait_s = wait_ms / 1000

        self._edition = edition
        self._told: dict[str, tuple[Cursor, tuple[Header, ...]]] = {}

    async def before(self, scope: Scope, user: str, *, there: bool = True, weak: bool = False) -> Answer | None:
        """See that the replica is current and at the client's min version; give the 304 if the client has it all.

        Where it is not sure that what is asked for is ``there``, a star, which means whatever there is, says nothing.
        ``weak`` is for answers whose ETag is `weakened`.
        Raises a `Problem`: 422 `invalid_cursor`, 409 `cursor_epoch_changed`, 504 `version_not_reached`.
        """
        min_version: bytes | None = None
        if_none_match = b""
        field = MIN_VERSION
        for name, value in scope["headers"]:
            if name == _MIN_VERSION:
                min_version = value if min_version is None else min_version + b"," + value
            elif name == b"if-none-match":
                if_none_match = value if not if_none_match else if_none_match + b"," + value
        if min_version is None and (asked := _parameter(scope["query_string"])) is not None:
            field, min_version = MIN_VERSION_PARAMETER, asked
        if not self._following.serves(user) and not await self._following.check(user):
            cast("dict[str, Any]", scope)[_UNSURE] = True
        if min_version is not None:
            await self.reach(user, _parse(min_version, field))
        if not if_none_match:
            return None
        headers = self.headers(scope, user, await self._store.cursor(user))
        if not there and if_none_match == b"*":
            return None
        if not _matches(if_none_match, headers[1][1]):
            return None
        return Answer(304, weakened(headers) if weak else headers)

    async def reach(self, user: str, version: Cursor) -> None:
        """Wait until the user's replica is at ``version`` or past it, syncing it as needed."""
        deadline = monotonic() + self._wait_s
        pause = PAUSE_FIRST_S
        unreachable = False
        reached = await self._store.cursor(user)
        while not reached.covers(version):
            try:
                async with asyncio.timeout(deadline - monotonic()):
                    reached = (await self._store.sync(user, at_least=version)).version
            except TimeoutError:
                raise _not_reached(version, reached, unreachable=unreachable) from None
            except PrimaryUnavailable:
                unreachable = True  # it may be back in time
            else:
                unreachable = False
                if reached.epoch != version.epoch:
                    raise EpochMismatch(f"the primary's epoch is {reached.epoch}")
                if reached >= version:
                    return
            await asyncio.sleep(max(0, min(pause, deadline - monotonic())))
            pause = min(pause * 2, PAUSE_MAX_S)

    def headers(self, scope: Scope, user: str, version: Cursor) -> tuple[Header, ...]:
        """Give the headers that say which state was read: the version first, its ETag second."""
        told = self._told.get(user)
        if told is None or told[0] is not version:  # a replica gives the same object until it moves
            if len(self._told) >= _TOLD_MAX:
                self._told.clear()
            text = str(version).encode()
            etag = b'"%b-%b"' % (text, self._tag(user))
            told = self._told[user] = version, ((b"x-replica-version", text), (b"etag", etag), *_CACHING)
        if _UNSURE in scope or not (self._primary.reachable and self._following.vouches(user)):
            return (*told[1], _STALE)
        return told[1]

    def _tag(self, user: str) -> bytes:
        # Two users' rows can stand at the same cursor, and share a browser: what is one's must not count as
        # unchanged for the other.
        return hashlib.blake2b(f"{self._edition}\0{user}".encode(), digest_size=6).hexdigest().encode()

    def answer(self, scope: Scope, user: str, version: Cursor, body: bytes) -> Answer:
        """Answer a read, which `before` was asked of, with the JSON that was read at ``version``."""
        return Answer.json(body, headers=self.headers(scope, user, version))


def weakened(headers: tuple[Header, ...]) -> tuple[Header, ...]:
    """Make the ETag a weak one: for an answer that says the same each time, but not with the same bytes."""
    return tuple((name, b"W/" + value if name == b"etag" else value) for name, value in headers)


def _matches(if_none_match: bytes, etag: bytes) -> bool:
    """Compare weakly, as RFC 9110 §13.1.2 has it for If-None-Match: a list of ETags, or a star for any.

    >>> _matches(b'W/"a.1", "a.2"', b'"a.2"'), _matches(b'"a.1"', b'"a.2"'), _matches(b"*", b'"a.2"')
    (True, False, True)
    """
    if if_none_match == etag:
        return True
    return any(one.strip().removeprefix(b"W/") in (etag, b"*") for one in if_none_match.split(b","))


def _parameter(query: bytes) -> bytes | None:
    """Give the min version of a query. Where the name is not in it as it is, it can be there percent-encoded."""
    if _PARAMETER not in query and b"%" not in query:
        return None
    values = parse_qs(query.decode("latin-1"), keep_blank_values=True, errors="replace")
    return values[MIN_VERSION_PARAMETER][0].encode() if MIN_VERSION_PARAMETER in values else None


def _parse(text: bytes, field: str) -> Cursor:
    try:
        return Cursor.parse(text.decode("latin-1"))
    except InvalidCursor as error:
        errors = [FieldError(field, str(error))]
        raise Problem(422, "invalid_cursor", f"{field}: {error}", hint=error.hint, errors=errors) from None


def _not_reached(version: Cursor, reached: Cursor, *, unreachable: bool) -> Problem:
    why = "the primary database cannot be reached" if unreachable else "the replica did not get there in time"
    return Problem(
        504,
        "version_not_reached",
        f"version {version} was asked for and {reached} is what there is: {why}",
        hint="Try again shortly, or read without a min version.",
    )
