"""The replicas of a store that are open, within bounds: files, and connections that write.

Reading takes a file that is open. A connection that writes is a thread more, and memory, so fewer of those are kept;
after a write the rest of its work (the last stage of its schema, a checkpoint of the log) is done here too, when
nobody waits for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import apsw
import structlog

from replica.ending import to_its_end
from replica.errors import Doubt
from replica.faults import Passing
from replica.replica import Replica
from replica.results import StoreLimits
from replica.schema import Schema
from replica.slots import Bound, Slot

OPENINGS = 8  # files opened at once: by so many, and no more, can the bound be passed while a crowd of readers arrives

_log = structlog.get_logger("replica.opened")


class OpenReplicas:
    """Opens and closes what slots hold. ``start`` begins what goes on by itself, and takes the slot's lock for it.

    `open`, `close` and `wrote` are called within the slot's lock.
    """

    def __init__(
        self,
        schema: Schema,
        limits: StoreLimits,
        passing: Passing,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self._schema = schema
        self._passing = passing
        self._start = start
        self._files = Bound(limits.replica_open_max, self.close)
        self._writers = Bound(limits.writers_open_max, self._rest)
        self._openings = asyncio.Semaphore(OPENINGS)

    def __len__(self) -> int:
        return len(self._files)

    def used(self, user: str) -> Replica | None:
        """Give a user's replica if it is open, and note that it is used now."""
        slot = self._files.used(user)
        return None if slot is None else slot.replica

    async def open(self, slot: Slot) -> None:
        """Open a user's file, and close what is too much then. Raises `Doubt`."""
        async with self._openings:
            slot.replica = await Replica.open(slot.location, self._schema, slot.user, slot.lane, self._passing)
            self._files.use(slot)
            if slot.replica.unfinished:
                self.finishing(slot)
            await self._files.keep()

    async def close(self, slot: Slot) -> None:
        """Close a user's replica, if it is open."""
        replica, slot.replica = slot.replica, None
        self._files.drop(slot)
        self._writers.drop(slot)
        if replica is not None:
            try:
                await to_its_end(replica.close())  # else its log is taken in, and nobody seals that
            except (Doubt, apsw.Error, OSError) as error:  # the seal then tells what the file is worth
                _log.warning("replica_close_failed", error=str(error))

    async def close_all(self) -> None:
        """Close every replica, each when what is done with it has ended."""
        for slot in self._files:
            async with slot.lock:
                await self.close(slot)

    def trim(self) -> None:
        """Begin to close what is too much, now that somebody is done with a file."""
        if self._files.exceeded:
            self._start(self._files.keep())

    def wrote(self, slot: Slot) -> None:
        """Note that a replica was written to, and begin what that leaves to be done."""
        self._use_writer(slot)
        if slot.replica is not None and slot.replica.unfinished:
            self.finishing(slot)  # which cuts the log itself
        else:
            self._shorten_log(slot)

    def finishing(self, slot: Slot) -> asyncio.Task[None]:
        """Give the task that makes what is left of the last stage of a user's replica; begin it if there is none."""
        if slot.finishing is None or slot.finishing.done():
            slot.finishing = self._start(self._finish(slot))
        return slot.finishing

    async def _finish(self, slot: Slot) -> None:
        async with slot.lock:
            replica = slot.replica  # may be another one than it was begun for, which wants it too
            if replica is None or not replica.unfinished:
                return
            try:
                await replica.finish()
            except (Doubt, apsw.Error, OSError) as error:  # reading goes on without; the next write tries again
                _log.warning("replica_unfinished", error=str(error))
            finally:
                self._use_writer(slot)
                self._shorten_log(slot)

    def _use_writer(self, slot: Slot) -> None:
        if slot.replica is not None and slot.replica.writes:
            self._writers.use(slot)
            if self._writers.exceeded:
                self._start(self._writers.keep())

    def _shorten_log(self, slot: Slot) -> None:
        if slot.replica is not None and slot.replica.writes and slot.replica.log_is_long:
            self._start(self._checkpoint(slot, slot.replica))

    async def _checkpoint(self, slot: Slot, replica: Replica) -> None:
        async with slot.lock:
            if slot.replica is not replica or not replica.log_is_long:
                return
            try:
                await replica.checkpoint()
            except (Doubt, apsw.Error, OSError) as error:  # the log grows on; the next sync tries again
                _log.warning("replica_checkpoint_failed", error=str(error))

    async def _rest(self, slot: Slot) -> None:
        self._writers.drop(slot)
        if slot.replica is not None:
            try:
                await to_its_end(slot.replica.rest())
            except (Doubt, apsw.Error, OSError) as error:  # the next read or write tells its worth
                _log.warning("replica_close_failed", error=str(error))
