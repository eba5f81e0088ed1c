"""Syncing: bringing a user's replica to where the primary is, or building it, and answering doubt by building anew.

For each user one thing happens at a time, under the lock of their slot. Callers who ask for a sync while one runs share
the next, for the running one may have looked too early for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

import apsw
import structlog

from primary.cursor import Cursor
from primary.errors import PrimaryUnavailable
from primary.feed import Feed, Kind, Pull, Reason
from replica import trouble
from replica.advances import Advances
from replica.build import build
from replica.ending import to_its_end
from replica.errors import Doubt, ReplicaUnavailable
from replica.faults import Passing
from replica.location import DataDirectory, remove_all
from replica.opened import OpenReplicas
from replica.publish import publish
from replica.quarantine import set_aside
from replica.replica import Replica
from replica.results import StoreLimits, SyncResult
from replica.schema import Schema
from replica.slots import Slot

_OTHER_HISTORY = (Reason.EPOCH, Reason.AHEAD, Reason.OLDER)  # what was told of the one before is of no use any more

_log = structlog.get_logger("replica.syncing")


class Syncing:
    """Syncs the replicas of one data directory. Counts its ``syncs``, ``rebuilds`` and the ``doubts`` that it met."""

    def __init__(
        self,
        schema: Schema,
        feed: Feed,
        directory: DataDirectory,
        limits: StoreLimits,
        replicas: OpenReplicas,
        advances: Advances,
        passing: Passing,
    ) -> None:
        self.syncs = self.rebuilds = self.doubts = 0
        self._schema = schema
        self._feed = feed
        self._directory = directory
        self._limits = limits
        self._open = replicas
        self._advances = advances
        self._passing = passing
        self._pulls = asyncio.Semaphore(limits.sync_concurrency)

    # ------------------------------------------------------------- asked for

    async def sync(self, slot: Slot, ticket: int, at_least: Cursor | None) -> SyncResult:
        """Sync, or share a sync that began after the caller asked: since ``slot.begun`` was ``ticket``."""
        async with slot.lock:
            if slot.begun == ticket:  # none has begun since the caller asked
                if (result := there(slot, at_least)) is not None:  # the one that was under way did it
                    return result
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

    async def rebuild(self, slot: Slot) -> SyncResult:
        """Build the replica anew, whatever state it is in."""
        async with slot.lock:
            with _told():
                return await self._pull(slot, None, anew=True)

    async def open(self, slot: Slot) -> None:
        """Open the replica, or build it where there is none to be believed."""
        async with slot.lock:
            if slot.replica is None:
                with _told():
                    doubt = await self._ensure_open(slot)
                    if slot.replica is None:
                        await self._pull(slot, doubt)

    async def renew(self, slot: Slot, replica: Replica, doubt: Doubt) -> SyncResult:
        """Set the file aside and build another, unless someone did since ``replica`` was read."""
        async with slot.lock:
            if slot.replica is not None and slot.replica is not replica:
                return SyncResult(slot.replica.state.cursor, 0, False)
            with _told():
                return await self._replace(slot, doubt)

    # ------------------------------------------------------------- syncing

    async def _sync_ahead(self, slot: Slot, at_least: Cursor | None) -> SyncResult | None:
        """Get there without a look at the primary, where that is possible."""
        if at_least is None or slot.replica is None:
            return None
        state = slot.replica.state
        pull = self._feed.ahead(slot.user, state.cursor, state.position, at_least)
        if pull is None:
            return None
        self.syncs += 1
        try:
            return await self._take_in(slot, pull)
        except (Doubt, OSError):
            return None  # the sync that follows meets it too, and knows what to do

    async def _sync(self, slot: Slot) -> SyncResult:
        """Sync within the slot's lock."""
        doubt = await self._ensure_open(slot)
        self.syncs += 1
        try:
            return await self._pull(slot, doubt)
        except Doubt as found:
            return await self._replace(slot, found)

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
        self._advances.tell(slot.user, pull.cursor, reset=pull.reason in _OTHER_HISTORY)

    async def _build(self, slot: Slot, pull: Pull) -> int:
        """Build into a file of its own, and put that in the place of what was there."""
        if pull.reason is not Reason.NEW:
            _log.warning("replica_rebuilt", reason=pull.reason and pull.reason.value, cursor=str(pull.cursor))
        self.rebuilds += 1
        temporary = self._directory.building / f"{slot.location.database.stem}.db"
        temporary.parent.mkdir(parents=True, exist_ok=True)
        try:
            await asyncio.to_thread(remove_all, temporary)
            rows = await build(temporary, self._schema, slot.user, pull, self._passing)
            await self._open.close(slot)
            try:
                await to_its_end(asyncio.to_thread(publish, temporary, slot.location, self._passing))
                await self._open.open(slot)
            except Doubt as again:
                raise ReplicaUnavailable(f"the replica was rebuilt and is in doubt again: {again.reason}") from again
            finally:
                if not temporary.exists():  # it is in its place, where the next sync finds nothing new, whatever failed
                    self._tell(slot, pull)
        finally:
            await to_its_end(asyncio.to_thread(remove_all, temporary))
        return rows

    # ------------------------------------------------------------- files in doubt

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

    async def _replace(self, slot: Slot, doubt: Doubt) -> SyncResult:
        """Set the file aside and build another."""
        await self._condemn(slot, doubt)
        return await self._pull(slot, doubt)

    async def _condemn(self, slot: Slot, doubt: Doubt) -> None:
        self.doubts += 1
        _log.warning("replica_in_doubt", reason=doubt.reason, file=slot.location.database.name)
        await self._open.close(slot)
        await asyncio.to_thread(set_aside, slot.location, self._directory.quarantine, self._limits.quarantine_max)


def there(slot: Slot, at_least: Cursor | None) -> SyncResult | None:
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
