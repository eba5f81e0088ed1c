"""Starting the server under load and those it is measured beside, and looking at their processes."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.support.server import SECRET

READY_S = 60
STOP_S = 10


@dataclass(frozen=True, slots=True)
class Target:
    """A running server."""

    url: str
    pid: int

    def cpu_s(self) -> float:
        """Say how much processor time it has used so far, all threads together."""
        used = psutil.Process(self.pid).cpu_times()
        return float(used.user + used.system)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Have it do nothing at all for as long as the block runs."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def usage(self) -> Usage:
        """Say what its process holds now."""
        process = psutil.Process(self.pid)
        with process.oneshot():
            return Usage(process.num_fds(), process.num_threads(), process.memory_info().rss / 2**20)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process holds: open files, threads, and resident memory in MiB."""

    files: int
    threads: int
    rss_mib: float


@asynccontextmanager
async def serving(
    folder: Path, database_url: str, environment: Mapping[str, str] | None = None, **settings: object
) -> AsyncIterator[Target]:
    """Run the server on a free port, with its data in ``folder``; ``settings`` by name."""
    folder.mkdir(exist_ok=True)
    chosen = {"data_dir": folder / "data", "database_url": database_url, "port": 0, "jwt_secret": SECRET} | settings
    given = {name: value for name, value in os.environ.items() if not name.startswith("TIDEPOOL_")}
    given |= {f"TIDEPOOL_{name.upper()}": str(value) for name, value in chosen.items()}
    log = folder / "server.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.benchmarks.target"),
            env=given | dict(environment or {}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
        )
    assert process.stdout is not None
    try:
        address = (await asyncio.wait_for(process.stdout.readline(), READY_S)).decode().strip()
        if not address:
            raise RuntimeError("the server did not come up: " + "".join(log.read_text()[-1500:]))
        yield Target(address, process.pid)
    finally:
        await ended(process)


async def ended(process: asyncio.subprocess.Process) -> None:
    """End a process that we started, and wait for it."""
    if process.returncode is None:
        process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def running(
    command: Sequence[str],
    environment: Mapping[str, str],
    cwd: Path | None = None,
    *,
    port: int,
    log: Path,
    start_s: float,
) -> AsyncIterator[int]:
    """Run another's server, which is ready when it listens on ``port``; end it with all that it has started."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=os.environ | dict(environment),
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    started = {psutil.Process(process.pid)}
    try:
        async with asyncio.timeout(start_s):
            while not await _listens(port):
                if process.returncode is not None:
                    raise RuntimeError(f"{Path(command[-1]).name} did not start: {log.read_text()[-500:]}")
                await asyncio.sleep(0.1)
                started |= _offspring(process.pid)
        yield process.pid
    finally:
        started |= _offspring(process.pid)  # they are nobody's once it has ended
        await ended(process)
        for left in started:
            with suppress(psutil.NoSuchProcess):
                left.kill()


async def output_of(command: Sequence[str], environment: Mapping[str, str], cwd: Path | None = None) -> str:
    """Run a program to its end, and give what it says; raises `RuntimeError` where it fails."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=os.environ | dict(environment),
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        await ended(process)
        raise
    if process.returncode != 0:
        raise RuntimeError(f"{Path(command[0]).name} failed: {said.decode(errors='replace')[-500:]}")
    return said.decode()


def tree_cpu_s(pid: int) -> float:
    """Say how much processor time a process and all that it started have used so far."""
    total = 0.0
    process = psutil.Process(pid)
    for each in (process, *process.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            used = each.cpu_times()
            total += used.user + used.system
    return total


def free_ports(count: int) -> list[int]:
    """Find ports that nobody listens on."""
    with ExitStack() as stack:
        return [stack.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(count)]


def _offspring(pid: int) -> set[psutil.Process]:
    try:
        return set(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return set()


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
