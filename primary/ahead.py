"""Answers to pulls that are here before anyone asks: what a write changed, looked at in the round trip of its commit.

After a pull it is known where a user's replica stands. So a write of this process asks behind its COMMIT, in a snapshot
of its own, what the next pull would ask: what changed since then. Who syncs the replica up to that write takes the
answer, and needs no round trip; who wants to know what is new *now* looks, as ever.

A user is looked after once for each time that the replica was brought on: of one that is not followed here, a single
write looks in vain, and what it found is dropped soon. So it is where the replica stands elsewhere by then, or the
answer was not all, and a pull follows.
"""

from __future__ import annotations

import asyncio
import weakref
from collections import OrderedDict

from primary.cursor import Cursor
from primary.feed import Pull
from primary.latest import keep

STANDS_MAX = 1_000  # users
PULLS_MAX = 100
KEPT_S = 5.0  # until a pull is taken, which is at once for who is followed: it may have 2,000 rows, of any size


class Ahead:
    """Keeps where users stand, and what is ahead of there."""

    def __init__(self) -> None:
        self._stands: OrderedDict[str, Cursor] = OrderedDict()
        self._pulls: OrderedDict[str, tuple[Cursor, Pull]] = OrderedDict()

    def stood(self, user: str, cursor: Cursor) -> None:
        """Note where a pull has brought a user's replica."""
        keep(self._stands, user, cursor, STANDS_MAX)

    def since(self, user: str) -> Cursor | None:
        """Give where the user stands, to look from there; None where that is not known, or was looked from before."""
        return self._stands.pop(user, None)

    def keep(self, user: str, since: Cursor, pull: Pull) -> None:
        """Keep a pull that is whole, in the place of an older one."""
        keep(self._pulls, user, (since, pull), PULLS_MAX)
        asyncio.get_running_loop().call_later(KEPT_S, self._drop, user, weakref.ref(pull))

    def take(self, user: str, since: Cursor, position: int, at_least: Cursor) -> Pull | None:
        """See `Feed.ahead`."""
        start, pull = self._pulls.pop(user, (None, None))
        if pull is None or start != since or position > pull.position or not pull.cursor.covers(at_least):
            return None
        self.stood(user, pull.cursor)
        return pull

    def _drop(self, user: str, pull: weakref.ref[Pull]) -> None:
        if user in self._pulls and self._pulls[user][1] is pull():
            del self._pulls[user]

    def forget(self, user: str) -> None:
        """Drop what is kept of a user, who is pulled now."""
        self._pulls.pop(user, None)
        self._stands.pop(user, None)
