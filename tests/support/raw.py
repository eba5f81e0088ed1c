"""Event streams and requests over bare sockets: for hundreds at once, and to measure a server and not its client."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec

from tests.support.server import token

_EVENT_MAX_BYTES = 64 << 20


class RawEvent(NamedTuple):
    """An event: its name, its id (None where it had none), its data as JSON text; ``at`` is `time.perf_counter`'s."""

    name: str
    id: str | None
    data: bytes
    at: float


class RawConnection:
    """One connection to a server, of one user."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, url: str, user: str) -> None:
        self._reader = reader
        self._writer = writer
        self._head = f"Host: {urlsplit(url).netloc}\r\nAuthorization: Bearer {token(user)}\r\n"

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Ask, and give the status and the body, which must have a length."""
        content = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n" if body else ""
        self._writer.write(f"{method} {path} HTTP/1.1\r\n{self._head}{content}\r\n".encode() + body)
        status, length = await self._answer()
        return status, await self._reader.readexactly(length)

    async def listen(self, path: str = "/api/events") -> None:
        """Make an event stream of this connection."""
        self._writer.write(f"GET {path} HTTP/1.1\r\n{self._head}\r\n".encode())
        status, _ = await self._answer()
        assert status == 200, status

    async def next(self) -> RawEvent:
        """Wait for the next event. Heartbeats are none. Raises `EOFError` at the end of the stream."""
        name, identity = "", None
        while line := await self._reader.readline():  # each event comes in a chunk of its own, so no line is cut
            if line.startswith(b"event: "):
                name, identity = line[7:-1].decode(), None
            elif line.startswith(b"id: "):
                identity = line[4:-1].decode()
            elif line.startswith(b"data: "):
                return RawEvent(name, identity, line[6:-1], time.perf_counter())
        raise EOFError

    def close(self) -> None:
        self._writer.transport.abort()

    async def _answer(self) -> tuple[int, int]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
        return int(head[9:12]), int(length or 0)


class Told(msgspec.Struct):
    """The data of any event."""

    version: str
    changes: list[dict[str, Any]] = []
    more: bool = False


read_told = msgspec.json.Decoder(Told).decode


@asynccontextmanager
async def connected(url: str, user: str) -> AsyncIterator[RawConnection]:
    """A connection, closed at the end."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=_EVENT_MAX_BYTES)
    connection = RawConnection(reader, writer, url, user)
    try:
        yield connection
    finally:
        connection.close()


async def talk(url: str, data: bytes) -> bytes:
    """Send bytes that no client of HTTP would, and give what comes back until the server closes."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()
