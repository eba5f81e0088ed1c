"""One open replica: a file, the connection that reads it, and the one that writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import apsw

from primary.feed import Pull
from replica import seal, trouble
from replica.apply import apply
from replica.ending import to_its_end
from replica.errors import Doubt
from replica.faults import Passing
from replica.lanes import Lane, NotAtOnce, Source
from replica.library import connect, execute_all
from replica.location import Location
from replica.schema import Schema
from replica.state import State
from replica.writer import SMALL_START, WRITE_PRAGMAS, Writer, set_up, sorting_on_disk

T = TypeVar("T")

_READ_PRAGMAS = (*SMALL_START, "query_only=ON", "cache_size=-1024", "temp_store=MEMORY")
_LONG_LOG_BYTES = 4 << 20  # of a log that is to be taken into the file: some hundred small changes, or a large one
_BUSY_S = 0.25  # nobody locks readers out of a file for longer than it takes to open or close it; the loop may wait


class Replica(Source):
    """An open replica. At most one task at a time may sync, finish or close it; any number may read.

    ``state`` is the file's as of the last write that was ours, ``unfinished`` what is left of its last stage then.
    """

    def __init__(self, location: Location, schema: Schema, lane: Lane, passing: Passing) -> None:
        self.location = location
        self.state: State
        self.unfinished: list[str]
        self._schema = schema
        self._lane = lane
        self._passing = passing
        self._writer: Writer | None = None
        self._seen = seal.look(location)
        self._row = asyncio.Lock()  # one read at a time is in the lane: a user who asks much lets others in between
        self._reads = 0  # there, and in that row
        self._writing = 0  # odd while the files change by our own hand
        self._warm = False  # whether the file was read since it was opened: before, its pages may still be on the disk
        self._turn: tuple[int, State | None] = (0, None)  # the count and, between two writes, the state: as `check` saw

    @classmethod
    async def open(cls, location: Location, schema: Schema, user: str, lane: Lane, passing: Passing) -> Replica:
        """Open a file that is there. Raises `Doubt` unless it is the one that was written for this user."""
        replica = cls(location, schema, lane, passing)
        try:
            replica.state, replica.unfinished = await lane.read(replica, replica._introduce)
            if replica.state.user != user:
                raise Doubt("the file is another user's")
            if replica.state.schema_hash != schema.hash:
                raise Doubt("the file has another schema")
        except BaseException:
            await asyncio.shield(lane.close(replica))
            raise
        return replica

    async def read(self, work: Callable[[apsw.Connection], T], *, long: bool = False) -> tuple[State, T]:
        """Run ``work`` in a read transaction; give it with the state that it saw. Raises as `Lane.read` does.

        It is run at once, on the event loop, where it can be, unless it is said to be ``long``.
        """

        def read(connection: apsw.Connection) -> tuple[State, T]:
            value = work(connection)
            writing, state = self._turn
            # Nothing was written since before the transaction began, so it sees the state of then: the file need
            # not be asked, which would cost a read of its own.
            if state is None or writing != self._writing:
                state = State.read(connection)
            return state, value

        if self._warm and not long:
            with suppress(NotAtOnce):
                return self._lane.read_at_once(self, read)
        self._reads += 1
        try:
            async with self._row:
                found = await self._lane.read(self, read)
        finally:
            self._reads -= 1
        self._warm = True
        return found

    async def sync(self, pull: Pull) -> int:
        """Apply a pull of changes since this replica's cursor. Gives how many there were."""
        writer = await self._begin_writing()
        try:
            applied = await apply(writer, self._schema, self.state, pull, self._passing, self._committed)
        except BaseException as error:
            await self._break_off(error)
            raise
        self._writing += 1  # and is sealed already
        self._passing("apply.sealed")
        return applied

    def _committed(self, state: State, unfinished: list[str] | None) -> None:
        self.state = state
        if unfinished is not None:
            self.unfinished = unfinished
        self._passing("apply.committed")
        self._seal()

    async def finish(self) -> None:
        """Make what is left of the last stage: the indexes that carry rendered rows, and full-text search."""
        await self._write(self._finish, _cut_log)
        self._passing("finish.done")

    def _finish(self, connection: apsw.Connection) -> None:
        with sorting_on_disk(connection):
            _in_transaction(connection, self.unfinished)
        self.unfinished = []  # also where the log then cannot be cut, as on a full disk

    @property
    def log_is_long(self) -> bool:
        """Whether the write-ahead log is to be taken into the file (`checkpoint`)."""
        log = self._seen[1]
        return len(log) > 1 and log[1] > _LONG_LOG_BYTES

    async def checkpoint(self) -> None:
        """Take the write-ahead log into the file. The disk is waited for, twice; readers go on."""
        await self._write(lambda connection: connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall())

    @property
    def is_read(self) -> bool:
        """Whether a read of it is in the lane, or waits for its turn there; `close` waits for all of them."""
        return self._reads > 0

    @property
    def writes(self) -> bool:
        """Whether there is a connection that writes."""
        return self._writer is not None

    async def rest(self) -> None:
        """Close the connection that writes, and its thread; the next write opens another."""
        if self._writer is not None:
            if seal.look(self.location) != self._seen:
                raise Doubt("the file was changed by someone else")
            self._writing += 1
            try:
                await self._writer.close()
                self._writer = None
            finally:
                await self._end_writing()

    async def close(self) -> None:
        """Close both connections, the writing one last: it takes the log into the file."""
        async with self._row:
            await self._lane.close(self)
        untouched = seal.look(self.location) == self._seen
        if self._writer is None and untouched and self._seen[1]:
            self._writer = await self._open_writer()  # for a log that a process has left which was killed
        if self._writer is not None:
            self._writing += 1
            await self._writer.close()
            self._writer = None
            if untouched:  # else the old seal stays, and tells it to who opens the file next
                await self._end_writing()

    # ------------------------------------------------------------- where it is read

    def connect(self) -> apsw.Connection:
        """See `Source.connect`."""
        # Before SQLite touches it: what is in the file's place may be anything, even what blocks who opens it.
        if not seal.holds(self.location, self._seen):
            raise Doubt("the file is not sealed as it is: it was changed, or the last write did not come to its end")
        connection = connect(self.location.uri("ro"), busy_s=_BUSY_S)
        try:
            set_up(connection, _READ_PRAGMAS)
        except BaseException:
            connection.close()
            raise
        return connection

    def check(self) -> None:
        """See `Source.check`."""
        writing = self._writing
        self._turn = (writing, getattr(self, "state", None) if writing % 2 == 0 else None)
        self.attest()

    def attest(self) -> None:
        """Raise `Doubt` if the file is not as it was left. From any thread."""
        writing = self._writing
        if writing % 2 == 0 and seal.look(self.location) != self._seen and writing == self._writing:
            raise Doubt("the file was changed by someone else")

    def _introduce(self, connection: apsw.Connection) -> tuple[State, list[str]]:
        try:
            return State.read(connection), self._schema.unfinished(connection)
        except apsw.Error as error:
            if trouble.of_reading(error) is not error:
                raise  # it says more
            raise Doubt(f"the file is not a replica: {error}") from error

    # ------------------------------------------------------------- writing

    async def _write(self, *works: Callable[[apsw.Connection], object]) -> None:
        writer = await self._begin_writing()
        try:
            for work in works:
                await writer.run(work)
        except BaseException as error:
            try:
                await writer.run(_nothing)  # what was broken off is over then, and the files are as they will be sealed
            finally:
                await self._break_off(error)
            raise
        await self._end_writing()

    async def _begin_writing(self) -> Writer:
        if seal.look(self.location) != self._seen:
            raise Doubt("the file was changed by someone else")
        self._writing += 1
        if self._writer is None:
            try:
                self._writer = await self._open_writer()
            except BaseException:
                await self._end_writing()
                raise
        return self._writer

    async def _open_writer(self) -> Writer:
        return await Writer.open(self.location.uri("rw"), *WRITE_PRAGMAS)

    async def _break_off(self, error: BaseException) -> None:
        """End a write that failed, and after an error of SQLite's the connections that it may be of.

        What SQLite cannot open for writing (a disk that is mounted read-only, no file descriptors) it opens for reading
        and says nothing of it; so it stays when the trouble is over. Of the log's index all connections share one.
        """
        writer = self._writer
        try:
            if writer is not None and isinstance(error, apsw.Error):
                self._writer = None
                await writer.close()
        finally:
            await self._end_writing()
        if isinstance(error, apsw.ReadOnlyError):
            await self._lane.close(self)  # the next read opens another

    async def _end_writing(self) -> None:
        try:
            await to_its_end(asyncio.to_thread(self._seal))
        finally:
            self._writing += 1

    def _seal(self) -> None:
        now = seal.look(self.location)
        if not seal.same_files(self._seen, now):
            raise Doubt("the file was exchanged while it was written")
        self._seen = now
        seal.write(self.location, now)


def _cut_log(connection: apsw.Connection) -> None:
    """Cut the log to nothing, if nobody reads: who reads apart does so for seconds, and syncs wait for this."""
    waits_ms = connection.execute("PRAGMA busy_timeout").get
    try:
        set_up(connection, ("busy_timeout=0", "wal_checkpoint(TRUNCATE)"))
    finally:
        set_up(connection, (f"busy_timeout={waits_ms}",))


def _nothing(_: apsw.Connection) -> None:
    pass


def _in_transaction(connection: apsw.Connection, statements: list[str]) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        execute_all(connection, statements)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite ends it by itself when the disk is full
            connection.execute("ROLLBACK")
        raise
