"""Reading lanes: a few threads that do the reading for all users.

A thread per open replica (what one aiosqlite connection each would be) costs a hop of its own for every read, and a
thousand threads for a thousand users. Here, what arrives while a lane is busy is done together in its next turn, and
reads of one user share one transaction: measured over 100 users at 16 clients, twice the pages a second.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from replica import trouble

T = TypeVar("T")

_STEPS = 2_000  # SQLite's virtual machine asks whether to go on after so many steps: some 50 µs

Work = Callable[[sqlite3.Connection], Any]


class Source:
    """What a lane reads from: it opens the connection, and says when what it reads is in doubt."""

    connection: sqlite3.Connection | None = None

    def connect(self) -> sqlite3.Connection:
        """Open the file for reading. Runs in the lane's thread."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise `Doubt` if the file is not as it was left. Runs in the lane's thread before each turn."""


@dataclass(slots=True)
class _Job:
    source: Source
    work: Work | None  # None closes the source's connection
    answer: asyncio.Future[Any]


class Lane:
    """One reading thread. To be used from the event loop that it was started on."""

    def __init__(self, name: str, read_timeout_ms: int) -> None:
        self._timeout_s = read_timeout_ms / 1000
        self._loop = asyncio.get_running_loop()
        self._waiting: list[_Job] = []
        self._busy = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._turns: queue.SimpleQueue[list[_Job] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def read(self, source: Source, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Run ``work`` within one read transaction on the source. What it raises is the future's exception.

        SQLite's own signs of a broken file become `Doubt`; a read that takes too long becomes `ReadTimeout`.
        """
        return self._enqueue(source, work)

    def close(self, source: Source) -> asyncio.Future[None]:
        """Close the source's connection, after every read of it that was asked for before."""
        return self._enqueue(source, None)

    async def stop(self) -> None:
        """End the thread when what it was asked for is done."""
        await self._idle.wait()
        self._turns.put(None)
        await asyncio.to_thread(self._thread.join)

    def _enqueue(self, source: Source, work: Work | None) -> asyncio.Future[Any]:
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append(_Job(source, work, answer))
        self._idle.clear()
        if len(self._waiting) == 1 and not self._busy:
            self._loop.call_soon(self._next_turn)  # not now: what else arrives in this pass of the loop comes along
        return answer

    def _next_turn(self) -> None:
        if self._waiting and not self._busy:
            self._busy = True
            jobs, self._waiting = self._waiting, []
            self._turns.put(jobs)

    def _deliver(self, results: list[tuple[_Job, Any, BaseException | None]]) -> None:
        self._busy = False
        for job, value, error in results:
            if not job.answer.done():  # it may have been cancelled meanwhile
                if error is None:
                    job.answer.set_result(value)
                else:
                    job.answer.set_exception(error)
        self._next_turn()
        if not self._busy:
            self._idle.set()

    # ------------------------------------------------------------- in the lane's thread

    def _serve(self) -> None:
        while (jobs := self._turns.get()) is not None:
            results: list[tuple[_Job, Any, BaseException | None]] = []
            by_source: dict[int, list[_Job]] = {}
            for job in jobs:
                by_source.setdefault(id(job.source), []).append(job)
            for group in by_source.values():
                self._serve_source(group, results)
            self._loop.call_soon_threadsafe(self._deliver, results)

    def _serve_source(self, jobs: list[_Job], results: list[tuple[_Job, Any, BaseException | None]]) -> None:
        source = jobs[0].source
        reads = [job for job in jobs if job.work is not None]
        if reads:
            try:
                source.check()
                if source.connection is None:
                    source.connection = source.connect()
                source.connection.execute("BEGIN")
                try:
                    results.extend(self._run(source.connection, job) for job in reads)
                finally:
                    source.connection.execute("ROLLBACK")
            except Exception as error:  # noqa: BLE001 - whatever it was, it is told to each of them
                answered = {id(job) for job, _, _ in results}
                meaning = trouble.of_reading(error)
                results.extend((job, None, meaning) for job in reads if id(job) not in answered)
        for job in jobs:
            if job.work is None:
                if source.connection is not None:
                    source.connection.close()
                    source.connection = None
                results.append((job, None, None))

    def _run(self, connection: sqlite3.Connection, job: _Job) -> tuple[_Job, Any, BaseException | None]:
        assert job.work is not None
        deadline = time.monotonic() + self._timeout_s
        connection.set_progress_handler(lambda: time.monotonic() > deadline, _STEPS)
        try:
            return job, job.work(connection), None
        except BaseException as error:  # noqa: BLE001 - is told to the caller by its future; the lane goes on
            return job, None, trouble.of_reading(error)
