"""One event stream: the answer that goes on, as HTML's server-sent events have it.

    event: version          the replica is at this cursor now
    id: 6b01…-4001.42
    data: {"version":"6b01…-4001.42"}

    event: changes          and these rows are what it took to get there; until "more" is false, some are still to come
    event: reset            what the client has is of no use any more: read everything again, as of this cursor
    :                       nothing happened, the line lives

An ``id`` is sent with what is complete, so a client that connects anew with it (`Last-Event-ID`) misses nothing.
Nothing is kept for a client that is slow to read: when it is ready, it is told of the latest state only.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Protocol, cast

from litestar.response.base import ASGIResponse
from litestar.types import Message, Receive, Scope, Send

from gateway.protocol import ABORT
from primary.cursor import Cursor
from primary.errors import PrimaryError
from replica.advances import Watch
from replica.changes import Changes, Position
from replica.errors import ReplicaError

RETRY_MS = 1_000  # how soon a browser connects anew; it is not alone when a server has stopped
_HEARTBEAT = b":\n\n"

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # a proxy that gathers an answer before it passes it on would pass on nothing
]


@dataclass(frozen=True, slots=True)
class Pace:
    """How long a stream waits, in seconds: for news, until its end, and for a client that does not read."""

    heartbeat_s: float
    age_max_s: float
    stall_max_s: float


class Source(Protocol):
    """Where a stream takes the rows that changed from."""

    async def changes(self, position: Position) -> Changes | None:
        """Give some changes after a position; None where they cannot be told."""
        ...

    async def checked(self) -> Cursor | None:
        """Bring the replica to where the primary is now, and give that cursor; None where that cannot be had."""
        ...


class EventStream(ASGIResponse):
    """The answer. ``start`` is where the replica is, ``told`` what the client has: its Last-Event-ID, if it gave one.

    With ``with_changes`` the rows that changed are told too. ``opened`` is closed at the end, whatever that is.
    """

    def __init__(
        self,
        watch: Watch,
        start: Cursor,
        told: Cursor | None,
        pace: Pace,
        opened: ExitStack,
        source: Source,
        *,
        with_changes: bool,
    ) -> None:
        self.status_code = 200
        self._watch = watch
        self._start = start
        self._told = told
        self._pace = pace
        self._opened = opened
        self._source = source
        self._with_changes = with_changes
        self._send: Send

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client leaves, the time is up or the server stops."""
        self._send = send
        with self._opened:
            leaving = asyncio.create_task(self._see_it_leave(receive))
            try:
                await self._give({"type": "http.response.start", "status": 200, "headers": _HEADERS})
                await self._put(b"retry: %d\n\n" % RETRY_MS)
                with contextlib.suppress(ReplicaError, PrimaryError):  # who connects anew is told of it
                    await self._tell_until_the_end()
                if not leaving.done():
                    await self._give({"type": "http.response.body", "body": b"", "more_body": False})
            except Stalled:
                cast("dict[str, Any]", scope)[ABORT]()
                await asyncio.wait([leaving], timeout=1)
            finally:
                leaving.cancel()

    async def _see_it_leave(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass  # of the request's body, which says nothing here
        self._watch.end()

    async def _tell_until_the_end(self) -> None:
        time = asyncio.get_running_loop().time
        ends_at = time() + self._pace.age_max_s
        if self._told is None or self._told == self._start:
            self._told = self._start
            await self._put(_version(self._start))  # also to a client that knows
        else:
            await self._advance(self._told, self._start)
        while (left_s := ends_at - time()) > 0:
            news = await self._watch.changed(min(self._pace.heartbeat_s, left_s))
            if self._watch.ended:
                return
            if not news:
                await self._put(_HEARTBEAT)
            elif self._watch.cursor is not None and self._watch.reset:
                self._watch.reset = False
                self._told = self._watch.cursor
                await self._put(_reset(self._told))
            elif self._watch.cursor is not None:
                await self._advance(self._told, self._watch.cursor)

    async def _advance(self, told: Cursor, cursor: Cursor) -> None:
        """Tell a client that has ``told`` of the replica's advance to ``cursor``."""
        if cursor == told:
            return
        if not cursor.covers(told):
            if (checked := await self._not_behind(told)) is None:
                return
            cursor = checked
        if not cursor.covers(told):
            await self._put(_reset(cursor))
        elif not self._with_changes:
            await self._put(_version(cursor))
        else:
            cursor = await self._tell_changes(told, cursor)
        self._told = cursor

    async def _not_behind(self, told: Cursor) -> Cursor | None:
        """Give where the primary is, for a replica that is not past what the client has; None where nobody can say.

        The client may have seen a later state on another node, or the first of a new primary: to send it back to where
        this node is would be wrong, unless the primary is there too.
        """
        if await self._source.changes(Position(told)) is not None:
            return None  # the replica is past it: what woke us was overtaken
        return await self._source.checked()

    async def _tell_changes(self, told: Cursor, cursor: Cursor) -> Cursor:
        """Tell what changed since ``told``, to the end, wherever the replica is by then; give that cursor."""
        position = Position(told)
        while not self._watch.ended:
            read = await self._source.changes(position)
            if read is None:
                await self._put(_reset(cursor))
                return cursor
            position = read.next
            await self._put(_changed(position.cursor, read.changes, whole=read.whole))
            if read.whole:
                return position.cursor
        return told

    async def _put(self, text: bytes) -> None:
        await self._give({"type": "http.response.body", "body": text, "more_body": True})

    async def _give(self, message: Message) -> None:
        try:
            async with asyncio.timeout(self._pace.stall_max_s):
                await self._send(message)
        except TimeoutError:
            raise Stalled from None


class Stalled(Exception):
    """The client does not read what it is sent."""


def _version(cursor: Cursor) -> bytes:
    return _event(b"version", cursor, b'{"version":"%b"}' % str(cursor).encode())


def _reset(cursor: Cursor) -> bytes:
    return _event(b"reset", cursor, b'{"version":"%b"}' % str(cursor).encode())


def _changed(cursor: Cursor, changes: list[bytes], *, whole: bool) -> bytes:
    data = b'{"version":"%b","changes":[%b],"more":%b}' % (
        str(cursor).encode(),
        b",".join(changes),
        b"false" if whole else b"true",
    )
    return _event(b"changes", cursor if whole else None, data)


def _event(name: bytes, cursor: Cursor | None, data: bytes) -> bytes:
    """Write one event. A line break in JSON is white space (within a text it is escaped), and would end the data."""
    data = data.replace(b"\n", b" ").replace(b"\r", b" ")
    identity = b"id: %b\n" % str(cursor).encode() if cursor is not None else b""
    return b"event: %b\n%bdata: %b\n\n" % (name, identity, data)
