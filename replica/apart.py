"""A read of one replica apart from all others: for what takes seconds and must see one state from beginning to end.

It has a connection and a thread of its own: neither the event loop nor the lane waits for it, and the file may be
written, set aside, replaced or closed meanwhile, for what is open stays what it was. What is read is believed only if
the file is as it was left, before and after. While it lasts the file's write-ahead log cannot begin anew, so whoever
reads apart reads at the disk's pace into files of their own, and never at a client's.
"""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeVar

import apsw

from replica import library, trouble
from replica.errors import Doubt
from replica.location import Location
from replica.results import Reading
from replica.state import State
from replica.writer import set_up

SOURCE = "replica"
"""The name that the replica has for SQL here; a table's name alone finds it too, where the own database has none."""

STEPS = 1_000  # of SQLite's virtual machine: after each so many it is asked whether to go on

_OWN = "own.db"
_PRAGMAS = (
    # Of the own database, which nobody needs after a crash.
    "main.page_size=8192",
    "main.journal_mode=OFF",
    "main.synchronous=OFF",
    "main.cache_size=-16384",
    f"{SOURCE}.cache_size=-2048",
)


class SupportsClose(Protocol):
    """What is to be closed."""

    def close(self) -> object:
        """Close it."""
        ...


class Attested(Protocol):
    """A replica's file of which it is known how it was left."""

    @property
    def location(self) -> Location:
        """Where it lies."""
        ...

    def attest(self) -> None:
        """Raise `Doubt` if the file is not as it was left. From any thread."""
        ...


T = TypeVar("T", bound=SupportsClose)

Work = Callable[[apsw.Connection, State, Path], T]
"""Called with a connection, the state that it sees, and a folder for files, which is removed at the end.

The connection is in a transaction. Its main database is an empty one in that folder (``PRAGMA database_list`` tells
where), to be filled or not; the replica is attached as `SOURCE`, to be read.
"""


def connect(location: Location, folder: Path) -> apsw.Connection:
    """Give a connection as `Work` wants it, outside a transaction."""
    connection = library.connect(Location(own_database(folder)).uri("rwc"))
    try:
        connection.execute(f"ATTACH ? AS {SOURCE}", [location.uri("ro")])
        set_up(connection, _PRAGMAS)
    except BaseException:
        connection.close()
        raise
    return connection


def own_database(folder: Path) -> Path:
    """Give the path of the connection's main database."""
    return folder / _OWN


class Apart:
    """One such read. ``folder`` is made for it and removed after it; after ``timeout_s`` it is stopped."""

    def __init__(self, replica: Attested, folder: Path, timeout_s: float) -> None:
        self._replica = replica
        self._folder = folder
        self._timeout_s = timeout_s
        self._stopped = False

    async def read(self, work: Work[T]) -> Reading[T]:
        """Run ``work``, and give its result with the cursor of what it saw. When the caller is cancelled it is stopped.

        What ``work`` gives is closed where it is not wanted any more. Raises what ``work`` raises, `Doubt`,
        `ReadTimeout`, and `ReplicaUnavailable` where the file cannot be read or the disk has no room.
        """
        ended: Future[Reading[T]] = Future()
        threading.Thread(target=self._end, args=(ended, work), name="apart", daemon=True).start()
        waiting = asyncio.wrap_future(ended)
        try:
            return await asyncio.shield(waiting)
        except asyncio.CancelledError:
            self._stopped = True
            waiting.add_done_callback(_discard)
            await asyncio.wait([waiting])  # for moments: its files are to be gone when this has ended
            raise

    # ------------------------------------------------------------- in the thread

    def _end(self, ended: Future[Reading[T]], work: Work[T]) -> None:
        try:
            ended.set_result(self._read(work))
        except BaseException as error:  # noqa: BLE001 - is the caller's
            ended.set_exception(error)

    def _read(self, work: Work[T]) -> Reading[T]:
        try:
            self._folder.mkdir(mode=0o700, parents=True)
            self._replica.attest()  # before it is opened, for what is in the file's place may be anything
            with closing(connect(self._replica.location, self._folder)) as connection:
                return self._within(connection, work)
        except (apsw.Error, OSError) as error:
            raise trouble.of_reading_apart(error) from error
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _within(self, connection: apsw.Connection, work: Work[T]) -> Reading[T]:
        deadline = time.monotonic() + self._timeout_s
        connection.set_progress_handler(lambda: self._stopped or time.monotonic() > deadline, STEPS)
        connection.execute("BEGIN")
        state = State.read(connection)
        self._replica.attest()
        value = work(connection, state, self._folder)
        try:
            self._replica.attest()
        except Doubt:
            value.close()
            raise
        return Reading(state.cursor, value)


def _discard(ended: asyncio.Future[Reading[Any]]) -> None:
    if ended.exception() is None:
        ended.result().value.close()
