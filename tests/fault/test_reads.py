"""Reads: at once or in the lane, beside a rebuild, beside a sync, too slow, wanting to write, failing."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable

import apsw
import pytest

from primary.declaration import Catalog
from primary.errors import PrimaryUnavailable
from primary.feed import Feed
from primary.postgres import Primary
from replica.errors import ReadTimeout
from replica.lanes import AT_ONCE_MAX_BYTES
from replica.replica import Replica
from replica.results import StoreLimits
from tests.support.bay import Bay, opened
from tests.support.replicas import change, count_images, grow

LARGE = f"SELECT length(group_concat(hex(zeroblob({AT_ONCE_MAX_BYTES // 4})))) FROM (VALUES (1), (2), (3))"
LONG = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) SELECT count(*) FROM n"
SLOW = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"  # has no end


@pytest.fixture
def limits() -> StoreLimits:
    return StoreLimits(read_timeout_ms=300)


async def _warm(bay: Bay, user: str) -> None:
    """Read once, so that the pages are in memory: what is short is done at once from now on."""
    await bay.store.read(user, count_images)


async def test_a_short_read_is_done_at_once_and_a_long_one_in_the_lane(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    threads: list[bool] = []

    def work(connection: apsw.Connection, sql: str = "SELECT count(*) FROM image") -> int:
        threads.append(threading.current_thread() is threading.main_thread())
        count: int = connection.execute(sql).get
        return count

    def long(connection: apsw.Connection) -> int:
        return work(connection, LONG)

    assert (await bay.store.read("ann", work)).value == 3
    assert threads == [False], "the first may have to wait for the disk"
    assert (await bay.store.read("ann", work)).value == 3
    assert (await bay.store.read("ann", work, long=True)).value == 3
    assert threads == [False, True, False]
    assert (await bay.store.read("ann", long)).value == 100_000
    assert threads[3:] == [True, False], "stopped on the loop, and done again"
    for _ in range(500):  # SQLite counts the steps of a statement over all of its runs
        assert (await bay.store.read("ann", work)).value == 3
    assert all(threads[5:105])


async def test_what_few_steps_make_too_large_is_made_in_the_lane(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await _warm(bay, "ann")
    threads: list[bool] = []

    def work(connection: apsw.Connection) -> int:
        threads.append(threading.current_thread() is threading.main_thread())
        length: int = connection.execute(LARGE).get
        return length

    for _ in range(2):
        assert (await bay.store.read("ann", work)).value > AT_ONCE_MAX_BYTES
    assert threads == [True, False] * 2
    assert (await bay.store.read("ann", count_images)).value == 3


async def test_who_reads_in_a_loop_lets_others_in(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await _warm(bay, "ann")
    passes = 0

    async def others() -> None:
        nonlocal passes
        while True:
            passes += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    for _ in range(1_000):
        await bay.store.read("ann", count_images)
    beside.cancel()
    assert passes > 1


async def test_a_read_after_a_sync_sees_it_whoever_reads_beside(bay: Bay) -> None:
    """I3: reads of one pass of the event loop share a transaction, but none that is older than what a caller knows."""
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    writing = True

    async def reader() -> None:
        while writing:
            await bay.store.read("ann", count_images)
            await asyncio.sleep(0)

    readers = [asyncio.create_task(reader()) for _ in range(2)]
    for round_ in range(30):
        await grow(bay.primary, "ann", 1)
        version = (await bay.store.sync("ann")).version
        reading = await bay.store.read("ann", count_images)
        assert (reading.version, reading.value) == (version, 4 + round_)
    writing = False
    await asyncio.gather(*readers)


async def test_a_read_before_which_a_sync_came_in_between_is_said_to_be_of_what_it_saw(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    checked, go_on, check = threading.Event(), threading.Event(), Replica.check

    def slow(replica: Replica) -> None:
        check(replica)
        checked.set()
        go_on.wait(20)

    monkeypatch.setattr(Replica, "check", slow)
    reading = asyncio.create_task(bay.store.read("ann", count_images, long=True))
    await asyncio.to_thread(checked.wait, 20)
    now = await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    go_on.set()
    found = await reading
    assert (found.version, found.value) == (now, 4)


async def test_reads_during_a_rebuild_see_the_old_file_or_the_new_one(bay: Bay) -> None:
    before = await grow(bay.primary, "ann", 200)
    await bay.store.sync("ann")
    after = await grow(bay.primary, "ann", 100)
    rebuilding = True

    async def reader() -> list[tuple[object, int]]:
        seen: list[tuple[object, int]] = []
        while rebuilding:
            reading = await bay.store.read("ann", count_images)
            seen.append((reading.version, reading.value))
        return seen

    readers = [asyncio.create_task(reader()) for _ in range(4)]
    for _ in range(5):
        await bay.store.rebuild("ann")
    rebuilding = False
    for seen in await asyncio.gather(*readers):
        assert {(before, 200), (after, 300)} >= {*seen}
        assert seen[-1] == (after, 300)
        assert seen == sorted(seen, key=lambda pair: pair[1]), "never backwards"


async def test_a_rebuild_that_cannot_be_done_leaves_what_there_is(bay: Bay) -> None:
    await grow(bay.primary, "ann", 5)
    await bay.store.sync("ann")
    bay.feed.away = True
    with pytest.raises(PrimaryUnavailable):
        await bay.store.rebuild("ann")
    assert (await bay.store.read("ann", count_images)).value == 5
    await bay.reopen()
    assert (await bay.store.read("ann", count_images)).value == 5


async def test_reads_while_changes_are_applied_see_whole_transactions(bay: Bay) -> None:
    await grow(bay.primary, "ann", 10)
    await bay.store.sync("ann")
    writing = True

    async def reader() -> list[int]:
        counts = []
        while writing:
            counts.append((await bay.store.read("ann", count_images)).value)
        return counts

    readers = [asyncio.create_task(reader()) for _ in range(3)]
    for _ in range(15):
        await grow(bay.primary, "ann", 10)
        await bay.store.sync("ann")
    writing = False
    for counts in await asyncio.gather(*readers):
        assert all(count % 10 == 0 for count in counts)
        assert counts == sorted(counts)


async def test_a_read_that_takes_too_long_is_stopped_and_the_next_is_well(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await _warm(bay, "ann")
    loop = asyncio.get_running_loop()
    for _ in range(2):
        begun = loop.time()
        slow = asyncio.create_task(bay.store.read("ann", lambda connection: connection.execute(SLOW).fetchone()))
        quick = asyncio.create_task(bay.store.read("ann", count_images))
        with pytest.raises(ReadTimeout) as raised:
            await slow
        assert raised.value.hint
        assert 0.25 < loop.time() - begun < 2
        assert (await quick).value == 3
        assert (await bay.store.read("ann", count_images)).value == 3
        await change(bay.primary, "ann")
        await bay.store.sync("ann")
        await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0


@pytest.mark.parametrize("long", [False, True])
@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO image SELECT * FROM image",
        "UPDATE _replica SET version = 0",
        "DELETE FROM image",
        "CREATE TABLE other (a)",
        "DROP TABLE image",
        "PRAGMA user_version = 3",
        "PRAGMA journal_mode = DELETE",
        "VACUUM",
    ],
)
async def test_a_read_cannot_write(bay: Bay, sql: str, long: bool) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await _warm(bay, "ann")
    for before in ("", "PRAGMA query_only = OFF"):

        def work(connection: apsw.Connection, before: str = before) -> object:
            connection.execute(before)
            return connection.execute(sql).fetchall()

        try:
            result = (await bay.store.read("ann", work, long=long)).value
        except apsw.Error:
            continue
        assert result in ([], [("wal",)]), "answered, and did nothing"
    await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0


@pytest.mark.parametrize("long", [False, True])
async def test_whatever_a_read_raises_is_raised_and_reading_goes_on(bay: Bay, long: bool) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await _warm(bay, "ann")

    def raising(error: BaseException) -> Callable[[apsw.Connection], None]:
        def work(connection: apsw.Connection) -> None:
            connection.execute("SELECT * FROM image").fetchone()
            raise error

        return work

    class Odd(BaseException):
        pass

    for error, expected in [
        (ValueError("no"), ValueError),
        (StopIteration(), RuntimeError),  # what next() on an empty result raises
        (asyncio.CancelledError(), asyncio.CancelledError),
        (Odd(), Odd),
        (apsw.SQLError("no such table: other"), apsw.SQLError),
    ]:
        async with asyncio.timeout(5):
            beside = asyncio.create_task(bay.store.read("ann", count_images))
            with pytest.raises(expected):
                await bay.store.read("ann", raising(error), long=long)
            assert (await beside).value == 3
            assert (await bay.store.read("ann", count_images)).value == 3
    with pytest.raises(apsw.SQLError, match="no such table"):
        await bay.store.read("ann", lambda connection: connection.execute("SELECT * FROM other"), long=long)
    await bay.store.read("ann", lambda connection: connection.execute("COMMIT").fetchall(), long=long)
    assert (await bay.store.read("ann", count_images)).value == 3


@pytest.mark.parametrize("raised", [False, True])
@pytest.mark.parametrize("long", [False, True])
async def test_a_cursor_that_a_read_keeps_does_not_keep_the_past(bay: Bay, long: bool, raised: bool) -> None:
    """I1: a cursor with rows to come holds the state that it saw; an error's traceback holds the cursor."""
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await _warm(bay, "ann")

    class Odd(Exception):
        pass

    def begin(connection: apsw.Connection) -> apsw.Cursor:
        cursor = connection.execute("SELECT id FROM image")
        cursor.fetchone()
        if raised:
            raise Odd
        return cursor

    kept: object = None
    try:
        kept = (await bay.store.read("ann", begin, long=long)).value
    except Odd as error:
        kept = error
    await grow(bay.primary, "ann", 2)
    synced = await bay.store.sync("ann")
    reading = await bay.store.read("ann", count_images)
    assert (reading.version, reading.value) == (synced.version, 5)
    assert kept is not None


async def test_the_lane_keeps_nothing_of_what_it_has_read(bay: Bay) -> None:
    class Much:
        pass

    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    given = weakref.ref((await bay.store.read("ann", lambda _: Much(), long=True)).value)
    async with asyncio.timeout(2):
        while given() is not None:
            await asyncio.sleep(0.01)


async def test_reads_that_nobody_waits_for_any_more_hold_nobody_up(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await _warm(bay, "ann")
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    runs = 0

    def slow(connection: apsw.Connection) -> None:
        nonlocal runs
        runs += 1
        loop.call_soon_threadsafe(begun.set)
        connection.execute(SLOW).fetchone()

    left = [asyncio.create_task(bay.store.read("ann", slow, long=True)) for _ in range(20)]
    await begun.wait()
    for task in left:
        task.cancel()
    await asyncio.wait(left)
    async with asyncio.timeout(2):  # of the 6 s that they would take
        assert (await bay.store.read("ann", count_images, long=True)).value == 3
    assert runs == 1


async def test_a_read_that_nobody_waits_for_any_more_is_stopped(primary: Primary, catalog: Catalog, feed: Feed) -> None:
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    told: list[object] = []
    loop.set_exception_handler(lambda _, context: told.append(context))

    def slow(connection: apsw.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        connection.execute(SLOW).fetchone()

    async with opened(primary, catalog, feed, StoreLimits(read_timeout_ms=60_000)) as bay:
        await grow(primary, "ann", 3)
        left = asyncio.create_task(bay.store.read("ann", slow, long=True))
        await begun.wait()
        left.cancel()
        async with asyncio.timeout(20):
            assert (await bay.store.read("ann", count_images, long=True)).value == 3
    assert not told, "nobody is told of what nobody waits for"


async def test_one_user_who_reads_long_and_much_lets_others_in_between(bay: Bay) -> None:
    for user in ("ann", "bob"):
        await grow(bay.primary, user, 3)
        await bay.store.sync(user)
    await _warm(bay, "ann")

    def slow(connection: apsw.Connection) -> None:
        connection.execute(SLOW).fetchone()

    crowd = [asyncio.create_task(bay.store.read("ann", slow, long=True)) for _ in range(10)]  # 3 s, one by one
    await asyncio.sleep(0.05)
    async with asyncio.timeout(1.5):
        assert (await bay.store.read("bob", count_images)).value == 3
    for task in crowd:
        task.cancel()
    await asyncio.wait(crowd)
