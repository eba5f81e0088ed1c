"""I1, I2: a replica holds exactly what its user owned at its cursor, whatever is written meanwhile."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from primary import postgres_feed
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from replica import apply
from replica.errors import ReplicaUnavailable
from replica.results import StoreLimits
from replica.store import Store
from tests.support import shapes
from tests.support.databases import Databases
from tests.support.oracle import Oracle
from tests.support.workload import USERS, Writers


@pytest.fixture
async def primary(databases: Databases) -> AsyncIterator[Primary]:
    async with shapes.installed(databases) as primary:
        yield primary


async def check(oracle: Oracle, store: Store, user: str) -> int:
    """Compare the replica as it is read with what its user owned at that version; give the version."""
    reading = await store.read(user, oracle.held)
    assert reading.value == await oracle.expected(user, reading.version.version), f"{user} at {reading.version}"
    return reading.version.version


TABLES = [table.name for table in shapes.catalog]


class Syncing:
    """Syncs random users until it is told to stop, and checks their replicas after each."""

    def __init__(self, primary: Primary, oracle: Oracle, store: Store, rng: random.Random) -> None:
        self._primary = primary
        self.stop = False
        self.checked = 0
        self.deleted_again = 0
        self._oracle = oracle
        self._store = store
        self._rng = rng
        self._seen: dict[str, int] = {}

    async def run(self) -> None:
        while not self.stop:
            user = self._rng.choice(USERS)
            try:
                await self._act(user)
                before = self._seen.get(user, 0)
                version = await check(self._oracle, self._store, user)
            except ReplicaUnavailable:  # deleted again, right after it was built
                self.deleted_again += 1
                continue
            assert version >= before, f"{user} was at {before} and is at {version}"  # I3
            self._seen[user] = max(version, self._seen.get(user, 0))
            self.checked += 1
            await asyncio.sleep(self._rng.uniform(0, 0.01))

    async def _act(self, user: str) -> None:
        match self._rng.random():
            case chance if chance < 0.04:
                self._store._slot(user).location.database.unlink(missing_ok=True)  # I4: at any moment
            case chance if chance < 0.07:
                await self._store.rebuild(user)
            case chance:
                if chance < 0.5:  # a guess, mostly a wrong one
                    self._primary.touched.note(user, self._rng.sample(TABLES, self._rng.randrange(3)))
                synced = (await self._store.sync(user)).version.version
                assert synced >= self._seen.get(user, 0)  # I3
                self._seen[user] = synced


async def compact(primary: Primary, rng: random.Random, syncing: list[Syncing]) -> None:
    """Drop marks of rows that are gone, now and then, so that some cursors are too old to go on from."""
    while not all(each.stop for each in syncing):
        await asyncio.sleep(rng.uniform(0.1, 0.5))
        user = {"user": rng.choice(USERS)}
        async with primary.connection() as connection, connection.transaction():
            await connection.execute(
                "UPDATE tidepool.head SET floor = version - 5 WHERE user_id = %(user)s AND version > 5", user
            )
            await connection.execute(
                "DELETE FROM tidepool.change AS c USING tidepool.head AS h "
                "WHERE h.user_id = %(user)s AND c.user_id = h.user_id AND c.deleted AND c.version <= h.floor",
                user,
            )


async def rounds(primary: Primary, data_dir: Path, seed: int, *, writers: int, transactions: int) -> dict[str, Any]:
    rng = random.Random(seed)
    oracle = Oracle(primary, shapes.metadata)
    store = Store(data_dir, shapes.catalog, oracle, StoreLimits(replica_open_max=3))
    await store.open()
    at_work = Writers(primary.url, seed)
    syncing = [Syncing(primary, oracle, store, random.Random(rng.random())) for _ in range(3)]
    try:
        async with asyncio.TaskGroup() as group:
            for each in syncing:
                group.create_task(each.run())
            group.create_task(compact(primary, rng, syncing))
            try:
                await at_work.run(writers, transactions)
            finally:
                for each in syncing:
                    each.stop = True
        for user in USERS:
            await store.sync(user)
            version, rows = await oracle.look(user)
            reading = await store.read(user, oracle.held)
            assert (reading.version.version, reading.value) == (version, rows), f"{user} at the end"
        counts = store.counts()
    finally:
        await store.close()
    return {
        **at_work.done,
        "checked": sum(each.checked for each in syncing),
        "deleted_again": sum(each.deleted_again for each in syncing),
        "states": oracle.states,
        "syncs": counts.syncs,
        "rebuilds": counts.rebuilds,
    }


@pytest.fixture(params=["at once", "streamed"])
def changes_come(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """By both ways of the feed, and of applying; the ones for many changes are taken for a few, in small batches."""
    if request.param == "streamed":
        monkeypatch.setattr(postgres_feed, "PIPELINED_ROWS_MAX", 2)
        monkeypatch.setattr(postgres_feed, "BATCH_ROWS", 5)
        monkeypatch.setattr(apply, "STAGED_ROWS_MIN", 1)
        monkeypatch.setattr(apply, "STAGED_ROWS_MAX", 7)


async def test_whatever_is_written_each_replica_is_what_its_user_owned_at_its_cursor(
    primary: Primary, data_dir: Path, seed: int, changes_come: None
) -> None:
    told = await rounds(primary, data_dir, seed, writers=6, transactions=60)
    # A test that cannot fail is a defect: it all happened.
    assert told["commit"] > 100
    assert told["rollback"] > 4
    assert told["refused"] > 10
    assert told["checked"] > 40
    assert told["states"] > 40
    assert told["rebuilds"] >= len(USERS)
    assert told["deleted_again"] < 10


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", range(5))
async def test_for_minutes_each_replica_is_what_its_user_owned_at_its_cursor(
    primary: Primary, data_dir: Path, seed: int, run: int, changes_come: None
) -> None:
    await rounds(primary, data_dir, seed, writers=10, transactions=600)


async def test_a_cursor_that_is_a_timestamp_loses_rows_on_such_a_schedule(
    primary: Primary, data_dir: Path, seed: int
) -> None:
    """Why versions are taken under the head's lock: the same writes, followed by `updated_at > cursor`, leave holes."""
    copies: dict[str, set[int]] = {user: set() for user in USERS}
    cursors = dict.fromkeys(USERS, datetime.min.replace(tzinfo=UTC))
    passed = asyncio.Event()  # a cursor is past the time at which the slow one began
    began = datetime.max.replace(tzinfo=UTC)
    writing = True

    async def write_slowly(user: str) -> None:
        nonlocal began
        async with await psycopg.AsyncConnection.connect(primary.url, autocommit=True) as connection:
            await connection.execute("BEGIN")
            ((began,),) = await (await connection.execute("SELECT now()")).fetchall()
            await passed.wait()
            await connection.execute("INSERT INTO shelf (user_id, id) VALUES (%s, -1)", [user])
            await connection.execute("COMMIT")

    async def write(number: int) -> None:
        rng = random.Random(f"{seed} {number}")
        async with await psycopg.AsyncConnection.connect(primary.url, autocommit=True) as connection:
            for turn in range(30):
                await connection.execute("BEGIN")
                await asyncio.sleep(rng.uniform(0, 0.01))
                await connection.execute(
                    "INSERT INTO shelf (user_id, id) VALUES (%s, %s)", [rng.choice(USERS), number * 1_000 + turn]
                )
                await asyncio.sleep(rng.uniform(0, 0.01))
                await connection.execute(b"ROLLBACK" if rng.random() < 0.1 else b"COMMIT")

    async def pull(user: str) -> None:
        async with primary.connection() as connection:
            found = await connection.execute(
                "SELECT id, updated_at FROM shelf WHERE user_id = %s AND updated_at > %s", [user, cursors[user]]
            )
            for key, updated_at in await found.fetchall():
                copies[user].add(key)
                cursors[user] = max(cursors[user], updated_at)
        if cursors[USERS[0]] > began:
            passed.set()

    async def follow(store: Store) -> None:
        while writing:
            for user in USERS:
                await pull(user)
                await store.sync(user)

    store = Store(data_dir, shapes.catalog, PostgresFeed(primary, shapes.catalog))
    await store.open()
    try:
        following = asyncio.create_task(follow(store))
        await asyncio.gather(write_slowly(USERS[0]), *(write(number) for number in range(6)))
        writing = False
        await following
        lost = 0
        for user in USERS:
            await pull(user)
            await store.sync(user)
            async with primary.connection() as connection:
                found = await connection.execute("SELECT id FROM shelf WHERE user_id = %s", [user])
                there = {key for (key,) in await found.fetchall()}
            held = await store.read(user, lambda replica: replica.execute("SELECT id FROM shelf").fetchall())
            assert {key for (key,) in held.value} == there
            lost += len(there - copies[user])
        assert lost > 0
    finally:
        await store.close()
