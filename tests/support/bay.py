"""A store that can be closed, broken and opened again."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from primary.declaration import Catalog
from primary.feed import Feed
from primary.postgres import Primary
from replica.faults import CRASH_VARIABLE
from replica.library import connect
from replica.location import DataDirectory
from replica.results import StoreLimits, SyncResult
from replica.store import Store
from tests.support.feeds import TestFeed
from tests.support.folders import in_memory
from tests.support.forked import forked
from tests.support.replicas import assert_same, files_of


class Bay:
    """A store over the test's database, and what a test wants to do to it.

    ``passing`` is called at each point of a sync (`replica.faults`); ``passed`` names those that were passed.
    """

    def __init__(
        self, data_dir: Path, primary: Primary, catalog: Catalog, feed: Feed, limits: StoreLimits | None = None
    ) -> None:
        self.directory = DataDirectory(data_dir)
        self.primary = primary
        self.catalog = catalog
        self.feed = TestFeed(feed)
        self.limits = limits or StoreLimits()
        self.passing: Callable[[str], None] = lambda point: None
        self.passed: list[str] = []
        self.store: Store

    async def open(self) -> None:
        self.store = Store(self.directory.root, self.catalog, self.feed, self.limits, self._pass)
        await self.store.open()

    async def close(self) -> None:
        await self.store.close()

    async def reopen(self) -> None:
        await self.close()
        await self.open()

    def _pass(self, point: str) -> None:
        self.passed.append(point)
        self.passing(point)

    def scratch(self, name: str) -> Path:
        """Make an empty folder on the same file system, outside the data directory."""
        made = self.directory.root.parent / "scratch" / self.directory.of(name).database.stem
        made.mkdir(parents=True)
        return made

    @contextlib.contextmanager
    def log_kept(self, user: str) -> Iterator[None]:
        """Have someone else read the user's file, so that closing the store does not take the log in, as in a kill."""
        with contextlib.closing(connect(self.directory.of(user).uri("ro"))) as reader:
            reader.execute("SELECT count(*) FROM _replica").fetchall()
            yield

    async def assert_same(self, *users: str) -> None:
        """Check that these users' replicas hold what the primary does."""
        for user in users:
            await assert_same(self.store, self.primary, user)

    async def begun_sync(self, user: str) -> asyncio.Task[SyncResult]:
        """Begin a sync; who waits for the lock of the user's slot then comes behind it, and before its last stage."""
        slot = self.store._slot(user)
        syncing = asyncio.create_task(self.store.sync(user))
        while not slot.lock.locked():
            await asyncio.sleep(0)
        return syncing

    async def run_child(self, user: str, *orders: str, crash_at: str = "") -> int:
        """Have a process of its own do something to a user's replica (`tests.support.child`); give how it ended."""
        given = [str(self.directory.root), self.primary.url, user, *orders]
        child = await forked("tests.support.child", given, os.environ | {CRASH_VARIABLE: crash_at})
        try:
            async with asyncio.timeout(30):
                print((await child.stderr.read()).decode())  # noqa: T201 - shown where the test fails
                return await child.wait()
        finally:
            child.send_signal(signal.SIGKILL)
            await child.wait()

    def left_behind(self) -> list[str]:
        """Name what builds, and reads apart, left."""
        return files_of(self.directory.building) + files_of(self.directory.apart)


@asynccontextmanager
async def opened(
    primary: Primary,
    catalog: Catalog,
    feed: Feed,
    limits: StoreLimits | None = None,
    folder: Path | None = None,
) -> AsyncIterator[Bay]:
    """A bay in a folder of its own, open; within ``folder`` if one is given."""
    with tempfile.TemporaryDirectory(prefix="tidepool-bay-", dir=folder or in_memory()) as own:
        bay = Bay(Path(own) / "data", primary, catalog, feed, limits)
        await bay.open()
        try:
            yield bay
        finally:
            await bay.close()
