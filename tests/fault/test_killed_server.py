"""I2 and I4: a server that is killed in the middle of its work loses nothing, and leaves nothing lying about.

A real `tidepool serve`, a real SIGKILL, at moments that chance picks.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import httpx
import pytest

from primary.declaration import Catalog
from primary.feed import Feed
from primary.postgres import Primary
from replica.location import DataDirectory
from replica.store import Store
from replica.verify import verify
from tests.support.replicas import assert_same, change, files_of, grow
from tests.support.server import ServerProcess

MANY = 100_000
SEED = 2


@pytest.fixture
def directory(data_dir: Path) -> DataDirectory:
    return DataDirectory(data_dir)


async def _equals_the_primary(directory: DataDirectory, primary: Primary, catalog: Catalog, feed: Feed) -> None:
    """Check every replica with the engine's own comparison, and one with ours."""
    report = await verify(directory.root, feed, catalog)
    assert report.clean, report.differing
    store = Store(directory.root, catalog, feed)
    await store.open()
    try:
        await assert_same(store, primary, "ann")
    finally:
        await store.close()


async def _ask_for_sync(server: ServerProcess, user: str) -> dict[str, object]:
    """Sync over HTTP."""
    async with server.client(user) as client:
        answer = await client.post("/api/sync")
    assert answer.status_code == 200, answer.text
    told: dict[str, object] = answer.json()
    return told


async def test_a_server_killed_in_a_first_copy_of_a_hundred_thousand_rows_starts_over(
    server_process: ServerProcess, primary: Primary, catalog: Catalog, feed: Feed, directory: DataDirectory
) -> None:
    rng = random.Random(SEED)
    await grow(primary, "ann", MANY)
    killed_while_building = 0
    # Of the copying itself, of the making of indexes, and of the last stage, which comes after the answer.
    for least_bytes in (1, rng.randrange(1, 10_000_000), rng.randrange(10_000_000, 25_000_000)):
        await server_process.start()
        assert not files_of(directory.building), "what the last one was building is swept"
        asking = asyncio.create_task(_ask_for_sync(server_process, "ann"))
        while not asking.done() and _bytes_below(directory.building) < least_bytes:
            await asyncio.sleep(0.001)
        killed_while_building += not asking.done()
        await server_process.kill()
        with pytest.raises(httpx.TransportError):
            await asking
        assert files_of(directory.building)
        assert not [*directory.all()], "nothing half is where a replica would be"
    assert killed_while_building == 3
    await server_process.start()
    assert not files_of(directory.building)
    told = await _ask_for_sync(server_process, "ann")
    assert told["applied"] == MANY
    await asyncio.sleep(rng.random() * 0.3)  # into the last stage: full-text search, ready-made pages
    await server_process.kill()
    await server_process.start()
    await _ask_for_sync(server_process, "ann")
    assert await server_process.stop() == 0
    report = await verify(directory.root, feed, catalog)
    assert report.clean, report.differing
    assert report.compared == MANY


def _bytes_below(folder: Path) -> int:
    return sum((folder / name).stat().st_size for name in files_of(folder)) if folder.exists() else 0


class _Work:
    """Change and sync, over and over, as each of some users, until the server is gone."""

    def __init__(self, server: ServerProcess, primary: Primary, rng: random.Random) -> None:
        self._server = server
        self._primary = primary
        self._rng = rng
        self._syncing = 0
        self.begun = asyncio.Event()  # some sync has been asked for, and is not answered

    async def of(self, user: str) -> bool:
        """Work until the server is killed; tell whether the end came in the middle of a sync."""
        while True:
            await change(self._primary, user, rows=self._rng.choice([1, 5, 200]))
            self._syncing += 1
            self.begun.set()
            try:
                await _ask_for_sync(self._server, user)
            except httpx.TransportError as error:
                return not isinstance(error, httpx.ConnectError)
            finally:
                self._syncing -= 1
                if not self._syncing:
                    self.begun.clear()


async def test_a_server_killed_again_and_again_while_it_syncs_never_loses_a_change(
    server_process: ServerProcess, primary: Primary, catalog: Catalog, feed: Feed, directory: DataDirectory
) -> None:
    rng = random.Random(SEED)
    users = ["ann", "bob", "cy"]
    for user in users:
        await grow(primary, user, 300)
    kills = died_in_a_sync = 0
    while kills < 5 or died_in_a_sync < 3:
        assert kills < 30, "kills do not hit a sync"
        await server_process.start()
        work = _Work(server_process, primary, rng)
        working = [asyncio.create_task(work.of(user)) for user in users]
        await asyncio.sleep(0.1 + rng.random() * 0.4)
        await work.begun.wait()
        await asyncio.sleep(rng.random() * 0.01)  # the request is on its way, or in the sync, or in the answer
        await server_process.kill()
        kills += 1
        died_in_a_sync += any(await asyncio.gather(*working))
    await server_process.start()
    assert not files_of(directory.building)
    for user in users:
        await _ask_for_sync(server_process, user)
    assert await server_process.stop() == 0
    # (An empty one is left where a replica was only read: who opens a file to read makes it, and cannot take it away.)
    assert not [log for log in directory.replicas.rglob("*-wal") if log.stat().st_size], "every log was taken in"
    await _equals_the_primary(directory, primary, catalog, feed)
