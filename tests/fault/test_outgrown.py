"""Where more rows come than a replica has, its indexes are made after them: nothing is missing meanwhile, or ever.

Searches wait for the full-text index; whatever breaks off in between is made up for.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import closing
from pathlib import Path

import apsw
import pytest
import sqlalchemy as sa

from primary.declaration import Catalog
from primary.gallery.tables import catalog as gallery
from primary.write import writing
from replica import replica as open_replica
from replica import stages
from replica.errors import Unfinished
from replica.gallery.finding import Finder
from replica.library import connect, execute_all
from replica.location import Location
from replica.replica import Replica
from replica.results import StoreLimits, SyncResult
from replica.schema import Schema
from tests.support import shapes
from tests.support.bay import Bay
from tests.support.replicas import change, grow

FEW, MANY = 40, 2_500
"""Images before, and those that come: more than are asked for at once (`PIPELINED_ROWS_MAX`)."""

_EVERY = {
    "edited": "UPDATE image SET prompt = 'verdant ' || prompt WHERE user_id = :user",
    "deleted": "DELETE FROM image WHERE user_id = :user",
}


@pytest.fixture(autouse=True)
def many_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "FINISH_ROWS_MAX", 1_000)


@pytest.fixture
def limits() -> StoreLimits:
    return StoreLimits(read_timeout_ms=5_000)


def _found(connection: apsw.Connection, word: str = "basalt") -> int:
    """Count what a search finds, in the way in which those of the gallery begin."""
    with closing(Finder(connection, word)):
        count: int = connection.execute("SELECT count(*) FROM image_fts WHERE image_fts MATCH ?", (word,)).get
        return count


def _schema(connection: apsw.Connection) -> set[tuple[str, str, str]]:
    return set(connection.execute("SELECT type, name, sql FROM sqlite_master"))


async def _few(bay: Bay) -> Replica:
    """Give ann a replica with few images."""
    await grow(bay.primary, "ann", FEW)
    await bay.store.sync("ann")
    replica = bay.store._slot("ann").replica
    assert replica is not None
    return replica


async def _held_up(bay: Bay, images: int) -> asyncio.Task[SyncResult]:
    """Begin a sync of so many more images, as `Bay.begun_sync` does."""
    await grow(bay.primary, "ann", images)
    return await bay.begun_sync("ann")


async def _finished(bay: Bay) -> None:
    """Wait for the last stage, to the end of its task: nothing is left of it some time before that."""
    slot = bay.store._slot("ann")
    while slot.finishing is not None and not slot.finishing.done():
        await asyncio.wait([slot.finishing])


async def _assert_whole(bay: Bay, images: int, word: str = "basalt") -> None:
    await bay.assert_same("ann")
    assert (await bay.store.read("ann", lambda it: _found(it, word), long=True)).value == images
    await _finished(bay)
    assert (await bay.store.read("ann", bay.store.schema.unfinished)).value == []
    await bay.close()
    with closing(connect(bay.directory.of("ann").uri("rw"))) as file:
        assert file.execute("PRAGMA integrity_check").get == "ok"
        file.execute("INSERT INTO image_fts (image_fts, rank) VALUES ('integrity-check', 1)")
    await bay.open()


async def test_rows_are_there_before_their_indexes_and_both_in_the_end(bay: Bay) -> None:
    await _few(bay)
    before = (await bay.store.read("ann", _schema)).value
    syncing = await _held_up(bay, MANY)
    async with bay.store._slot("ann").lock:
        result = await syncing
        assert (result.applied, result.rebuilt) == (MANY, False)
        left = (await bay.store.read("ann", bay.store.schema.unfinished)).value
        assert len(left) > 3
        await bay.assert_same("ann")
        plan = "EXPLAIN QUERY PLAN SELECT id FROM image ORDER BY created_at DESC, id DESC LIMIT 20"
        [step] = (await bay.store.read("ann", lambda it: [row[3] for row in it.execute(plan)])).value
        assert "USING" in step, "a first page is read at once"
        searching = asyncio.create_task(bay.store.read("ann", _found, long=True))
        done, _ = await asyncio.wait([searching], timeout=0.1)
        assert not done, "it waits for the full-text index"
    assert (await searching).value == FEW + MANY
    assert (await bay.store.read("ann", _schema)).value == before
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    await bay.assert_same("ann")


@pytest.mark.parametrize("what", _EVERY)
async def test_whatever_becomes_of_every_row(bay: Bay, what: str) -> None:
    await grow(bay.primary, "ann", MANY)
    await bay.store.sync("ann")
    await _finished(bay)
    bay.passed.clear()
    async with writing(bay.primary, "ann") as write:
        await write.execute(sa.text(_EVERY[what]), {"user": "ann"})
        await write.cursor()
    await bay.store.sync("ann")
    await _finished(bay)
    assert bay.passed[-1] == "finish.done"
    await _assert_whole(bay, MANY if what == "edited" else 0, "verdant" if what == "edited" else "basalt")


async def test_of_fewer_rows_than_are_there_the_indexes_are_kept(bay: Bay) -> None:
    await grow(bay.primary, "ann", MANY + FEW)
    await bay.store.sync("ann")
    await _finished(bay)
    await grow(bay.primary, "ann", MANY)
    bay.passed.clear()
    await bay.store.sync("ann")
    assert (await bay.store.read("ann", bay.store.schema.unfinished)).value == []
    await _assert_whole(bay, MANY * 2 + FEW)
    assert "finish.done" not in bay.passed


async def test_of_few_rows_the_indexes_are_kept_though_there_were_none(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "FINISH_ROWS_MAX", MANY)
    await bay.store.sync("ann")
    await grow(bay.primary, "ann", MANY)
    bay.passed.clear()
    await bay.store.sync("ann")
    await _assert_whole(bay, MANY)
    assert "finish.done" not in bay.passed


async def test_again_before_the_last_stage_was_made(bay: Bay) -> None:
    replica = await _few(bay)
    first = await _held_up(bay, MANY)
    async with bay.store._slot("ann").lock:
        await first
        await grow(bay.primary, "ann", 3 * MANY)
        async with bay.feed.pull("ann", replica.state.cursor, replica.state.position) as pull:
            await replica.sync(pull)  # what is next in the row would do so behind the last stage
    await _assert_whole(bay, FEW + 4 * MANY)


async def test_a_last_stage_that_fails_is_made_at_the_next_search_or_write(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = await _few(bay)

    async def fail() -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as failing:
        failing.setattr(replica, "finish", fail)
        await grow(bay.primary, "ann", MANY)
        await bay.store.sync("ann")
        await bay.assert_same("ann")
        with pytest.raises(Unfinished):
            await bay.store.read("ann", _found, long=True)
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    await _finished(bay)
    assert replica.unfinished == []
    await bay.assert_same("ann")

    with monkeypatch.context() as failing:
        failing.setattr(replica, "finish", fail)
        await grow(bay.primary, "ann", 2 * MANY)
        await bay.store.sync("ann")
        with pytest.raises(Unfinished):
            await bay.store.read("ann", _found, long=True)
    assert (await bay.store.read("ann", _found, long=True)).value >= 3 * MANY


async def test_a_log_that_cannot_be_cut_does_not_leave_what_was_made_to_be_made_again(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    replica = await _few(bay)
    failed = asyncio.Event()
    loop = asyncio.get_running_loop()

    def fail(_: apsw.Connection) -> None:
        loop.call_soon_threadsafe(failed.set)
        raise apsw.FullError("database or disk is full")

    with monkeypatch.context() as failing:
        failing.setattr(open_replica, "_cut_log", fail)
        await grow(bay.primary, "ann", MANY)
        await bay.store.sync("ann")
        await failed.wait()
        async with bay.store._slot("ann").lock:
            pass
    assert (await bay.store.read("ann", bay.store.schema.unfinished)).value == []
    assert replica.unfinished == []
    await _assert_whole(bay, FEW + MANY)


def test_a_log_that_is_cut_in_vain_leaves_the_connection_as_patient_as_it_was(tmp_path: Path) -> None:
    with closing(connect(Location(tmp_path / "some.db").uri("rwc"))) as connection:
        connection.execute("PRAGMA journal_mode=WAL").fetchall()
        patience = connection.execute("PRAGMA busy_timeout").get
        connection.execute("BEGIN; CREATE TABLE some (thing)")
        with pytest.raises(apsw.LockedError):
            open_replica._cut_log(connection)
        assert connection.execute("PRAGMA busy_timeout").get == patience > 0


async def test_a_search_waits_for_the_last_stage_of_what_is_built_meanwhile(bay: Bay) -> None:
    await _few(bay)
    syncing = await _held_up(bay, MANY)
    rebuilding = asyncio.create_task(bay.store.rebuild("ann"))  # behind the sync, and before its last stage
    await syncing
    searching = asyncio.create_task(bay.store.read("ann", _found, long=True))
    await rebuilding
    assert (await searching).value == FEW + MANY


async def test_a_search_does_not_wait_for_a_sync_behind_the_last_stage(bay: Bay) -> None:
    await _few(bay)
    slot = bay.store._slot("ann")
    syncing = await _held_up(bay, MANY)
    async with slot.lock:
        await syncing
        await asyncio.sleep(0)  # the last stage is next now
        bay.feed.gate.clear()
        waiting = asyncio.create_task(bay.store.sync("ann"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        searching = asyncio.create_task(bay.store.read("ann", _found, long=True))
        done, _ = await asyncio.wait([searching], timeout=0.1)
        assert not done
    async with asyncio.timeout(4):  # less than a read may take
        assert (await searching).value == FEW + MANY
    assert not waiting.done()
    bay.feed.gate.set()
    await waiting


async def test_a_search_waits_no_longer_than_a_read_may_take(bay: Bay, monkeypatch: pytest.MonkeyPatch) -> None:
    await _few(bay)
    monkeypatch.setattr(bay.store, "_limits", StoreLimits(read_timeout_ms=50))
    syncing = await _held_up(bay, MANY)
    async with bay.store._slot("ann").lock:
        await syncing
        with pytest.raises(Unfinished):
            await bay.store.read("ann", _found, long=True)
    await _assert_whole(bay, FEW + MANY)


@pytest.mark.parametrize("point", ["apply.rows", "apply.stated", "apply.committed", "apply.sealed", "finish.done"])
async def test_a_process_killed_at_a_point_leaves_what_can_be_made_whole(bay: Bay, point: str) -> None:
    await _few(bay)
    await grow(bay.primary, "ann", MANY)
    await bay.close()
    assert await bay.run_child("ann", "finish later", "sync", "wait", crash_at=point) == -signal.SIGKILL
    await bay.open()
    await bay.store.sync("ann")
    await _assert_whole(bay, FEW + MANY)


@pytest.mark.parametrize("catalog", [gallery, shapes.catalog], ids=["gallery", "shapes"])
def test_a_table_without_its_indexes_is_as_in_a_first_copy(catalog: Catalog) -> None:
    schema = Schema(catalog)
    with closing(connect(":memory:")) as first, closing(connect(":memory:")) as other:
        execute_all(first, [*schema.tables, *schema.keys, *schema.first])
        early = _schema(first)
        execute_all(first, schema.unfinished(first))
        late = _schema(first)
        execute_all(other, [*schema.tables, *schema.keys, *schema.unfinished(other)])
        assert _schema(other) == late
        for _ in range(2):  # the second time there is nothing to take away but what comes first
            for table in schema.catalog:
                execute_all(other, [*schema.without_indexes(table), *schema.first_of(table)])
            assert _schema(other) == early
        execute_all(other, schema.unfinished(other))
        assert _schema(other) == late


async def test_rows_of_a_table_that_is_not_declared_here_are_not_counted(bay: Bay) -> None:
    """A newer release may have given the primary one."""
    await bay.store.sync("ann")
    marks = (
        "INSERT INTO tidepool.change (user_id, table_name, row_key, version, deleted) "
        "SELECT :user, 'of_a_newer_release', ARRAY[i::text], version, false "
        "FROM tidepool.head, generate_series(1, :many) AS i WHERE user_id = :user"
    )
    await grow(bay.primary, "ann", FEW)
    async with bay.primary.transaction() as connection:
        await connection.execute(sa.text(marks), {"user": "ann", "many": MANY})
    await bay.store.sync("ann")
    await _assert_whole(bay, FEW)
