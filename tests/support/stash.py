"""A server that speaks as much of Stash's GraphQL as the mirror does, over real HTTP, and fails as told.

async with stash() as server:
    server.images["7"] = StashImage()
    server.fail(status(503), hang())     # the next two requests; then all is well again
    ...
    server.calls                          # [("imageUpdate", "7", 80), ("imageIncrementO", "7", None)]
"""

from __future__ import annotations

import asyncio
import json
import re
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

Behaviour = Callable[["Stash", asyncio.StreamWriter, dict[str, Any]], Awaitable[None]]
"""What a request is answered with, in place of what it asks for."""

_MUTATION = re.compile(r"\{\s*(imageUpdate|imageIncrementO|imageDecrementO)\b")


@dataclass
class StashImage:
    """An image as the server knows it."""

    rating100: int | None = None
    o_counter: int = 0


@dataclass
class Stash:
    """The server's state. ``calls`` are those that took effect, ``requests`` all, with headers and body."""

    key: str = "key-of-stash"
    images: dict[str, StashImage] = field(default_factory=dict)
    calls: list[tuple[str, str, int | None]] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)
    url: str = ""
    slow_s: float = 0
    always: Behaviour | None = None
    most_at_once: int = 0
    under_way: int = 0
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    _next: deque[Behaviour] = field(default_factory=deque)
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def fail(self, *behaviours: Behaviour) -> None:
        """Let the next requests be answered so, one each."""
        self._next.extend(behaviours)

    async def until(self, condition: Callable[[], bool], within_s: float = 10) -> None:
        """Wait until something is so, looking when a request was begun or answered."""
        async with asyncio.timeout(within_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await self._serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # who asked has gone
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines) if name}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = {"line": first, "headers": headers, "body": json.loads(body or b"null")}
        self.requests.append(request)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        self.changed.set()
        try:
            if self.slow_s:
                await asyncio.sleep(self.slow_s)
            if self._next:
                await self._next.popleft()(self, writer, request)
            elif self.always is not None:
                await self.always(self, writer, request)
            else:
                await answer(self, writer, request)
        finally:
            self.under_way -= 1
            self.changed.set()

    def apply(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what is asked for, and give what Stash would answer."""
        found = _MUTATION.search(request["body"]["query"])
        assert found is not None
        name = found.group(1)
        variables = request["body"]["variables"]
        image = self.images.get(variables["id"])
        if image is None:
            error = {"message": f"image with id {variables['id']} not found", "path": [name]}
            return {"errors": [error], "data": {name: None} if name == "imageUpdate" else None}
        rating = variables.get("rating100")
        if name == "imageUpdate":
            image.rating100 = rating
        else:
            image.o_counter += 1 if name == "imageIncrementO" else -1
        self.calls.append((name, variables["id"], rating))
        return {"data": {name: {"id": variables["id"]} if name == "imageUpdate" else image.o_counter}}


async def send(
    writer: asyncio.StreamWriter, status_code: int, body: bytes, kind: str = "application/json", more: str = ""
) -> None:
    head = f"HTTP/1.1 {status_code} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    writer.write(head.encode() + body)
    await writer.drain()


async def answer(server: Stash, writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
    """As Stash does."""
    if request["headers"].get("apikey") != server.key:
        await send(writer, 401, b"", "text/plain")
    else:
        await send(writer, 200, json.dumps(server.apply(request)).encode())


def status(code: int, body: bytes = b"", more: str = "") -> Behaviour:
    """Some other answer, and no effect."""

    async def behave(_: Stash, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
        await send(writer, code, body, more=more)

    return behave


def says(document: Any) -> Behaviour:
    """A 200 with that JSON, and no effect."""
    return status(200, json.dumps(document).encode())


def hang(*, after_effect: bool = False) -> Behaviour:
    """No answer, until who asked gives up; with ``after_effect`` the change was made all the same."""

    async def behave(server: Stash, writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        if after_effect:
            server.apply(request)
            server.changed.set()
        await asyncio.wait([asyncio.ensure_future(writer.wait_closed())], timeout=30)

    return behave


async def drip(_: Stash, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
    """A byte now and then, for ever."""
    writer.write(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def huge(_: Stash, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
    """An answer without an end."""
    writer.write(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\n\r\n")
    while not writer.is_closing():
        writer.write(b" " * 65_536)
        await writer.drain()


async def reset(_: Stash, writer: asyncio.StreamWriter, __: dict[str, Any]) -> None:
    """The connection is reset."""
    writer.transport.abort()


@asynccontextmanager
async def stash(*, ssl_context: ssl.SSLContext | None = None) -> AsyncIterator[Stash]:
    """A server on a free port of 127.0.0.1."""
    state = Stash()
    listening = await asyncio.start_server(state.accept, "127.0.0.1", 0, ssl=ssl_context)
    port = listening.sockets[0].getsockname()[1]
    state.url = f"{'https' if ssl_context else 'http'}://127.0.0.1:{port}/graphql"
    try:
        yield state
    finally:
        listening.close()
        for writer in list(state._writers):
            writer.transport.abort()
