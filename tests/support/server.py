"""A real server, on a real port: in the test's own loop, or in a process of its own to be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import uvicorn.server

from gateway.auth.tokens import issue
from gateway.settings import Settings
from tests.support.forked import ForkedProcess, forked

SECRET = "a secret for tests, of thirty-two bytes at least"
READY_S = 60

# Of clients that never speak TLS. Left to itself each would read the certificates of all authorities: 50 ms.
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def token(user: str, *, admin: bool = False, ttl_s: float = 3600) -> str:
    """A token that every server of the tests believes."""
    return issue(SECRET, user, admin=admin, ttl_s=ttl_s)


def client_of(url: str, user: str | None, **options: Any) -> httpx.AsyncClient:
    """A client that asks as ``user``, or as nobody."""
    headers = {"Authorization": f"Bearer {token(user)}"} if user is not None else {}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=30, verify=_NO_TLS, **options)


@dataclass
class RunningServer:
    """A server in this loop. ``client`` gives clients that are closed with it."""

    url: str
    settings: Settings
    _clients: list[httpx.AsyncClient] = field(default_factory=list)

    def client(self, user: str | None = "alice", **options: Any) -> httpx.AsyncClient:
        made = client_of(self.url, user, **options)
        self._clients.append(made)
        return made

    async def close(self) -> None:
        for client in self._clients:
            await client.aclose()


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[RunningServer]:
    """Serve in a task of this loop: on a free port, with the tests' secret unless the settings name keys."""
    from gateway.server import serve

    if settings.jwks_url is None:
        settings = replace(settings, jwt_secret=settings.jwt_secret or SECRET)
    address: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        serve(replace(settings, port=0), ready=lambda host, port: address.set_result(f"http://{host}:{port}"))
    )
    either: list[asyncio.Future[Any]] = [task, address]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()  # raises why it did not come up
    server = RunningServer(address.result(), settings)
    try:
        yield server
    finally:
        await server.close()
        task.cancel()
        with _short_pauses(), contextlib.suppress(asyncio.CancelledError):
            await task


@contextmanager
def _short_pauses() -> Iterator[None]:
    """Have uvicorn pause for moments, not for tenths of a second, while it stops: hundreds of tests wait for that."""

    class Hasty:
        def __getattr__(self, name: str) -> Any:
            return getattr(asyncio, name)

        @staticmethod
        async def sleep(delay_s: float) -> None:
            await asyncio.sleep(delay_s / 50)

    with mock.patch.object(uvicorn.server, "asyncio", Hasty()):
        yield


class ServerProcess:
    """`tidepool serve` as a process. `start` returns when it can be asked; `kill` is SIGKILL.

    The database and the data directory stay as the process left them; ``start`` again goes on from there.
    ``logs`` holds the JSON lines that it wrote, over all starts.
    """

    def __init__(self, data_dir: Path, database_url: str | None, environment: Mapping[str, str]) -> None:
        self.url = ""
        self.logs: list[dict[str, Any]] = []
        self._process: asyncio.subprocess.Process | ForkedProcess | None = None
        self._reading: asyncio.Task[None] | None = None
        self._listening = asyncio.Event()
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEPOOL_")}
        settings = {"DATA_DIR": str(data_dir), "PORT": "0", "HOST": "127.0.0.1", "JWT_SECRET": SECRET}
        if database_url is not None:
            settings["DATABASE_URL"] = database_url
        self._environment = clean | {f"TIDEPOOL_{name}": value for name, value in settings.items()} | dict(environment)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self, *, crash_at: str | None = None, anew: bool = False) -> str:
        """Start it, wait until it listens, and give its address; with ``crash_at`` it dies at that point.

        It need not import the program first, unless it is to begin ``anew``, for a test of how long that takes.
        """
        self._listening.clear()
        environment = self._environment | ({"TIDEPOOL_CRASH_AT": crash_at} if crash_at else {})
        module, arguments = "gateway.cli", ["serve"]
        if anew:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", module, *arguments),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        else:
            self._process = await forked(module, arguments, environment)
        self._reading = asyncio.create_task(self._read(self._process))
        waiting = asyncio.create_task(self._listening.wait())
        await asyncio.wait([waiting, self._reading], timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if not self._listening.is_set():
            raise AssertionError(f"the server did not come up: {self.logs[-5:]}")
        return self.url

    def client(self, user: str | None = "alice", **options: Any) -> httpx.AsyncClient:
        """A client of the process as it runs now; to be closed by who asked for it."""
        return client_of(self.url, user, **options)

    async def kill(self) -> None:
        """End it as a lost machine would."""
        await self._end(signal.SIGKILL)

    async def stop(self) -> int:
        """End it as an operator would, and give its exit code."""
        return await self._end(signal.SIGTERM)

    async def ended(self) -> int:
        """Wait until it ends by itself, and give its exit code: -9 where it killed itself."""
        assert self._process is not None
        assert self._reading is not None
        await self._reading
        return await self._process.wait()

    async def _end(self, order: signal.Signals) -> int:
        if self._process is None or self._process.returncode is not None:
            return self._process.returncode or 0 if self._process else 0
        self._process.send_signal(order)
        return await self.ended()

    async def _read(self, process: asyncio.subprocess.Process | ForkedProcess) -> None:
        assert process.stderr is not None
        async for raw in process.stderr:
            try:
                line = json.loads(raw)
            except ValueError:
                line = {"event": raw.decode(errors="replace").rstrip()}
            self.logs.append(line)
            if line.get("event") == "listening":
                self.url = f"http://{line['host']}:{line['port']}"
                self._listening.set()
