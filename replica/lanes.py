"""How replicas are read: what is short at once, on the event loop; all else in a reading thread, the lane.

A page takes SQLite some ten microseconds. To hand it to a thread and its answer back takes several times as long, and
the two then fight for the interpreter. So a read is tried where it is asked for, within a budget of SQLite's steps, and
of bytes, that is too small for anyone to notice. What exceeds it is stopped and done again in the lane, with all the
time that it may have; what is known to be long goes there at once.

A source has one connection, and is used in one place at a time: on the loop only while nothing of it is in the lane.
Reads of one source in one pass of the loop share a check and a transaction. Whoever is told of a commit is told in a
later pass than one in which a transaction began before it: so who reads after a sync sees what the sync brought.
"""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any, TypeVar

import apsw

from replica import trouble
from replica.errors import ReadTimeout

T = TypeVar("T")

STEPS = 1_000  # of SQLite's virtual machine: after each so many it asks whether to go on
STEPS_AT_ONCE_MAX = 16_000  # 0.3 ms where a step does little, as when each row of a table is looked at
AT_ONCE_MAX_BYTES = 2 << 20  # of one value, as a page is: to put more together takes longer than so many steps may
AT_ONCE_MAX = 100  # reads in one pass of the event loop: who reads in a loop of their own must let others in

_LENGTH_MAX = 2**31 - 1  # SQLite takes its own, which is less

Work = Callable[[apsw.Connection], Any]


class NotAtOnce(Exception):
    """The read cannot be done at once, on the event loop: it has to go the lane's way."""


class Source:
    """What is read: it opens the connection, and says when what it reads is in doubt."""

    connection: apsw.Connection | None = None
    in_lane = 0  # jobs that the lane has of this source; changed on the loop alone

    def connect(self) -> apsw.Connection:
        """Open the file for reading. Runs in the lane's thread."""
        raise NotImplementedError

    def check(self) -> None:
        """Raise `Doubt` if the file is not as it was left. Runs before each transaction, where that runs."""


@dataclass(slots=True)
class _Job:
    source: Source
    work: Work | None  # None closes the source's connection
    answer: asyncio.Future[Any]


class Lane:
    """One reading thread, and the way around it. To be used from the event loop that it was started on."""

    def __init__(self, name: str, read_timeout_ms: int) -> None:
        self._timeout_s = read_timeout_ms / 1000
        self._at_once_left = AT_ONCE_MAX
        self._begun: list[Source] = []  # with a transaction that ends with this pass of the loop
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=name, daemon=True)
        self._thread.start()

    def read_at_once(self, source: Source, work: Callable[[apsw.Connection], T]) -> T:
        """Run ``work`` now, within one read transaction, if it is short; raise `NotAtOnce` if not, as `read` does else.

        The budget counts steps: one that does much (a count of a whole table, a full-text search) passes for one.
        """
        connection = source.connection
        if connection is None or source.in_lane or not self._at_once_left:
            raise NotAtOnce
        if self._at_once_left == AT_ONCE_MAX:
            self._loop.call_soon(self._end_pass)
        self._at_once_left -= 1
        try:
            if not connection.in_transaction:
                source.check()
                connection.execute("BEGIN")
                self._begun.append(source)
            # Says to go on a few times, and then to stop. Where it is not asked it costs nothing.
            too_long = chain(repeat(False, STEPS_AT_ONCE_MAX // STEPS), repeat(True)).__next__
            connection.set_progress_handler(too_long, STEPS)
            connection.limit(apsw.SQLITE_LIMIT_LENGTH, AT_ONCE_MAX_BYTES)
            return work(connection)
        except BaseException as error:
            meaning = trouble.of_reading(error)
            if isinstance(meaning, ReadTimeout | apsw.TooBigError):
                raise NotAtOnce from None
            if meaning is error:
                raise
            raise meaning from error

    def read(self, source: Source, work: Callable[[apsw.Connection], T]) -> asyncio.Future[T]:
        """Run ``work`` in the lane, within one read transaction. What it raises is the future's exception.

        SQLite's own signs of a broken file become `Doubt`; a read that takes too long becomes `ReadTimeout`. When the
        future is cancelled the read is stopped, or not begun.
        """
        return self._enqueue(source, work)

    def close(self, source: Source) -> asyncio.Future[None]:
        """Close the source's connection, after every read of it that was asked for before."""
        return self._enqueue(source, None)

    async def stop(self) -> None:
        """End the thread when what it was asked for is done."""
        self._jobs.put(None)
        await asyncio.to_thread(self._thread.join)

    def _end_pass(self) -> None:
        self._at_once_left = AT_ONCE_MAX
        begun, self._begun = self._begun, []
        for source in begun:
            self._end_turn(source)

    def _end_turn(self, source: Source) -> None:
        if source.connection is not None and not source.in_lane:
            _end(source)

    def _enqueue(self, source: Source, work: Work | None) -> asyncio.Future[Any]:
        self._end_turn(source)
        answer: asyncio.Future[Any] = self._loop.create_future()
        source.in_lane += 1
        self._jobs.put(_Job(source, work, answer))
        return answer

    def _deliver(self, job: _Job, value: Any, error: BaseException | None) -> None:
        job.source.in_lane -= 1
        if not job.answer.done():  # it may have been cancelled meanwhile
            if error is None:
                job.answer.set_result(value)
            else:
                job.answer.set_exception(error)

    # ------------------------------------------------------------- in the lane's thread

    def _serve(self) -> None:
        while (job := self._jobs.get()) is not None:
            value, error = None, None
            try:
                value = self._do(job)
            except BaseException as caught:  # noqa: BLE001 - is told to the caller by its future; the lane goes on
                error = trouble.of_reading(caught)
            self._loop.call_soon_threadsafe(self._deliver, job, value, error)
            del job, value, error  # else they would be kept until the next one comes

    def _do(self, job: _Job) -> Any:
        source, work, given_up = job.source, job.work, job.answer.cancelled
        if work is None:
            if source.connection is not None:
                source.connection.close()
                source.connection = None
            return None
        if given_up():
            return None
        source.check()
        if source.connection is None:
            source.connection = source.connect()
        deadline = time.monotonic() + self._timeout_s
        source.connection.set_progress_handler(lambda: given_up() or time.monotonic() > deadline, STEPS)
        source.connection.limit(apsw.SQLITE_LIMIT_LENGTH, _LENGTH_MAX)
        source.connection.execute("BEGIN")
        try:
            return work(source.connection)
        finally:
            _end(source)


def _end(source: Source) -> None:
    """End the transaction of a source's connection; where that cannot be, end the connection.

    A cursor that was kept with rows to come (an error's traceback keeps one, too) holds what it saw: whoever read next
    would see that as well, however much is written meanwhile.
    """
    connection = source.connection
    assert connection is not None
    with suppress(apsw.Error):
        if connection.in_transaction:  # else whoever read has ended it
            connection.set_progress_handler(None, 0)  # the end itself is not to be stopped
            connection.execute("ROLLBACK")
        if connection.txn_state("main") == apsw.SQLITE_TXN_NONE:
            return
    source.connection = None
    connection.close()
