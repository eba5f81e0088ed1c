"""A proxy before Postgres that breaks as networks do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit


class PostgresProxy:
    """Forwards TCP connections to the socket of an embedded Postgres, until told to misbehave.

    - `cut`: every connection is reset, new ones are refused, as when the server's process is gone;
    - `stall`: connections stay and new ones are accepted, but no byte passes, as behind a dead link;
    - `deafen`: connections are reset, new ones are accepted and never answered, as from a hung machine;
    - `resume`: all is well again; what was held by `stall` passes.

    ``accepted`` counts connections, ``round_trips`` how often a client spoke after the server did.
    """

    def __init__(self, target_url: str) -> None:
        self._database = urlsplit(target_url).path.lstrip("/")
        self._target = _socket_of(target_url)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._flows = asyncio.Event()
        self._deaf = False
        self._handlers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self.accepted = 0
        self.round_trips = 0

    @property
    def url(self) -> str:
        return f"postgresql://postgres@127.0.0.1:{self._port}/{self._database}"

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._handlers)

    async def resume(self) -> None:
        self._deaf = False
        self._flows.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._reset()

    def stall(self) -> None:
        self._flows.clear()

    async def deafen(self) -> None:
        self._deaf = True
        await self._reset()

    async def lead_to(self, target_url: str) -> None:
        """Lead to another server from now on, as a failover does; connections to the one before are reset."""
        self._target = _socket_of(target_url)
        await self._reset()

    async def _reset(self) -> None:
        handlers = dict(self._handlers)
        for task, writer in handlers.items():
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers[task] = writer
        self.accepted += 1
        try:
            if self._deaf:
                await asyncio.Event().wait()
            await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass  # that is what this is for
        finally:
            del self._handlers[task]
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        server_spoke = True

        async def pass_on(source: asyncio.StreamReader, to: asyncio.StreamWriter, *, from_client: bool) -> None:
            nonlocal server_spoke
            while data := await source.read(65536):
                await self._flows.wait()
                self.round_trips += from_client and server_spoke
                server_spoke = not from_client
                to.write(data)
                await to.drain()

        directions = [
            asyncio.ensure_future(pass_on(reader, server_writer, from_client=True)),
            asyncio.ensure_future(pass_on(server_reader, writer, from_client=False)),
        ]
        try:
            await asyncio.wait(directions, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server_writer.transport.abort()  # first: this may be cancelled once more while it waits
            for direction in directions:
                direction.cancel()
            await asyncio.gather(*directions, return_exceptions=True)


def _socket_of(url: str) -> str:
    (folder,) = parse_qs(urlsplit(url).query)["host"]
    return f"{folder}/.s.PGSQL.5432"


@asynccontextmanager
async def proxied(target_url: str) -> AsyncIterator[PostgresProxy]:
    """A proxy that is up, and down at the end."""
    proxy = PostgresProxy(target_url)
    await proxy.resume()
    try:
        yield proxy
    finally:
        await proxy.cut()
