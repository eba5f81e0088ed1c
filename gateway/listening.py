"""Listening: the address, and uvicorn on it, with what it waits for and for how long."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import structlog
import uvicorn

from gateway.events.streams import Streams
from gateway.protocol import Protocol
from gateway.whole import Outgoing
from replica.ending import cut_off

GRACE_S = 2  # for requests under way when the server is told to stop; Postgres and the files need the rest of 5 s
KEEP_ALIVE_S = 75  # longer than a proxy in front keeps its side (60 s is common), so that it is the one to close
UNREAD_MAX_S = 60  # after which the system ends a connection whose other side takes nothing that was sent
BACKLOG = 2_048

Ready = Callable[[str, int], Awaitable[None] | None]
"""Called with the host and the real port when the first request can be answered."""

_log = structlog.get_logger("tidepool.server")


class CannotListen(Exception):
    """The address cannot be listened on."""

    hint = "Stop what uses the port, or choose another with TIDEPOOL_PORT (0 takes any free one)."


def bind(host: str, port: int) -> socket.socket:
    """Take the address. Nobody can connect before a `Server` listens on it. Raises `CannotListen`."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # of each connection: nothing is kept longer for who does not read
                listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNREAD_MAX_S * 1000)
            listening.bind(address)
        except OSError:
            listening.close()
            raise
    except OSError as error:
        raise CannotListen(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listening


class Server(uvicorn.Server):
    """Uvicorn, without its signals, which are ours, and telling when it listens."""

    def __init__(self, app: Any, ready: Ready | None, streams: Streams) -> None:
        super().__init__(_config(app))
        self._ready = ready
        self._streams = streams
        self._shut = False

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take none."""
        yield

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until told to exit, or cancelled. Raises `CannotListen`."""
        try:
            await super().serve(sockets)
        except BaseException:
            if self.started and not self._shut:  # uvicorn itself just leaves when its task is cancelled
                await self.shutdown(sockets)
            raise

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and tell of it."""
        assert sockets is not None
        host, port = sockets[0].getsockname()[:2]
        try:
            await super().startup(sockets)
            sockets[0].getsockname()  # uvloop only closes the socket when it cannot listen on it
        except OSError as error:  # who binds it a moment before or after may be first to listen
            raise CannotListen(f"cannot listen on {host} port {port}: another program does") from error
        _log.info("listening", host=host, port=port)
        if self._ready is not None:
            told = self._ready(host, port)
            if inspect.isawaitable(told):
                await told

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is under way, the event streams first."""
        self._shut = True
        self._streams.close()  # they would not end by themselves
        await super().shutdown(sockets)
        # They were cancelled; what they use is closed next.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GRACE_S / 2):
                await cut_off(self.server_state.tasks)


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=cast("type[Protocol]", partial(Protocol, outgoing=Outgoing())),
        ws="none",
        lifespan="off",  # what the application needs is opened before it and closed after it
        log_config=None,
        access_log=False,  # `gateway.observe` writes the lines that are worth it
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
