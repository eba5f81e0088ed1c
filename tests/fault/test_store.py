"""The store under load: callers that share, leave and crowd; many users; slow reads; strange names; an orderly end."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from primary.declaration import Catalog
from primary.errors import PrimaryUnavailable
from primary.feed import Feed
from primary.postgres import Primary
from replica.errors import DataDirectoryLocked, InvalidUser, ReadTimeout, ReplicaUnavailable
from replica.replica import Replica
from replica.results import Reading, StoreLimits
from replica.store import Store
from tests.support.bay import Bay, opened
from tests.support.replicas import change, grow, held, truth

LIMITS = StoreLimits(replica_open_max=8, sync_concurrency=3, read_timeout_ms=300)
SLOW = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"  # has no end


@pytest.fixture
async def bay(primary: Primary, catalog: Catalog, feed: Feed) -> AsyncIterator[Bay]:
    async with opened(primary, catalog, feed, LIMITS) as made:
        yield made


def _images(connection: sqlite3.Connection) -> int:
    count: int = connection.execute("SELECT count(*) FROM image").fetchone()[0]
    return count


def _open_files(folder: Path) -> list[str]:
    """List the files below a folder that this process has open."""
    return [path for link in Path("/proc/self/fd").iterdir() if (path := _target(link)).startswith(str(folder))]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


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
    readings = await asyncio.gather(*(bay.store.read("ann", _images) for _ in range(30)))
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
        reads = [asyncio.create_task(bay.store.read("ann", _images)) for _ in range(6)]
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
        assert (await bay.store.read("ann", _images)).value == 5
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
        assert (await bay.store.read(user, _images)).value == 3
        most_files = max(most_files, len(_open_files(bay.directory.root)))
        assert bay.store.counts().open_replicas <= LIMITS.replica_open_max
    for user in users[::7]:  # long evicted; the syncs of these also have a connection that writes
        await change(bay.primary, user, rows=1)
        await bay.store.sync(user)
        most_threads = max(most_threads, threading.active_count())
        most_files = max(most_files, len(_open_files(bay.directory.root)))
    assert bay.store.counts().rebuilds == 300, "an evicted replica is opened again, not built again"
    # Of each: the database and its log twice, and the log's index; and the lock. One more may be on its way.
    assert most_files <= (LIMITS.replica_open_max + 1) * 5 + 1
    assert most_threads <= threads + LIMITS.replica_open_max + 1 + 8, "a writing thread for each, and the pool's"
    await bay.assert_same(*users[:21])


@pytest.mark.parametrize("bound", [1, 2, 8])
async def test_more_readers_than_open_files_are_all_served(
    primary: Primary, catalog: Catalog, feed: Feed, bound: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And none is opened in vain, to be closed again before its reader came to read."""
    users = [f"user {n}" for n in range(40)]
    openings = 0
    connect = Replica.connect

    def counted(replica: Replica) -> sqlite3.Connection:
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
            counts = await asyncio.gather(*(bay.store.read(user, _images) for user in users for _ in range(2)))
            assert {reading.value for reading in counts} == {1}
            assert len(counts) == 80
        assert openings <= 3 * len(users)
        assert bay.store.counts().open_replicas <= bound


# ------------------------------------------------------------- reads


async def test_reads_during_a_rebuild_see_the_old_file_or_the_new_one(bay: Bay) -> None:
    before = await grow(bay.primary, "ann", 200)
    await bay.store.sync("ann")
    after = await grow(bay.primary, "ann", 100)
    seen: list[tuple[object, int]] = []
    rebuilding = True

    async def reader() -> None:
        while rebuilding:
            reading = await bay.store.read("ann", _images)
            seen.append((reading.version, reading.value))

    readers = [asyncio.create_task(reader()) for _ in range(4)]
    for _ in range(5):
        await bay.store.rebuild("ann")
    rebuilding = False
    await asyncio.gather(*readers)
    assert set(seen) == {(before, 200), (after, 300)}
    assert seen == sorted(seen, key=lambda pair: pair[1]), "never backwards"


async def test_a_rebuild_that_cannot_be_done_leaves_what_there_is(bay: Bay) -> None:
    await grow(bay.primary, "ann", 5)
    await bay.store.sync("ann")
    bay.feed.away = True
    with pytest.raises(PrimaryUnavailable):
        await bay.store.rebuild("ann")
    assert (await bay.store.read("ann", _images)).value == 5
    await bay.reopen()
    assert (await bay.store.read("ann", _images)).value == 5


async def test_reads_while_changes_are_applied_see_whole_transactions(bay: Bay) -> None:
    await grow(bay.primary, "ann", 10)
    await bay.store.sync("ann")
    counts: list[int] = []
    writing = True

    async def reader() -> None:
        while writing:
            counts.append((await bay.store.read("ann", _images)).value)

    readers = [asyncio.create_task(reader()) for _ in range(3)]
    for _ in range(15):
        await grow(bay.primary, "ann", 10)
        await bay.store.sync("ann")
    writing = False
    await asyncio.gather(*readers)
    assert all(count % 10 == 0 for count in counts)
    assert counts == sorted(counts)


async def test_a_read_that_takes_too_long_is_stopped_and_the_next_is_well(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    loop = asyncio.get_running_loop()
    for _ in range(2):
        begun = loop.time()
        slow = asyncio.create_task(bay.store.read("ann", lambda connection: connection.execute(SLOW).fetchone()))
        quick = asyncio.create_task(bay.store.read("ann", _images))
        with pytest.raises(ReadTimeout) as raised:
            await slow
        assert raised.value.hint
        assert 0.25 < loop.time() - begun < 2
        assert (await quick).value == 3
        assert (await bay.store.read("ann", _images)).value == 3
        await change(bay.primary, "ann")
        await bay.store.sync("ann")
        await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0


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
async def test_a_read_cannot_write(bay: Bay, sql: str) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    for before in ("", "PRAGMA query_only = OFF"):

        def work(connection: sqlite3.Connection, before: str = before) -> object:
            connection.execute(before)
            return connection.execute(sql).fetchall()

        try:
            result = (await bay.store.read("ann", work)).value
        except sqlite3.OperationalError:
            continue
        assert result in ([], [("wal",)]), "answered, and did nothing"
    await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0


async def test_whatever_a_read_raises_is_raised_and_the_lane_goes_on(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")

    def raising(error: BaseException) -> Callable[[sqlite3.Connection], None]:
        def work(connection: sqlite3.Connection) -> None:
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
        (sqlite3.OperationalError("no such table: other"), sqlite3.OperationalError),
    ]:
        async with asyncio.timeout(5):
            beside = asyncio.create_task(bay.store.read("ann", _images))
            with pytest.raises(expected):
                await bay.store.read("ann", raising(error))
            assert (await beside).value == 3
            assert (await bay.store.read("ann", _images)).value == 3
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        await bay.store.read("ann", lambda connection: connection.execute("SELECT * FROM other"))
    await bay.store.read("ann", lambda connection: connection.execute("COMMIT").fetchall())
    assert (await bay.store.read("ann", _images)).value == 3


# ------------------------------------------------------------- one process, one directory


async def test_a_second_store_on_the_directory_is_refused_by_the_number_of_the_first(bay: Bay) -> None:
    second = Store(bay.directory.root, bay.catalog, bay.feed)
    with pytest.raises(DataDirectoryLocked, match=rf"\(pid {os.getpid()}\)") as raised:
        await second.open()
    assert raised.value.hint
    await grow(bay.primary, "ann", 3)
    await bay.assert_same("ann")
    await bay.close()
    await second.open()
    await second.close()
    await bay.open()


def test_a_second_process_on_the_directory_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    hold = (
        "import sys, pathlib; from replica.datadir import Ownership; Ownership(pathlib.Path(sys.argv[1])).take(); "
        "print('taken', flush=True); sys.stdin.read()"
    )
    order = [sys.executable, "-c", hold, str(tmp_path / "lock")]
    with subprocess.Popen(order, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "taken\n"
        second = subprocess.run(order, capture_output=True, text=True, timeout=20, input="")
        assert second.returncode == 1
        assert f"(pid {first.pid})" in second.stderr
        first.kill()
    assert subprocess.run(order, capture_output=True, text=True, timeout=20, input="").returncode == 0


async def test_a_store_that_cannot_be_opened_does_not_keep_the_directory(bay: Bay, tmp_path: Path) -> None:
    (tmp_path / "building").write_text("in the way")
    store = Store(tmp_path, bay.catalog, bay.feed)
    with pytest.raises(OSError, match="building"):
        await store.open()
    (tmp_path / "building").unlink()
    await store.open()
    await store.close()


# ------------------------------------------------------------- the end


async def test_closing_under_load_is_orderly(bay: Bay) -> None:
    users = [f"user {n}" for n in range(6)]
    for user in users:
        await grow(bay.primary, user, 30)
        await bay.store.sync(user)
    threads = set(threading.enumerate())
    refused = asyncio.Event()
    worked = 0

    async def client(user: str) -> None:
        nonlocal worked
        while True:
            try:
                await change(bay.primary, user, rows=1)
                await bay.store.sync(user)
                await bay.store.read(user, _images)
                worked += 1
            except ReplicaUnavailable:
                refused.set()
                return

    clients = [asyncio.create_task(client(user)) for user in users for _ in range(2)]
    while worked < 10:
        await asyncio.sleep(0.005)
    async with asyncio.timeout(20):
        await bay.close()
    assert not _open_files(bay.directory.root)
    left = [thread for thread in set(threading.enumerate()) - threads if not thread.name.startswith("asyncio_")]
    for thread in left:  # one that has answered its last call may still be on its way out
        thread.join(5)
    assert not [thread.name for thread in left if thread.is_alive()]
    assert not any(thread.name.startswith("reads-") for thread in threading.enumerate())
    assert not [*bay.directory.replicas.rglob("*-wal")], "every log was taken in"
    async with asyncio.timeout(20):
        await asyncio.gather(*clients)
    assert refused.is_set()
    await bay.open()
    for user in users:
        await bay.store.sync(user)
    await bay.assert_same(*users)
    assert bay.store.counts().doubts == 0
    assert bay.store.counts().rebuilds == 0


async def test_a_store_that_is_closed_refuses_and_does_not_hang(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await bay.close()
    async with asyncio.timeout(5):
        for asked in (
            bay.store.read("ann", _images),
            bay.store.sync("ann"),
            bay.store.cursor("ann"),
            bay.store.rebuild("bob"),
            bay.store.describe("ann"),
        ):
            with pytest.raises(ReplicaUnavailable):
                await asked
    await bay.open()


async def test_closing_does_not_wait_for_a_primary_that_does_not_answer(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    bay.feed.gate.clear()
    waiting = asyncio.create_task(bay.store.sync("ann"))
    await bay.feed.looked(1)
    async with asyncio.timeout(5):
        await bay.close()
        with pytest.raises(ReplicaUnavailable):
            await waiting
    assert not bay.left_behind()
    bay.feed.gate.set()
    await bay.open()
    await bay.assert_same("ann")


# ------------------------------------------------------------- names


STRANGE = [
    "../../etc/passwd",
    "/etc/passwd",
    "a/b",
    "..",
    ".",
    "%00",
    "\U0001f30a" * 255,
    "' OR 1=1 --",
    '"; DROP TABLE image; --',
    " ",
    "\t\n",
    "\u00e9",
    "e\u0301",
    "Ann",
    "ann",
    "CON",
    "a" * 255,
    "\u202egnp.exe",
    "-rf *",
    "{user}",
    "\x7f",
]


async def test_any_text_is_a_user_of_its_own(bay: Bay) -> None:
    for place, user in enumerate(STRANGE):
        await grow(bay.primary, user, place % 4 + 1, tag=f"of {place}")
    for user in STRANGE:
        await bay.store.sync(user)
        await change(bay.primary, user, rows=1, tag="other")
        await bay.store.sync(user)
    await bay.assert_same(*STRANGE)
    files = [path for path in bay.directory.root.parent.rglob("*") if path.is_file()]
    assert {path.parent.parent.parent for path in files if path.suffix == ".db"} == {bay.directory.replicas}
    assert len([path for path in files if path.suffix == ".db"]) == len(STRANGE)
    assert all(len(path.name) < 80 and path.name.isascii() for path in files)


@pytest.mark.parametrize("user", ["", "a" * 256, "a\0b", "\0", "\ud800", "a\udfffb", "\U0001f30a" * 256])
async def test_what_is_no_text_of_1_to_255_characters_is_no_user(bay: Bay, user: str) -> None:
    for asked in (bay.store.read(user, _images), bay.store.sync(user), bay.store.cursor(user), bay.store.rebuild(user)):
        with pytest.raises(InvalidUser) as raised:
            await asked
        assert user == "" or user not in str(raised.value)
    assert not [*bay.directory.replicas.iterdir()]


async def test_nobody_reads_anothers_rows(bay: Bay) -> None:
    for user in ("ann", "bob"):
        await grow(bay.primary, user, 4, tag=user)
    found = await asyncio.gather(*(held(bay.store, user) for user in ["ann", "bob"] * 10))
    expected = [await truth(bay.primary, bay.catalog, user) for user in ("ann", "bob")]
    assert found == expected * 10
