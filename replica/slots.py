"""What a store holds of each user, and bounds on how much of it there is at once."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

from replica.lanes import Lane
from replica.location import Location
from replica.replica import Replica
from replica.results import SyncResult


@dataclass(slots=True, weakref_slot=True)
class Slot:
    """What is known of one user while anything of them is in use.

    Whoever opens, writes, exchanges or closes the replica holds the lock.
    """

    user: str
    location: Location
    lane: Lane
    replica: Replica | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    finishing: asyncio.Task[None] | None = None  # makes the last stage, or waits for its turn to
    wanted: int = 0  # readers for whom it is being opened; it is not closed before they had their read
    begun: int = 0  # syncs that were begun
    outcome: SyncResult | Exception | None = None  # of the last that ended


class Bound:
    """Those who hold one thing of which there may be ``most``; who used it least lately gives it up first.

    ``give_up`` is called within the slot's lock, and ends with `drop`.
    """

    def __init__(self, most: int, give_up: Callable[[Slot], Awaitable[None]]) -> None:
        self._most = most
        self._give_up = give_up
        self._held: OrderedDict[str, Slot] = OrderedDict()  # who used it least lately first

    def __len__(self) -> int:
        return len(self._held)

    def __iter__(self) -> Iterator[Slot]:
        """Go through those who hold it now, whatever is taken or dropped meanwhile."""
        return iter([*self._held.values()])

    def use(self, slot: Slot) -> None:
        """Note that a slot holds it, and uses it now."""
        self._held[slot.user] = slot
        self._held.move_to_end(slot.user)

    def used(self, user: str) -> Slot | None:
        """Give the slot of a user who holds it, and note that it is used now."""
        slot = self._held.get(user)
        if slot is not None:
            self._held.move_to_end(user)
        return slot

    def drop(self, slot: Slot) -> None:
        """Note that a slot holds it no more."""
        self._held.pop(slot.user, None)

    @property
    def exceeded(self) -> bool:
        """Whether there are too many."""
        return len(self._held) > self._most

    async def keep(self) -> None:
        """Have those who are too many give it up, but for those that something is about to be done with.

        Who is read in the lane gives it up when there are no others: their reads, which can be long, are waited for.
        """
        for even_if_read in (False, True):
            for slot in self:
                if not self.exceeded:
                    return
                is_read = slot.replica is not None and slot.replica.is_read
                if not slot.wanted and not slot.lock.locked() and (even_if_read or not is_read):
                    async with slot.lock:
                        await self._give_up(slot)
