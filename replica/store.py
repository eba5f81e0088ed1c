"""The store: every user's replica on this node, opened when it is read, synced when it is asked for.

For each user one thing happens at a time: opening, syncing, rebuilding, closing. Reads go on beside them all.
Callers who ask for a sync while one runs share the next, for the running one may have looked too early for them.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

import apsw
import structlog

from primary.cursor import Cursor
from primary.declaration import Catalog
from primary.errors import PrimaryUnavailable
from primary.feed import Feed, Kind, Pull, Reason
from replica import seal, trouble
from replica.advances import Advances
from replica.apart import Apart, SupportsClose, Work
from replica.build import build
from replica.datadir import Ownership
from replica.ending import cut_off, to_its_end
from replica.errors import DataDirectoryUnusable, Doubt, ReplicaUnavailable, Unfinished
from replica.faults import Passing, undisturbed
from replica.lanes import Lane
from replica.library import configure
from replica.location import DataDirectory, remove, remove_all
from replica.opened import OpenReplicas
from replica.publish import publish
from replica.quarantine import set_aside
from replica.replica import Replica
from replica.results import Reading, ReplicaInfo, StoreCounts, StoreLimits, SyncResult
from replica.schema import Schema
from replica.slots import Slot
from replica.state import State

T = TypeVar("T")
Closing = TypeVar("Closing", bound=SupportsClose)

_OTHER_HISTORY = (Reason.EPOCH, Reason.AHEAD, Reason.OLDER)  # what was told of the one before is of no use any more
CLOSE_GRACE_S = 1.0  # of the 5 s within which a server is to stop, Postgres included
CUT_AGAIN_S = 0.5  # for what was broken off then: time to roll back and to seal, even on a busy disk

_log = structlog.get_logger("replica.store")


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
        self._feed = feed
        self._limits = limits or StoreLimits()
        self._passing = passing
        self._lanes: list[Lane] = []
        self._slots: weakref.WeakValueDictionary[str, Slot] = weakref.WeakValueDictionary()
        self._open = OpenReplicas(self.schema, self._limits, passing, self._start)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._pulls = asyncio.Semaphore(self._limits.sync_concurrency)
        self._apart = count(1)
        self._syncs = self._rebuilds = self._doubts = 0
        self._closed = True

    # ------------------------------------------------------------- life

    async def open(self) -> None:
        """Take the data directory. Raises `DataDirectoryLocked` and `DataDirectoryUnusable`."""
        configure(self._directory.apart)
        try:
            self._ownership.take()
            await asyncio.to_thread(self._prepare)
        except BaseException as error:
            self._ownership.release()
            if isinstance(error, OSError):
                told = f"the data directory {self._directory.root} cannot be used: {error.strerror}: {error.filename}"
                raise DataDirectoryUnusable(told) from error
            raise
        self._closed = False
        self._lanes = [Lane(f"reads-{n}", self._limits.read_timeout_ms) for n in range(self._limits.read_lanes)]

    async def close(self) -> None:
        """End what is under way, close every file in order, and give the data directory up.

        What is quick comes to its end; a long first copy is given up, as if the process had been killed in it. What is
        asked for from now on is refused (`ReplicaUnavailable`).
        """
        self._closed = True
        grace = asyncio.get_running_loop().time() + CLOSE_GRACE_S
        while tasks := [*self._tasks]:
            _, late = await asyncio.wait(tasks, timeout=max(0, grace - asyncio.get_running_loop().time()))
            await cut_off(late, again_s=CUT_AGAIN_S)
        await self._open.close_all()
        for lane in self._lanes:
            await lane.stop()
        self._ownership.release()

    def counts(self) -> StoreCounts:
        """Give the store's counters."""
        return StoreCounts(self._syncs, self._rebuilds, self._doubts, len(self._open))

    # ------------------------------------------------------------- reading

    async def read(self, user: str, work: Callable[[apsw.Connection], T], *, long: bool = False) -> Reading[T]:
        """Run ``work`` in a read transaction on the user's replica, building it first if there is none.

        ``work`` runs on the event loop and, if it turns out to take more than a moment, a second time in another
        thread; there at once where it is said to be ``long``: a search, an analysis, SQL of somebody's own. What it
        raises is raised. A file in doubt is rebuilt and read then, and an index that is still being made is waited for,
        as long as a read may take. Raises `InvalidUser`, `ReadTimeout`, `Unfinished`, and `PrimaryUnavailable` or
        `ReplicaUnavailable` where the replica must be built and cannot be.
        """
        try:
            return await self._read(user, work, long)
        except Unfinished:
            self._refuse_if_closed()
            # Not cancelled when it takes longer, or when the caller leaves.
            await asyncio.wait([self._open.finishing(self._slot(user))], timeout=self._limits.read_timeout_ms / 1000)
            return await self._read(user, work, long)

    async def _read(self, user: str, work: Callable[[apsw.Connection], T], long: bool) -> Reading[T]:
        replica = await self._opened(user)
        try:
            state, value = await replica.read(work, long=long)
        except Doubt as doubt:
            await self._run(self._renew(self._slot(user), replica, doubt))
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
        self._refuse_if_closed()
        slot = self._slot(user)
        slot.wanted += 1
        try:
            replica = await self._opened(user)
            try:
                return await self._read_apart(replica, work)
            except Doubt as doubt:
                await self._run(self._renew(slot, replica, doubt))
            try:
                return await self._read_apart(await self._opened(user), work)
            except Doubt as again:
                raise ReplicaUnavailable(f"the replica was rebuilt and is in doubt again: {again.reason}") from again
        finally:
            slot.wanted -= 1
            self._open.trim()

    async def _read_apart(self, replica: Replica, work: Work[Closing]) -> Reading[Closing]:
        folder = self._directory.apart / str(next(self._apart))
        task = self._start(Apart(replica, folder, self._limits.apart_timeout_s).read(work))
        try:
            return await task
        except asyncio.CancelledError:
            this = asyncio.current_task()
            if this is not None and not this.cancelling():  # it was stopped by `close`, and not by its caller
                self._refuse_if_closed()
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
        if (there := _there(slot, at_least)) is not None:
            return there
        return await self._run(self._shared_sync(slot, slot.begun, at_least))

    async def rebuild(self, user: str) -> SyncResult:
        """Build the user's replica anew, whatever state it is in. What was there is served until then."""
        return await self._run(self._rebuild(self._slot(user)))

    async def _shared_sync(self, slot: Slot, ticket: int, at_least: Cursor | None) -> SyncResult:
        async with slot.lock:
            if slot.begun == ticket:  # none has begun since the caller asked
                if (there := _there(slot, at_least)) is not None:  # the one that was under way did it
                    return there
                if (done := await self._sync_ahead(slot, at_least)) is not None:
                    return done  # and to no one else: who asks for more than this is told of a look of their own
                slot.begun += 1
                try:
                    with _told():
                        slot.outcome = await self._sync(slot)
                except Exception as error:  # noqa: BLE001 - is shared, and raised below to each
                    slot.outcome = error
        if isinstance(slot.outcome, Exception):
            raise slot.outcome
        assert slot.outcome is not None
        return slot.outcome

    async def _sync_ahead(self, slot: Slot, at_least: Cursor | None) -> SyncResult | None:
        """Get there without a look at the primary, where that is possible."""
        if at_least is None or slot.replica is None:
            return None
        state = slot.replica.state
        pull = self._feed.ahead(slot.user, state.cursor, state.position, at_least)
        if pull is None:
            return None
        self._syncs += 1
        try:
            return await self._take_in(slot, pull)
        except (Doubt, OSError):
            return None  # the sync that follows meets it too, and knows what to do

    async def _sync(self, slot: Slot) -> SyncResult:
        """Sync within the slot's lock."""
        doubt = await self._ensure_open(slot)
        self._syncs += 1
        try:
            return await self._pull(slot, doubt)
        except Doubt as found:
            return await self._replace(slot, found)

    async def _rebuild(self, slot: Slot) -> SyncResult:
        async with slot.lock:
            with _told():
                return await self._pull(slot, None, anew=True)

    async def _pull(self, slot: Slot, doubt: Doubt | None, *, anew: bool = False) -> SyncResult:
        try:
            async with self._pulls:
                state = None if anew or slot.replica is None else slot.replica.state
                since, position = (state.cursor, state.position) if state is not None else (None, 0)
                async with self._feed.pull(slot.user, since, position) as pull:
                    return await self._take_in(slot, pull)
        except PrimaryUnavailable as error:
            if doubt is not None:
                raise ReplicaUnavailable(
                    f"the replica must be rebuilt ({doubt.reason}), for which the primary database is needed"
                ) from error
            raise
        except (apsw.Error, OSError) as error:
            raise trouble.of_building(error) from error

    async def _take_in(self, slot: Slot, pull: Pull) -> SyncResult:
        if pull.kind is Kind.UNCHANGED:
            return SyncResult(pull.cursor, 0, False)
        if pull.kind is Kind.CHANGES:
            assert slot.replica is not None
            try:
                rows = await slot.replica.sync(pull)
            except apsw.Error as error:
                raise trouble.of_applying(error) from error
            finally:
                self._open.wrote(slot)
                if slot.replica.state.cursor == pull.cursor:  # also where it could not be sealed after its commit
                    self._tell(slot, pull)
        else:
            rows = await self._build(slot, pull)
        return SyncResult(pull.cursor, rows, pull.kind is Kind.SNAPSHOT)

    def _tell(self, slot: Slot, pull: Pull) -> None:
        self.advances.tell(slot.user, pull.cursor, reset=pull.reason in _OTHER_HISTORY)

    async def _build(self, slot: Slot, pull: Pull) -> int:
        """Build into a file of its own, and put that in the place of what was there."""
        if pull.reason is not Reason.NEW:
            _log.warning("replica_rebuilt", reason=pull.reason and pull.reason.value, cursor=str(pull.cursor))
        self._rebuilds += 1
        temporary = self._directory.building / f"{slot.location.database.stem}.db"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            await asyncio.to_thread(remove_all, temporary)
            rows = await build(temporary, self.schema, slot.user, pull, self._passing)
            await self._open.close(slot)
            try:
                await to_its_end(asyncio.to_thread(publish, temporary, slot.location, self._passing))
                await self._open.open(slot)
            except Doubt as again:
                raise ReplicaUnavailable(f"the replica was rebuilt and is in doubt again: {again.reason}") from again
            finally:  # also where that fails half way: the next sync may find the file in its place, and nothing new
                self._tell(slot, pull)
        finally:
            await to_its_end(asyncio.to_thread(remove_all, temporary))
        return rows

    # ------------------------------------------------------------- opening and closing

    async def _opened(self, user: str) -> Replica:
        """Give the user's open replica, opening or building it first."""
        if (replica := self._open.used(user)) is not None and not self._closed:
            return replica
        self._refuse_if_closed()
        slot = self._slot(user)
        slot.wanted += 1
        try:
            while slot.replica is None:  # again where it was found in doubt meanwhile
                await self._run(self._open_or_build(slot))
        finally:
            slot.wanted -= 1
            self._open.trim()
        return slot.replica

    async def _open_or_build(self, slot: Slot) -> None:
        async with slot.lock:
            if slot.replica is None:
                with _told():
                    doubt = await self._ensure_open(slot)
                    if slot.replica is None:
                        await self._pull(slot, doubt)

    async def _ensure_open(self, slot: Slot) -> Doubt | None:
        """Open the file if there is one to be believed; otherwise give the doubt, None where there is no file."""
        if slot.replica is not None or not slot.location.database.exists():
            return None
        try:
            await self._open.open(slot)
        except Doubt as doubt:
            await self._condemn(slot, doubt)
            return doubt
        return None

    async def _renew(self, slot: Slot, replica: Replica, doubt: Doubt) -> SyncResult:
        """Set the file aside and build another, unless someone did since ``replica`` was read."""
        async with slot.lock:
            if slot.replica is not None and slot.replica is not replica:
                return SyncResult(slot.replica.state.cursor, 0, False)
            with _told():
                return await self._replace(slot, doubt)

    async def _replace(self, slot: Slot, doubt: Doubt) -> SyncResult:
        """Set the file aside and build another."""
        await self._condemn(slot, doubt)
        return await self._pull(slot, doubt)

    async def _condemn(self, slot: Slot, doubt: Doubt) -> None:
        self._doubts += 1
        _log.warning("replica_in_doubt", reason=doubt.reason, file=slot.location.database.name)
        await self._open.close(slot)
        await asyncio.to_thread(set_aside, slot.location, self._directory.quarantine, self._limits.quarantine_max)

    # ------------------------------------------------------------- small things

    def _slot(self, user: str) -> Slot:
        slot = self._slots.get(user)
        if slot is None:
            location = self._directory.of(user)
            lane = self._lanes[int(location.database.stem[:8], 16) % len(self._lanes)]
            slot = self._slots[user] = Slot(user, location, lane)
        return slot

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run what must come to its end though its caller may leave."""
        try:
            self._refuse_if_closed()
        except ReplicaUnavailable:
            work.close()
            raise
        task = self._start(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by `close`, and not its caller
                self._refuse_if_closed()
            raise

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ReplicaUnavailable("the server is stopping")

    def _start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # is the caller's; where that has left, it is nobody's

    def _prepare(self) -> None:
        directory = self._directory
        for folder in (directory.replicas, directory.building, directory.apart, directory.quarantine):
            folder.mkdir(parents=True, exist_ok=True)
        for left_over in chain(directory.building.iterdir(), directory.apart.iterdir()):  # of what was killed
            remove(left_over)


def _there(slot: Slot, at_least: Cursor | None) -> SyncResult | None:
    """Give what a sync comes to that finds the replica where it is wanted."""
    if at_least is None or slot.replica is None:
        return None
    cursor = slot.replica.state.cursor
    return SyncResult(cursor, 0, False) if cursor.covers(at_least) else None


@contextmanager
def _told() -> Iterator[None]:
    """Tell callers of a doubt that could not be answered, and of a disk that fails, as of a replica that is away."""
    try:
        yield
    except Doubt as doubt:
        raise ReplicaUnavailable(f"the replica is in doubt again and again: {doubt.reason}") from doubt
    except OSError as error:
        raise trouble.of_building(error) from error
