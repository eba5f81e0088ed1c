"""Who wants to know when a replica advances, and how they are told: the last state only, however many there were.

    with advances.watch(user) as watch:
        while not watch.ended:
            await watch.changed(within_s=15)
            watch.cursor    where the replica is now

A watch holds one cursor. Whoever looks late, or never, costs no more than whoever looks at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from primary.cursor import Cursor


class Watch:
    """One who wants to know of one user's replica.

    ``cursor`` is where the replica was brought last, None as long as nothing was told. ``reset`` says that it has been
    brought into another history since, so that what was told before is of no use; who looks takes it back. ``ended``
    says that the watch is over: by `end`, which is for whoever runs out of time or patience, or by the end of all.
    """

    __slots__ = ("_changed", "cursor", "ended", "reset", "user")

    def __init__(self, user: str) -> None:
        self.user = user
        self.cursor: Cursor | None = None
        self.reset = False
        self.ended = False
        self._changed = asyncio.Event()

    async def changed(self, within_s: float) -> bool:
        """Wait until something was told since the last call, but no longer than that; say whether there was."""
        try:
            async with asyncio.timeout(within_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        return True

    def tell(self, cursor: Cursor, *, reset: bool = False) -> None:
        """Tell that the replica is at ``cursor`` now; with ``reset``, in another history than before."""
        self.cursor = cursor
        self.reset = self.reset or reset
        self._changed.set()

    def end(self) -> None:
        """End the watch, and wake whoever waits."""
        self.ended = True
        self._changed.set()


class Advances:
    """Tells those who watch a user's replica where it is, each time that it was brought somewhere."""

    def __init__(self) -> None:
        self._watches: dict[str, set[Watch]] = {}

    @contextmanager
    def watch(self, user: str) -> Iterator[Watch]:
        """Be told of a user's replica for as long as the block runs."""
        watch = Watch(user)
        self._watches.setdefault(user, set()).add(watch)
        try:
            yield watch
        finally:
            watches = self._watches[user]
            watches.discard(watch)
            if not watches:
                del self._watches[user]

    def tell(self, user: str, cursor: Cursor, *, reset: bool = False) -> None:
        """Tell those who watch ``user``."""
        for watch in self._watches.get(user, ()):
            watch.tell(cursor, reset=reset)

    def end_all(self) -> None:
        """End every watch."""
        for watches in self._watches.values():
            for watch in watches:
                watch.end()
