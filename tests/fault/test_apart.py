"""I1, I4: a long read apart from all others sees one state to its end, or is begun anew; and it stands in nobody's way.

What it left nobody finds: not in the data directory, and not among the open files.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from primary.declaration import Catalog
from primary.feed import Feed
from primary.postgres import Primary
from replica import stages
from replica.apart import SOURCE
from replica.errors import ReadTimeout, ReplicaUnavailable
from replica.results import Reading, StoreLimits
from replica.state import State
from tests.support.bay import Bay, opened
from tests.support.damages import TICK_S, flip
from tests.support.open_files import open_files
from tests.support.replicas import change, grow, grow_all, held

SLOW = "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"  # has no end


@pytest.fixture
async def bay(bay: Bay) -> Bay:
    await grow(bay.primary, "ann", 5)
    await bay.store.sync("ann")
    return bay


class Counted:
    """How many images were seen."""

    def __init__(self, images: int) -> None:
        self.images = images
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Slow:
    """A work that counts images, waits to be let go on, and counts again."""

    def __init__(self) -> None:
        self.runs = 0
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.given: list[Counted] = []

    def __call__(self, connection: apsw.Connection, state: State, folder: Path) -> Counted:
        self.runs += 1
        before = _images(connection)
        (folder / "some file").write_text("of mine")
        self.begun.set()
        assert self.go_on.wait(20)
        assert _images(connection) == before, "one state from beginning to end"
        self.given.append(Counted(before))
        return self.given[-1]

    async def started(self) -> None:
        await asyncio.to_thread(self.begun.wait, 20)


def _images(connection: apsw.Connection) -> int:
    count: int = connection.execute(f"SELECT count(*) FROM {SOURCE}.image").get
    return count


def endless(connection: apsw.Connection, state: State, folder: Path) -> Counted:
    return Counted(connection.execute(SLOW).get)


@contextlib.contextmanager
def nothing_left(bay: Bay) -> Iterator[None]:
    yield
    assert not bay.left_behind()
    assert not [*bay.directory.apart.iterdir()]
    assert not open_files(bay.directory.apart)
    for thread in threading.enumerate():
        if thread.name == "apart":
            thread.join(1)  # it has told its end, and is about to
            assert not thread.is_alive()


async def test_reads_and_syncs_go_on_beside_it_and_it_sees_nothing_of_them(bay: Bay) -> None:
    slow = Slow()
    reading = asyncio.create_task(bay.store.read_apart("ann", slow))
    await slow.started()
    before = await bay.store.cursor("ann")
    for _ in range(3):
        await change(bay.primary, "ann")
        assert (await bay.store.sync("ann")).applied
        await bay.assert_same("ann")
    slow.go_on.set()
    found = await reading
    assert (found.version, found.value.images) == (before, 5)
    assert await bay.store.cursor("ann") > before


async def test_a_replica_that_is_rebuilt_meanwhile_is_read_once_more(bay: Bay) -> None:
    slow = Slow()
    with nothing_left(bay):
        reading = asyncio.create_task(bay.store.read_apart("ann", slow))
        await slow.started()
        await grow(bay.primary, "ann", 2)
        rebuilt = await bay.store.rebuild("ann")  # which nobody keeps from coming to its end
        slow.go_on.set()
        found = await reading
        assert (found.version, found.value.images, found.value.closed) == (rebuilt.version, 7, False)
        assert [(each.images, each.closed) for each in slow.given] == [(5, True), (7, False)]
    assert bay.store.counts().doubts == 0, "the new file is good"


async def test_what_was_read_of_a_file_that_somebody_changed_is_thrown_away(bay: Bay) -> None:
    slow = Slow()
    with nothing_left(bay):
        reading = asyncio.create_task(bay.store.read_apart("ann", slow))
        await slow.started()
        time.sleep(2 * TICK_S)
        flip(bay.directory.of("ann").database, 9_000)
        slow.go_on.set()
        assert (await reading).value.images == 5
        assert slow.runs == 2
    assert bay.store.counts().doubts == 1
    await bay.assert_same("ann")


async def test_a_file_that_is_set_aside_meanwhile_is_read_anew(bay: Bay) -> None:
    slow = Slow()
    reading = asyncio.create_task(bay.store.read_apart("ann", slow))
    await slow.started()
    time.sleep(2 * TICK_S)
    flip(bay.directory.of("ann").database, 9_000)
    await held(bay.store, "ann")  # finds it, and has it rebuilt
    slow.go_on.set()
    assert ((await reading).value.images, slow.runs) == (5, 2)
    assert bay.store.counts().doubts == 1


async def test_a_file_that_was_changed_before_is_not_read_at_all(bay: Bay) -> None:
    time.sleep(2 * TICK_S)
    flip(bay.directory.of("ann").database, 9_000)
    slow = Slow()
    slow.go_on.set()
    assert ((await bay.store.read_apart("ann", slow)).value.images, slow.runs) == (5, 1)
    assert bay.store.counts().doubts == 1


async def test_a_replica_is_open_for_as_long_as_it_is_read_apart_and_the_bound_holds_again_then(
    primary: Primary, catalog: Catalog, feed: Feed
) -> None:
    works = {"ann": Slow(), "bob": Slow()}
    async with opened(primary, catalog, feed, StoreLimits(replica_open_max=1)) as bay:
        await grow_all(primary, [*works, "cat"], 3)
        readings = [asyncio.create_task(bay.store.read_apart(user, work)) for user, work in works.items()]
        for work in works.values():
            await work.started()
        await bay.store.cursor("cat")  # would have the others closed
        await _closed(bay, but=2)
        for user, work in works.items():
            await change(primary, user)
            await bay.store.sync(user)
            work.go_on.set()
        await asyncio.gather(*readings)
        assert [work.runs for work in works.values()] == [1, 1], "what is written by the same replica is no doubt"
        await _closed(bay, but=1)


async def _closed(bay: Bay, *, but: int) -> None:
    async with asyncio.timeout(10):
        while bay.store.counts().open_replicas > but:
            await asyncio.sleep(0.001)


async def test_a_hundred_of_them_leave_no_file_open(bay: Bay) -> None:
    slow = Slow()
    slow.go_on.set()
    await bay.store.read_apart("ann", slow)
    before = len(open_files(bay.directory.root))
    with nothing_left(bay):
        for _ in range(100):
            await bay.store.read_apart("ann", slow)
    # SQLite closes a file a little later where another connection has a lock on it.
    assert len(open_files(bay.directory.root)) <= before + 2


async def test_who_has_no_replica_gets_one(bay: Bay) -> None:
    slow = Slow()
    slow.go_on.set()
    found = await bay.store.read_apart("nobody yet", slow)
    assert (found.value.images, found.version.version) == (0, 0)


@pytest.mark.parametrize("when", ["in SQLite", "in Python"])
async def test_whoever_is_cancelled_leaves_nothing(bay: Bay, when: str) -> None:
    slow = Slow()
    with nothing_left(bay):
        reading: asyncio.Task[Reading[Counted]]
        reading = asyncio.create_task(bay.store.read_apart("ann", endless if when == "in SQLite" else slow))
        if when == "in Python":
            await slow.started()
            asyncio.get_running_loop().call_later(0.05, slow.go_on.set)
        else:
            await asyncio.sleep(0.05)
        reading.cancel()
        began = time.monotonic()
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert time.monotonic() - began < 1
        await asyncio.sleep(0)
        assert all(each.closed for each in slow.given)
        assert len(slow.given) == slow.runs
    await bay.assert_same("ann")


async def test_closing_the_store_ends_it(bay: Bay) -> None:
    reading = asyncio.create_task(bay.store.read_apart("ann", endless))
    await asyncio.sleep(0.05)
    began = time.monotonic()
    await bay.close()
    assert time.monotonic() - began < 2
    with pytest.raises(ReplicaUnavailable, match="stopping"):
        await reading
    assert not bay.left_behind()
    assert not open_files(bay.directory.root)
    await bay.open()
    bay.feed.away = True
    await bay.assert_same("ann")


async def test_it_may_take_only_so_long(bay: Bay) -> None:
    await bay.close()
    bay.limits = type(bay.limits)(apart_timeout_s=0.1)
    await bay.open()
    await bay.store.sync("ann")
    with nothing_left(bay), pytest.raises(ReadTimeout):
        await bay.store.read_apart("ann", endless)
    await bay.assert_same("ann")


@pytest.mark.parametrize("error", [ValueError("mine"), apsw.Error("wrong")])
async def test_whatever_it_raises_is_raised_and_reading_goes_on(bay: Bay, error: BaseException) -> None:
    def raising(*_: Any) -> Counted:
        raise error

    with nothing_left(bay), pytest.raises(type(error)):
        await bay.store.read_apart("ann", raising)
    await bay.assert_same("ann")


async def test_what_it_writes_to_the_replica_is_refused(bay: Bay) -> None:
    def writing(connection: apsw.Connection, state: State, folder: Path) -> Counted:
        connection.execute("CREATE TABLE of_my_own (a)")  # goes into a file that is removed
        connection.execute(f"DELETE FROM {SOURCE}.image")
        return Counted(0)

    with nothing_left(bay), pytest.raises(apsw.ReadOnlyError):
        await bay.store.read_apart("ann", writing)
    await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0


async def test_what_a_killed_process_left_is_gone_at_the_next_start(bay: Bay) -> None:
    left = bay.directory.apart / "7"
    await bay.close()
    left.mkdir()
    (left / "own.db").write_text("half of an export")
    await bay.open()
    assert not left.exists()


async def test_the_last_stage_of_a_build_does_not_wait_for_it(bay: Bay, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cutting the log down to nothing would wait for every reader, and whoever syncs would wait for that."""
    monkeypatch.setattr(stages, "FINISH_ROWS_MAX", 0)
    slow = Slow()
    await grow(bay.primary, "bob", 100)
    slot = bay.store._slot("bob")
    building = await bay.begun_sync("bob")
    async with slot.lock:  # behind the build, and before its last stage
        await building
        reading = asyncio.create_task(bay.store.read_apart("bob", slow))
        await slow.started()
        assert "finish.done" not in bay.passed
    await change(bay.primary, "bob")
    began = time.monotonic()
    await bay.store.sync("bob")
    assert time.monotonic() - began < 2
    assert "finish.done" in bay.passed
    slow.go_on.set()
    assert (await reading).value.images == 100
