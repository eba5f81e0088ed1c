"""The store under load: callers that share, leave and crowd; many users on few open files."""

from __future__ import annotations

import asyncio
import threading

import apsw
import pytest

from primary import postgres_feed
from primary.declaration import Catalog
from primary.errors import PrimaryUnavailable
from primary.feed import Feed
from primary.postgres import Primary
from replica import apply
from replica.replica import Replica
from replica.results import Reading, StoreLimits
from replica.staging import Staging
from tests.support.bay import Bay, opened
from tests.support.open_files import open_files
from tests.support.replicas import change, count_images, grow, grow_all

LIMITS = StoreLimits(replica_open_max=8, sync_concurrency=3)


@pytest.fixture
def limits() -> StoreLimits:
    return LIMITS


# ------------------------------------------------------------- syncs of one user


async def test_callers_share_a_sync_and_none_gets_a_look_from_before_its_call(bay: Bay) -> None:
    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    await grow(bay.primary, "ann", 1)
    bay.feed.gate.clear()
    first = asyncio.create_task(bay.store.sync("ann"))
    await bay.feed.looked(2)
    newest = await grow(bay.primary, "ann", 5)  # the sync that runs has looked already
    others = [asyncio.create_task(bay.store.sync("ann")) for _ in range(20)]
    await asyncio.sleep(0.01)
    bay.feed.gate.set()
    assert (await first).version < newest
    assert {(await other).version for other in others} == {newest}
    assert bay.feed.looks == 3, "twenty callers made one more pull"
    await bay.assert_same("ann")


async def test_callers_of_a_first_read_share_one_build(bay: Bay) -> None:
    await grow(bay.primary, "ann", 20)
    readings = await asyncio.gather(*(bay.store.read("ann", count_images) for _ in range(30)))
    assert {reading.value for reading in readings} == {20}
    assert bay.feed.looks == 1


async def test_callers_that_share_a_failing_sync_are_all_told(bay: Bay) -> None:
    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    bay.feed.away = True
    results = await asyncio.gather(*(bay.store.sync("ann") for _ in range(5)), return_exceptions=True)
    assert [type(result) for result in results] == [PrimaryUnavailable] * 5
    bay.feed.away = False
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    await bay.assert_same("ann")


async def test_a_caller_that_leaves_does_not_stop_the_sync(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    for already_there in (False, True):
        if already_there:
            await change(bay.primary, "ann")
        looks = bay.feed.looks
        bay.feed.gate.clear()
        leaving = asyncio.create_task(bay.store.sync("ann"))
        staying = asyncio.create_task(bay.store.sync("ann"))
        await bay.feed.looked(looks + 1)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        bay.feed.gate.set()
        await staying
        bay.feed.away = True  # so that what is read now is what that sync brought
        await bay.assert_same("ann")
        bay.feed.away = False


async def test_a_sync_that_nobody_waits_for_any_more_comes_to_its_end(bay: Bay) -> None:
    cursor = await grow(bay.primary, "ann", 3)
    bay.feed.gate.clear()
    alone = asyncio.create_task(bay.store.sync("ann"))
    await bay.feed.looked(1)
    alone.cancel()
    bay.feed.gate.set()
    async with asyncio.timeout(10):
        while bay.store.counts().open_replicas == 0:
            await asyncio.sleep(0.001)
    bay.feed.away = True
    assert await bay.store.cursor("ann") == cursor
    await bay.assert_same("ann")


async def test_a_reader_that_leaves_does_not_disturb_the_others(bay: Bay) -> None:
    await grow(bay.primary, "ann", 50)
    await bay.store.sync("ann")
    for _ in range(30):
        reads = [asyncio.create_task(bay.store.read("ann", count_images)) for _ in range(6)]
        await asyncio.sleep(0)
        for leaving in reads[::2]:
            leaving.cancel()
        results = await asyncio.gather(*reads, return_exceptions=True)
        assert [result.value for result in results[1::2] if isinstance(result, Reading)] == [50] * 3


async def test_a_replica_that_is_there_already_is_left_as_it_is(bay: Bay) -> None:
    cursor = await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    later = await change(bay.primary, "ann")
    assert (await bay.store.sync("ann", at_least=cursor)).version == cursor
    assert bay.feed.looks == 1
    assert (await bay.store.sync("ann", at_least=later)).version == later


@pytest.mark.parametrize(
    ("statement", "reset"),
    [
        ("UPDATE tidepool.head SET version = version - 1", True),  # the replica is past it: commits were lost
        ("UPDATE tidepool.head SET version = version + 1, floor = version + 1", False),  # the same history, cut short
    ],
)
async def test_who_listens_is_told_where_what_was_told_before_is_of_no_use(
    bay: Bay, statement: str, reset: bool
) -> None:
    await grow(bay.primary, "ann", 1)
    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    with bay.store.advances.watch("ann") as watch:
        async with bay.primary.connection() as connection:
            await connection.execute(statement.encode())
        result = await bay.store.sync("ann")
        assert result.rebuilt
        assert (watch.cursor, watch.reset) == (result.version, reset)


# ------------------------------------------------------------- many users


async def test_users_sync_side_by_side_up_to_the_bound(bay: Bay) -> None:
    users = [f"user {n}" for n in range(10)]
    for user in users:
        await grow(bay.primary, user, 1)
    bay.feed.gate.clear()
    syncs = [asyncio.create_task(bay.store.sync(user)) for user in users]
    await bay.feed.looked(LIMITS.sync_concurrency)
    await asyncio.sleep(0.05)
    assert bay.feed.looks == LIMITS.sync_concurrency
    bay.feed.gate.set()
    await asyncio.gather(*syncs)
    assert bay.feed.most_at_once == LIMITS.sync_concurrency
    await bay.assert_same(*users)


async def test_a_user_who_waits_for_the_primary_does_not_hold_up_another(bay: Bay) -> None:
    await grow(bay.primary, "ann", 5)
    await grow(bay.primary, "bob", 5)
    await bay.store.sync("ann")
    bay.feed.gate.clear()
    waiting = asyncio.create_task(bay.store.sync("bob"))
    await bay.feed.looked(2)
    async with asyncio.timeout(5):
        assert (await bay.store.read("ann", count_images)).value == 5
    bay.feed.gate.set()
    await waiting


async def test_nor_does_it_keep_a_file_from_being_opened_when_too_many_are(
    primary: Primary, catalog: Catalog, feed: Feed
) -> None:
    async with opened(primary, catalog, feed, StoreLimits(replica_open_max=1)) as bay:
        for user in ("bob", "ann"):
            await grow(primary, user, 5)
            await bay.store.sync(user)
        assert bay.store.counts().open_replicas == 1
        bay.feed.gate.clear()
        waiting = asyncio.create_task(bay.store.sync("ann"))
        await bay.feed.looked(3)
        async with asyncio.timeout(5):
            assert (await bay.store.read("bob", count_images)).value == 5
        bay.feed.gate.set()
        await waiting


async def test_three_hundred_users_take_turns_with_eight_open_files(bay: Bay) -> None:
    users = [f"user {n}" for n in range(300)]
    async with bay.primary.transaction() as conn:
        await conn.exec_driver_sql(
            "INSERT INTO image (user_id, prompt, image_url) SELECT 'user ' || u, 'p' || i, 'u' "
            "FROM generate_series(0, 299) AS u, generate_series(1, 3) AS i"
        )
    threads = threading.active_count()
    most_files = most_threads = 0
    for user in users:
        assert (await bay.store.read(user, count_images)).value == 3
        most_files = max(most_files, len(open_files(bay.directory.root)))
        assert bay.store.counts().open_replicas <= LIMITS.replica_open_max
    for user in users[::7]:  # long evicted; the syncs of these also have a connection that writes
        await change(bay.primary, user, rows=1)
        await bay.store.sync(user)
        most_threads = max(most_threads, threading.active_count())
        most_files = max(most_files, len(open_files(bay.directory.root)))
    assert bay.store.counts().rebuilds == 300, "an evicted replica is opened again, not built again"
    # Of each: the database and its log twice, and the log's index; and the lock. One more may be on its way.
    assert most_files <= (LIMITS.replica_open_max + 1) * 5 + 1
    assert most_threads <= threads + LIMITS.replica_open_max + 1 + 8, "a writing thread for each, and the pool's"
    await bay.assert_same(*users[:21])


async def test_who_used_a_file_or_wrote_least_lately_gives_that_up(
    primary: Primary, catalog: Catalog, feed: Feed
) -> None:
    users = ["ann", "bob", "cat"]
    async with opened(primary, catalog, feed, StoreLimits(replica_open_max=3, writers_open_max=2)) as bay:

        def having(what: str) -> list[str]:
            return [user for user in users if getattr(bay.store._slot(user).replica, what, False)]

        await grow_all(primary, [*users, "dan"], 1)
        for user in users:
            await bay.store.sync(user)
        for user in ("ann", "bob", "ann", "cat"):
            await change(primary, user)
            await bay.store.sync(user)
        async with asyncio.timeout(10):
            while len(having("writes")) > 2:
                await asyncio.sleep(0.001)
        assert having("writes") == ["ann", "cat"]
        await bay.store.read("ann", count_images)
        await bay.store.read("dan", count_images)
        assert having("state") == ["ann", "cat"]


@pytest.mark.parametrize("bound", [1, 2, 8])
async def test_more_readers_than_open_files_are_all_served(
    primary: Primary, catalog: Catalog, feed: Feed, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none is opened in vain, to be closed again before its reader came to read."""
    users = [f"user {n}" for n in range(40)]
    openings = 0
    connect = Replica.connect

    def counted(replica: Replica) -> apsw.Connection:
        nonlocal openings
        openings += 1
        return connect(replica)

    monkeypatch.setattr(Replica, "connect", counted)
    async with primary.transaction() as conn:
        await conn.exec_driver_sql(
            "INSERT INTO image (user_id, prompt, image_url) "
            "SELECT 'user ' || u, 'p', 'u' FROM generate_series(0, 39) AS u"
        )
    async with opened(primary, catalog, feed, StoreLimits(replica_open_max=bound)) as bay:
        for _ in range(3):
            counts = await asyncio.gather(*(bay.store.read(user, count_images) for user in users for _ in range(2)))
            assert {reading.value for reading in counts} == {1}
            assert len(counts) == 80
        assert openings <= 3 * len(users)
        assert bay.store.counts().open_replicas <= bound


async def test_nobody_waits_for_the_long_reads_of_another_to_have_a_file_opened(
    primary: Primary, catalog: Catalog, feed: Feed
) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    limits = StoreLimits(replica_open_max=2, read_timeout_ms=200)
    async with opened(primary, catalog, feed, limits) as bay:
        for user in ("ann", "bob", "cat"):
            await grow(primary, user, 1)
            await bay.store.sync(user)
        await bay.store.read("ann", count_images)
        crowd = [
            asyncio.create_task(bay.store.read("ann", lambda connection: connection.execute(endless), long=True))
            for _ in range(30)  # 6 s, one by one
        ]
        await asyncio.sleep(0.01)
        await bay.store.read("cat", count_images)  # ann's is what was used least lately, and is in use
        async with asyncio.timeout(1.5):
            assert (await bay.store.read("bob", count_images)).value == 1
        assert bay.store.counts().open_replicas == 2
        for task in crowd:
            task.cancel()
        await asyncio.wait(crowd)


# ------------------------------------------------------------- the write-ahead log


async def test_a_log_that_a_large_change_made_long_is_taken_in_after_it_and_does_not_stay_long(bay: Bay) -> None:
    """Who waits for a sync does not wait for the disk that takes in the log; and reads go on meanwhile."""
    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    log = bay.directory.of("ann").wal
    for _ in range(2):
        await grow(bay.primary, "ann", 4_000)
        await bay.store.sync("ann")
        made = log.stat().st_size
        assert made > 4 << 20
        counts = []
        while tasks := [*bay.store._tasks._tasks]:
            counts.append((await bay.store.read("ann", count_images)).value)
            await asyncio.wait(tasks, timeout=0.001)
        assert len({*counts}) == 1
        await change(bay.primary, "ann", rows=1)
        await bay.store.sync("ann")
        assert log.stat().st_size <= 2 << 20 < made
    await bay.assert_same("ann")


async def test_the_log_of_a_file_that_was_closed_meanwhile_is_left_alone(bay: Bay) -> None:
    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    slot = bay.store._slot("ann")
    replica = slot.replica
    assert replica is not None
    async with slot.lock:
        await bay.store._open.close(slot)
    await bay.store._open._checkpoint(slot, replica)
    assert not replica.writes, "nobody would close it again"


# ------------------------------------------------------------- memory


@pytest.mark.parametrize("images", [1, 100])
async def test_a_change_that_is_streamed_gives_back_what_it_took_however_few_rows_it_has(
    bay: Bay, monkeypatch: pytest.MonkeyPatch, images: int
) -> None:
    def held(connection: apsw.Connection) -> tuple[int, int]:
        return (
            connection.execute("PRAGMA cache_size").get,
            connection.execute("SELECT count(*) FROM temp.sqlite_master").get,
        )

    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    replica = bay.store._slot("ann").replica
    assert replica is not None
    assert replica._writer is not None
    before = await replica._writer.run(held)
    monkeypatch.setattr(postgres_feed, "PIPELINED_ROWS_MAX", 0)  # as where marks of other tables are many
    await grow(bay.primary, "ann", images)

    def passing(point: str) -> None:
        if point == "apply.stated":
            raise ZeroDivisionError

    bay.passing = passing
    with pytest.raises(ZeroDivisionError):
        await bay.store.sync("ann")
    assert await replica._writer.run(held) == before, "what is rolled back does so too"
    bay.passing = lambda point: None
    await bay.store.sync("ann")
    assert await replica._writer.run(held) == before
    await bay.assert_same("ann")


@pytest.mark.parametrize("streamed", [False, True])
async def test_long_rows_are_laid_out_in_lots_of_bounded_size(
    bay: Bay, monkeypatch: pytest.MonkeyPatch, streamed: bool
) -> None:
    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    if streamed:
        monkeypatch.setattr(postgres_feed, "PIPELINED_ROWS_MAX", 0)
    monkeypatch.setattr(apply, "STAGED_BYTES_MAX", 2 << 20)
    lots: list[int] = []
    whole = Staging.apply

    def noted(staging: Staging, connection: apsw.Connection) -> None:
        if staging.rows:
            lots.append(staging.bytes_of(connection))
        whole(staging, connection)

    monkeypatch.setattr(Staging, "apply", noted)
    async with bay.primary.connection() as connection:
        await connection.execute(
            "INSERT INTO image (user_id, prompt, image_url, description) "
            "SELECT 'ann', 'p', 'u', repeat('x', 10000) FROM generate_series(1, 1000)"
        )
    await bay.store.sync("ann")
    assert max(lots) < 4 << 20
    assert sum(lots) > 10_000_000
    await bay.assert_same("ann")
