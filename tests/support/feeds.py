"""Feeds that are away, wait, or count: around the real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from primary.cursor import Cursor
from primary.errors import PrimaryUnavailable
from primary.feed import Feed, Pull


class TestFeed:
    """The real feed, behind a switch and a gate.

    ``away`` makes every pull fail as without a primary. While ``gate`` is clear, pulls wait after they have looked at
    the primary and before they hand out what they saw. ``looks`` counts pulls that have looked, ``most_at_once`` those
    that did so side by side.
    """

    __test__ = False

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._under_way = 0
        self.away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.looks = 0
        self.most_at_once = 0

    @asynccontextmanager
    async def pull(self, user: str, since: Cursor | None, position: int = 0) -> AsyncIterator[Pull]:
        """See `primary.feed.Feed.pull`."""
        if self.away:
            raise PrimaryUnavailable
        async with self._feed.pull(user, since, position) as pull:
            self.looks += 1
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
            try:
                await self.gate.wait()
                yield pull
            finally:
                self._under_way -= 1

    def ahead(self, user: str, since: Cursor, position: int, at_least: Cursor) -> Pull | None:
        """See `primary.feed.Feed.ahead`; this needs no primary."""
        return self._feed.ahead(user, since, position, at_least)

    async def looked(self, times: int) -> None:
        """Wait until so many pulls have looked at the primary since the beginning."""
        async with asyncio.timeout(20):
            while self.looks < times:
                await asyncio.sleep(0.001)
