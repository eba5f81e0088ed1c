"""``python -m`` in a process that need not import the program first: forked from one that did so once.

To import the server takes three quarters of the processor time of starting it, and the suite starts some seventy. All
else is as it is for who types the command: its settings come from its environment, signals end it, its output is piped.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.reduction import DupFd
from typing import Any

_OUT, _ERR = 1, 2

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["gateway.cli.main", "gateway.server", "gateway.importing.saving"])


class ForkedProcess:
    """As much of `asyncio.subprocess.Process` as the tests use."""

    def __init__(self, process: Any, stdout: asyncio.StreamReader | None, stderr: asyncio.StreamReader) -> None:
        self.pid: int = process.pid
        self.returncode: int | None = None
        self.stdout = stdout
        self.stderr = stderr
        self._process = process
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(process.sentinel, self._end)

    def send_signal(self, order: signal.Signals) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and this loop is about to be told
                os.kill(self.pid, order)

    async def wait(self) -> int:
        """Wait until it ends, and give its exit code: -9 where it was killed."""
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """Read all that it prints and says, and wait until it ends."""
        assert self.stdout is not None
        out, err = await asyncio.gather(self.stdout.read(), self.stderr.read())
        await self.wait()
        return out, err

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._process.sentinel)
        self._process.join()
        self.returncode = self._process.exitcode
        self._process.close()
        self._ended.set()


async def forked(
    module: str, arguments: Sequence[str], environment: Mapping[str, str], *, stdout: bool = False
) -> ForkedProcess:
    """Run a module with these arguments, in that environment and no other, without a standard input.

    What it says on the standard error can be read; with ``stdout`` what it prints too, which else goes where ours does.
    """
    pipes = {number: os.pipe() for number in (_OUT, _ERR) if stdout or number == _ERR}
    try:
        ends = {number: DupFd(end) for number, (_, end) in pipes.items()}
        process = _context.Process(target=_run, args=(module, [*arguments], {**environment}, ends))
        await asyncio.to_thread(process.start)
    finally:
        for _, end in pipes.values():
            os.close(end)
    readers = {number: await _reader(begin) for number, (begin, _) in pipes.items()}
    return ForkedProcess(process, readers.get(_OUT), readers[_ERR])


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", 0)
    )
    return reader


def _run(module: str, arguments: list[str], environment: dict[str, str], ends: dict[int, Any]) -> None:
    """In the process: what Python does at ``-m``."""
    for number, end in ends.items():
        descriptor = end.detach()
        os.dup2(descriptor, number)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
