"""I2 and I4: wherever a sync ends too soon, the next makes the replica the primary's, and nothing half is ever read.

At each named point once by an error, and once by a SIGKILL of a process of its own.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
from pathlib import Path

import pytest

from primary.cursor import Cursor
from primary.write import writing
from replica import faults, stages
from replica.store import Store
from tests.support.bay import Bay
from tests.support.forked import forked
from tests.support.replicas import Rows, change, every_row, grow, truth

BUILD = [f"build.{name}" for name in ("created", "rows", "indexed", "finished", "durable", "renamed", "sealed")]
APPLY = [f"apply.{name}" for name in ("begun", "rows", "stated", "committed", "sealed")]
FINISH = ["finish.done"]
POINTS = [*BUILD, *APPLY, *FINISH]
ROWS = 60


State = tuple[Cursor, Rows]
"""Rows, and the cursor of which they are said to be."""


class Broken(Exception):
    """What a point raises, told from all that the engine raises itself."""


async def _state(bay: Bay) -> State:
    reading = await bay.store.read("ann", every_row(bay.catalog))
    return reading.version, reading.value


async def _primary_state(bay: Bay) -> State:
    async with writing(bay.primary, "ann") as write:
        cursor = await write.cursor()
    return cursor, await truth(bay.primary, bay.catalog, "ann")


async def _everything(bay: Bay) -> None:
    """Build, apply and finish."""
    await grow(bay.primary, "ann", ROWS)
    await bay.store.sync("ann")
    await _finished(bay)
    await change(bay.primary, "ann")
    await bay.store.sync("ann")


async def _finished(bay: Bay) -> None:
    async with asyncio.timeout(10):
        while "finish.done" not in bay.passed:
            await asyncio.sleep(0.001)


@pytest.fixture
def finish_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the last stage of every build for after it, as with many rows."""
    monkeypatch.setattr(stages, "FINISH_ROWS_MAX", 0)


async def test_the_points_that_are_declared_are_those_that_are_passed(bay: Bay, finish_later: None) -> None:
    await _everything(bay)
    declared = re.findall(r"\b[a-z]+\.[a-z]+\b", (faults.__doc__ or "").partition("last:")[2])
    assert sorted(declared) == sorted(POINTS)
    assert sorted(set(bay.passed)) == sorted(POINTS)
    assert [point for point in bay.passed if point in BUILD] == BUILD
    assert [point for point in bay.passed if point in APPLY] == APPLY


async def test_a_file_is_on_the_disk_before_it_gets_its_name_and_its_name_before_it_is_believed(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as a process can tell, whose own end loses nothing that was written: that of the machine does."""
    done: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        done.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    bay.passing = done.append
    await grow(bay.primary, "ann", ROWS)
    await bay.store.sync("ann")
    place = bay.directory.of("ann").database
    assert done[done.index("build.finished") :] == [
        "build.finished",
        str(bay.directory.building / place.name),
        "build.durable",
        "build.renamed",
        str(place.parent),
        "build.sealed",
    ]


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.parametrize("first", [True, False], ids=["first copy", "rebuild"])
async def test_a_step_that_fails_is_told_and_the_next_sync_makes_it_good(
    bay: Bay, monkeypatch: pytest.MonkeyPatch, point: str, first: bool
) -> None:
    await grow(bay.primary, "ann", ROWS)
    old: State | None = None
    if point in APPLY or not first:
        await bay.store.sync("ann")
        old = await _state(bay)
        await change(bay.primary, "ann")
    new = await _primary_state(bay)
    if point in FINISH:
        monkeypatch.setattr(stages, "FINISH_ROWS_MAX", 0)

    def passing(passed: str) -> None:
        if passed == point:
            raise Broken

    bay.passing = passing
    again = bay.store.sync if point in APPLY or first else bay.store.rebuild
    if point in FINISH:  # after the answer: nobody waits for it
        await again("ann")
        await _finished(bay)
    else:
        with pytest.raises(Broken):
            await again("ann")
    bay.passing = lambda passed: None
    assert not bay.left_behind()
    bay.feed.away = True
    try:
        found = await _state(bay)
    except Exception as error:  # noqa: BLE001 - whatever it was, it must say that the replica cannot be had now
        assert type(error).__name__ in {"PrimaryUnavailable", "ReplicaUnavailable"}  # noqa: PT017
    else:
        assert found in (old, new)
    bay.feed.away = False
    rebuilds = bay.store.counts().rebuilds
    await bay.store.sync("ann")
    await bay.assert_same("ann")
    assert point in BUILD or bay.store.counts().rebuilds == rebuilds, "what was rolled back is no doubt"
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    await bay.reopen()
    await bay.assert_same("ann")
    assert not bay.left_behind()


@pytest.mark.parametrize("point", POINTS)
async def test_a_process_killed_at_a_point_leaves_the_old_state_or_the_new_one(bay: Bay, point: str) -> None:
    await grow(bay.primary, "ann", ROWS)
    old: State | None = None
    if point in APPLY:
        await bay.store.sync("ann")
        await change(bay.primary, "ann")
        await bay.store.sync("ann")
        old = await _state(bay)
        with bay.log_kept("ann"):
            await bay.close()
        await change(bay.primary, "ann")
    else:
        await bay.close()
    new = await _primary_state(bay)
    orders = ["sync", "wait"] if point not in FINISH else ["finish later", "sync", "wait"]
    assert await bay.run_child("ann", *orders, crash_at=point) == -signal.SIGKILL
    await bay.open()
    assert not bay.left_behind(), "what was being built is swept"
    bay.feed.away = True
    try:
        found = await _state(bay)
    except Exception as error:  # noqa: BLE001 - see above
        assert type(error).__name__ in {"PrimaryUnavailable", "ReplicaUnavailable"}  # noqa: PT017
    else:
        assert found in (old, new)
    bay.feed.away = False
    assert await _state(bay) in (old, new)
    await bay.store.sync("ann")
    await bay.assert_same("ann")
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    await bay.reopen()
    await bay.assert_same("ann")


async def test_a_process_killed_while_idle_leaves_a_replica_that_is_believed(bay: Bay) -> None:
    """Its log was not taken into the file; the next process goes on from both, and need not ask the primary."""
    await grow(bay.primary, "ann", ROWS)
    await bay.store.sync("ann")
    await change(bay.primary, "ann")
    await bay.close()
    given = [str(bay.directory.root), bay.primary.url, "ann", "sync", "read", "wait"]
    child = await forked("tests.support.child", given, os.environ, stdout=True)
    assert child.stdout is not None
    async with asyncio.timeout(30):
        assert await child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    assert bay.directory.of("ann").wal.stat().st_size > 0
    await bay.open()
    bay.feed.away = True
    await bay.assert_same("ann")
    bay.feed.away = False
    assert (await bay.store.sync("ann")).applied == 0
    await change(bay.primary, "ann")
    assert not (await bay.store.sync("ann")).rebuilt
    await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0


async def test_a_log_without_its_file_is_not_taken_for_the_new_files(bay: Bay) -> None:
    """SQLite would put the frames of a log that it finds into whatever file lies beside it."""
    await grow(bay.primary, "ann", ROWS)
    await bay.store.sync("ann")
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    with bay.log_kept("ann"):
        await bay.close()
    location = bay.directory.of("ann")
    assert location.wal.stat().st_size > 0
    location.database.unlink()
    await change(bay.primary, "ann")
    await bay.open()
    await bay.assert_same("ann")


async def test_the_environment_says_where_to_die_and_nothing_else_does() -> None:
    assert faults.from_environment({}) is faults.undisturbed
    assert faults.from_environment({faults.CRASH_VARIABLE: ""}) is faults.undisturbed
    passing = faults.from_environment({faults.CRASH_VARIABLE: "build.created"})
    passing("build.rows")


async def test_a_sync_without_a_fault_passes_each_point_once(bay: Bay) -> None:
    await grow(bay.primary, "ann", ROWS)
    await bay.store.sync("ann")
    assert bay.passed == BUILD
    bay.passed.clear()
    await bay.store.sync("ann")
    assert bay.passed == []
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    assert bay.passed == APPLY
    assert isinstance(bay.store, Store)
