"""The store: every user's replica on this node, opened when it is read, synced when it is asked for.

For each user one thing happens at a time: opening, syncing, rebuilding, closing. Reads go on beside them all.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from itertools import chain, count
from pathlib import Path
from typing import TypeVar

import apsw

from primary.cursor import Cursor
from primary.declaration import Catalog
from primary.feed import Feed
from replica import seal
from replica.advances import Advances
from replica.apart import Apart, SupportsClose, Work
from replica.datadir import Ownership
from replica.errors import DataDirectoryUnusable, Doubt, ReplicaUnavailable, Unfinished
from replica.faults import Passing, undisturbed
from replica.lanes import Lane
from replica.library import configure
from replica.location import DataDirectory, remove
from replica.opened import OpenReplicas
from replica.replica import Replica
from replica.results import Reading, ReplicaInfo, StoreCounts, StoreLimits, SyncResult
from replica.schema import Schema
from replica.slots import Slot
from replica.state import State
from replica.syncing import Syncing, there
from replica.tasks import Tasks

T = TypeVar("T")
Closing = TypeVar("Closing", bound=SupportsClose)


class Store:
    """The replicas of one data directory, which no other process may use meanwhile."""

    def __init__(
        self,
        data_dir: Path,
        catalog: Catalog,
        feed: Feed,
        limits: StoreLimits | None = None,
        passing: Passing = undisturbed,
    ) -> None:
        self.schema = Schema(catalog)
        self.advances = Advances()
        self._directory = DataDirectory(data_dir)
        self._ownership = Ownership(self._directory.lock)
        self._limits = limits or StoreLimits()
        self._lanes: list[Lane] = []
        self._slots: weakref.WeakValueDictionary[str, Slot] = weakref.WeakValueDictionary()
        self._tasks = Tasks()
        self._open = OpenReplicas(self.schema, self._limits, passing, self._tasks.start)
        self._syncing = Syncing(self.schema, feed, self._directory, self._limits, self._open, self.advances, passing)
        self._apart = count(1)

    # ------------------------------------------------------------- life

    async def open(self) -> None:
        """Take the data directory. Raises `DataDirectoryLocked`, `DataDirectoryUnusable`, `UnsupportedDeclaration`."""
        configure(self._directory.apart)
        try:
            self._ownership.take()
            await asyncio.to_thread(self._prepare)
        except BaseException as error:
            self._ownership.release()
            if isinstance(error, OSError):
                why = ": ".join(str(part) for part in (error.strerror, error.filename) if part)
                told = f"the data directory {self._directory.root} cannot be used: {why}"
                raise DataDirectoryUnusable(told) from error
            raise
        self._tasks.open()
        self._lanes = [Lane(f"reads-{n}", self._limits.read_timeout_ms) for n in range(self._limits.read_lanes)]

    async def close(self) -> None:
        """End what is under way, close every file in order, and give the data directory up.

        What is quick comes to its end; a long first copy is given up, as if the process had been killed in it. What is
        asked for from now on is refused (`ReplicaUnavailable`).
        """
        await self._tasks.close()
        await self._open.close_all()
        for lane in self._lanes:
            await lane.stop()
        self._ownership.release()

    def counts(self) -> StoreCounts:
        """Give the store's counters."""
        return StoreCounts(self._syncing.syncs, self._syncing.rebuilds, self._syncing.doubts, len(self._open))

    # ------------------------------------------------------------- reading

    async def read(self, user: str, work: Callable[[apsw.Connection], T], *, long: bool = False) -> Reading[T]:
        """Run ``work`` in a read transaction on the user's replica, building it first if there is none.

        ``work`` runs on the event loop and, if it turns out to take more than a moment, a second time in another
        thread; there at once where it is said to be ``long``: a search, a count of whole tables. What it raises is
        raised. A file in doubt is rebuilt and read then, and an index that is still being made is waited for, as long
        as a read may take. Raises `InvalidUser`, `ReadTimeout`, `Unfinished`, and `PrimaryUnavailable` or
        `ReplicaUnavailable` where the replica must be built and cannot be.
        """
        try:
            return await self._read(user, work, long)
        except Unfinished:
            self._tasks.refuse_if_closed()
            # Not cancelled when it takes longer, or when the caller leaves.
            await asyncio.wait([self._open.finishing(self._slot(user))], timeout=self._limits.read_timeout_ms / 1000)
            return await self._read(user, work, long)

    async def _read(self, user: str, work: Callable[[apsw.Connection], T], long: bool) -> Reading[T]:
        replica = await self._opened(user)
        try:
            state, value = await replica.read(work, long=long)
        except Doubt as doubt:
            await self._tasks.run(self._syncing.renew(self._slot(user), replica, doubt))
            try:
                state, value = await (await self._opened(user)).read(work, long=long)
            except Doubt as again:
                raise ReplicaUnavailable(f"the replica was rebuilt and is in doubt again: {again.reason}") from again
        return Reading(state.cursor, value)

    async def read_apart(self, user: str, work: Work[Closing]) -> Reading[Closing]:
        """Run ``work`` on one state of the user's replica, apart from every other read (see `replica.apart`).

        For what takes seconds. Cancelling the caller stops it. A file that is found in doubt, also when it was read, is
        rebuilt and read once more. Raises as `read` does, and `ReplicaUnavailable` where the disk has no room.
        """
        self._tasks.refuse_if_closed()
        slot = self._slot(user)
        slot.wanted += 1
        try:
            replica = await self._opened(user)
            try:
                return await self._read_apart(replica, work)
            except Doubt as doubt:
                await self._tasks.run(self._syncing.renew(slot, replica, doubt))
            try:
                return await self._read_apart(await self._opened(user), work)
            except Doubt as again:
                raise ReplicaUnavailable(f"the replica was rebuilt and is in doubt again: {again.reason}") from again
        finally:
            slot.wanted -= 1
            self._open.trim()

    async def _read_apart(self, replica: Replica, work: Work[Closing]) -> Reading[Closing]:
        folder = self._directory.apart / str(next(self._apart))
        task = self._tasks.start(Apart(replica, folder, self._limits.apart_timeout_s).read(work))
        try:
            return await task
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and not this.cancelling():  # it was stopped by `close`, and not by its caller
                self._tasks.refuse_if_closed()
            raise

    async def cursor(self, user: str) -> Cursor:
        """Give the cursor of the user's replica as it is, building it first if there is none."""
        return (await self._opened(user)).state.cursor

    async def describe(self, user: str) -> ReplicaInfo:
        """Give what there is to know of the user's replica."""
        tables = [table.name for table in self.schema.catalog]

        def look(connection: apsw.Connection) -> tuple[State, dict[str, int]]:
            counts = {name: connection.execute(f'SELECT count(*) FROM "{name}"').get for name in tables}
            return State.read(connection), counts

        state, rows = (await self.read(user, look, long=True)).value
        database, wal = await asyncio.to_thread(seal.look, self._slot(user).location)
        size = sum(found[1] for found in (database, wal) if len(found) > 1)
        return ReplicaInfo(state.cursor, state.synced_at, size, rows)

    # ------------------------------------------------------------- syncing

    async def sync(self, user: str, *, at_least: Cursor | None = None) -> SyncResult:
        """Bring the user's replica to where the primary is now, or build it.

        With ``at_least`` a replica that is there already, or gets there by a sync that is under way, is left as it is.
        Otherwise the result is of a look at the primary that began after this call. Cancelling the caller does not
        stop the sync.
        """
        slot = self._slot(user)
        if (result := there(slot, at_least)) is not None:
            return result
        return await self._tasks.run(self._syncing.sync(slot, slot.begun, at_least))

    async def rebuild(self, user: str) -> SyncResult:
        """Build the user's replica anew, whatever state it is in. What was there is served until then."""
        return await self._tasks.run(self._syncing.rebuild(self._slot(user)))

    # ------------------------------------------------------------- opening and closing

    async def _opened(self, user: str) -> Replica:
        """Give the user's open replica, opening or building it first."""
        if (replica := self._open.used(user)) is not None and not self._tasks.closed:
            return replica
        self._tasks.refuse_if_closed()
        slot = self._slot(user)
        slot.wanted += 1
        try:
            while slot.replica is None:  # again where it was found in doubt meanwhile
                await self._tasks.run(self._syncing.open(slot))
        finally:
            slot.wanted -= 1
            self._open.trim()
        return slot.replica

    # ------------------------------------------------------------- small things

    def _slot(self, user: str) -> Slot:
        slot = self._slots.get(user)
        if slot is None:
            location = self._directory.of(user)
            lane = self._lanes[int(location.database.stem[:8], 16) % len(self._lanes)]
            slot = self._slots[user] = Slot(user, location, lane)
        return slot

    def _prepare(self) -> None:
        self.schema.check()
        directory = self._directory
        directory.check()
        for folder in (directory.replicas, directory.building, directory.apart, directory.quarantine):
            folder.mkdir(parents=True, exist_ok=True)
        for left_over in chain(directory.building.iterdir(), directory.apart.iterdir()):  # of what was killed
            remove(left_over)
