"""Starting the server under load, and looking at its process."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
async def serving(folder: Path, database_url: str, **settings: object) -> AsyncIterator[Target]:
    """Run the server on a free port, with its data in ``folder``; ``settings`` by name."""
    folder.mkdir(exist_ok=True)
    chosen = {"data_dir": folder / "data", "database_url": database_url, "port": 0, "jwt_secret": SECRET} | settings
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TIDEPOOL_")}
    environment |= {f"TIDEPOOL_{name.upper()}": str(value) for name, value in chosen.items()}
    log = folder / "server.log"
    with log.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.benchmarks.target"),
            env=environment,
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
