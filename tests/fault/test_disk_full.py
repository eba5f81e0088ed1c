"""I4 and I6: a disk without room costs freshness, never a replica: what there was is read on, until there is room.

Once on a file system that is really full, where one may be mounted; once under a limit on the size of files, which
SQLite meets as a failing disk; once without file descriptors; and once as if there were no memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import apsw
import pytest

from primary.declaration import Catalog
from primary.errors import PrimaryUnavailable
from primary.feed import Feed
from primary.postgres import Primary
from replica import library, seal, stages
from replica.errors import ReplicaUnavailable
from replica.export import FORMATS, Format, export
from replica.replica import Replica
from replica.state import State
from replica.writer import WRITE_PRAGMAS, Writer
from tests.support.bay import Bay, opened
from tests.support.replicas import Rows, change, count_images, grow, held, truth

ROWS = 300
SOME = 1_500
MANY = 8_000


class Disk:
    """A disk that can be filled, but for a few bytes."""

    def fill(self, leave_bytes: int = 0) -> None:
        raise NotImplementedError

    def free(self) -> None:
        raise NotImplementedError


class SmallDisk(Disk):
    """A real one, of a few MB in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def fill(self, leave_bytes: int = 0) -> None:
        with self._ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(4096))
        if leave_bytes:
            os.truncate(self._ballast, max(0, self._ballast.stat().st_size - leave_bytes))

    def free(self) -> None:
        self._ballast.unlink(missing_ok=True)


class SmallFiles(Disk):
    """A limit on the size of each file that this process writes."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, leave_bytes: int = 0) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._bytes_max, self._before[1]))

    def free(self) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, self._before)


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("small")
    order = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    try:
        subprocess.run(order, check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system may not be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=10)


@pytest.fixture(params=["full disk", "file size limit"])
def disk(request: pytest.FixtureRequest) -> Iterator[Disk]:
    full = request.param == "full disk"
    made = SmallDisk(request.getfixturevalue("mounted")) if full else SmallFiles(64 * 1024)
    try:
        yield made
    finally:
        made.free()


@pytest.fixture
async def bay(primary: Primary, catalog: Catalog, feed: Feed, request: pytest.FixtureRequest) -> AsyncIterator[Bay]:
    disk = request.getfixturevalue("disk") if "disk" in request.fixturenames else None
    folder = disk.folder if isinstance(disk, SmallDisk) else None
    async with opened(primary, catalog, feed, folder=folder) as made:
        await grow(primary, "ann", ROWS)
        await made.store.sync("ann")
        try:
            yield made
        finally:
            if disk is not None:
                disk.free()


def _assert_clear(error: ReplicaUnavailable) -> None:
    assert "room" in error.hint
    assert str(error).startswith("the replica cannot be ")


async def test_a_first_copy_without_room_is_refused_and_disturbs_nobody(bay: Bay, disk: Disk) -> None:
    await grow(bay.primary, "bob", MANY)
    disk.fill()
    for asked in (bay.store.sync, bay.store.cursor, bay.store.describe):
        with pytest.raises(ReplicaUnavailable) as raised:
            await asked("bob")
        _assert_clear(raised.value)
        assert not bay.left_behind()
        await bay.assert_same("ann")
    disk.free()
    await bay.store.sync("bob")
    await bay.assert_same("ann", "bob")
    assert bay.store.counts().doubts == 0


async def test_a_rebuild_without_room_leaves_the_old_replica(bay: Bay, disk: Disk) -> None:
    disk.fill()
    with pytest.raises(ReplicaUnavailable) as raised:
        await bay.store.rebuild("ann")
    _assert_clear(raised.value)
    await bay.assert_same("ann")
    disk.free()
    await bay.reopen()
    bay.feed.away = True
    await bay.assert_same("ann")


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
async def test_an_export_without_room_is_refused_and_disturbs_nobody(bay: Bay, disk: Disk, form: Format) -> None:
    await grow(bay.primary, "bob", SOME)
    await bay.store.sync("bob")
    disk.fill()
    for _ in range(2):
        with pytest.raises(ReplicaUnavailable) as raised:
            await export(bay.store, "bob", form)
        _assert_clear(raised.value)
        assert not bay.left_behind()
        await bay.assert_same("ann")
    disk.free()
    whole = await export(bay.store, "bob", form)
    whole.close()
    assert whole.rows == SOME
    assert bay.store.counts().doubts == 0


async def test_changes_without_room_leave_the_old_state(bay: Bay, disk: Disk) -> None:
    old = await held(bay.store, "ann")
    await grow(bay.primary, "ann", MANY)
    for _ in range(2):
        disk.fill()
        for _ in range(2):
            with pytest.raises(ReplicaUnavailable) as raised:
                await bay.store.sync("ann")
            _assert_clear(raised.value)
            assert await held(bay.store, "ann") == old
        disk.free()
        await bay.reopen()
        assert await held(bay.store, "ann") == old
    assert bay.store.counts().doubts == 0
    assert not (await bay.store.sync("ann")).rebuilt
    await bay.assert_same("ann")


@pytest.mark.parametrize(
    "point", ["build.created", "build.rows", "build.indexed", "build.finished", "build.durable", "build.renamed"]
)
async def test_a_disk_that_is_full_at_any_point_of_a_build_leaves_the_old_or_the_new(
    bay: Bay, disk: Disk, point: str
) -> None:
    old = await held(bay.store, "ann")
    await change(bay.primary, "ann")
    new = await truth(bay.primary, bay.catalog, "ann")
    await grow(bay.primary, "bob", ROWS)
    bay.passing = lambda passed: disk.fill() if passed == point else None
    for user, asked in (("ann", bay.store.rebuild), ("bob", bay.store.sync)):
        with contextlib.suppress(ReplicaUnavailable):
            await asked(user)
        found = await _rows_or_none(bay, "ann")
        # Once it is in its place, opening the new file takes room that a disk may not have: then nothing is read.
        assert found in (old, new) or (found is None and point == "build.renamed")
        assert not bay.left_behind()
        disk.free()
    bay.passing = lambda passed: None
    await bay.store.sync("ann")
    await bay.store.sync("bob")
    await bay.assert_same("ann", "bob")


@pytest.mark.parametrize("point", ["apply.begun", "apply.rows", "apply.stated", "apply.committed", "apply.sealed"])
async def test_a_disk_that_is_full_at_any_point_of_a_sync_leaves_the_old_or_the_new(
    bay: Bay, disk: Disk, point: str
) -> None:
    old = await held(bay.store, "ann")
    await change(bay.primary, "ann")
    new = await truth(bay.primary, bay.catalog, "ann")
    bay.passing = lambda passed: disk.fill() if passed == point else None
    with contextlib.suppress(ReplicaUnavailable):
        await bay.store.sync("ann")
    assert await held(bay.store, "ann") in (old, new)
    bay.passing = lambda passed: None
    disk.free()
    await bay.store.sync("ann")
    assert await held(bay.store, "ann") == new
    await bay.reopen()
    bay.feed.away = True
    assert await held(bay.store, "ann") == new, "sealed, though there was no room"
    assert bay.store.counts().rebuilds == bay.store.counts().doubts == 0


async def _rows_or_none(bay: Bay, user: str) -> Rows | None:
    try:
        return await held(bay.store, user)
    except (ReplicaUnavailable, PrimaryUnavailable):
        return None


async def test_a_last_stage_without_room_is_made_up_for_later(
    bay: Bay, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stages, "FINISH_ROWS_MAX", 0)
    await grow(bay.primary, "bob", 1_000)
    bay.passing = lambda passed: disk.fill(leave_bytes=200_000) if passed == "build.sealed" else None
    await bay.store.sync("bob")
    bay.passing = lambda passed: None
    await bay.close()  # waits for the last stage
    assert "finish.done" not in bay.passed
    disk.free()
    await bay.open()
    bay.feed.away = True
    await bay.assert_same("bob")
    async with asyncio.timeout(10):
        while "finish.done" not in bay.passed:
            await asyncio.sleep(0.001)
    match = "SELECT count(*) FROM image_fts WHERE image_fts MATCH 'basalt'"
    assert (await bay.store.read("bob", lambda connection: connection.execute(match).fetchone())).value == (1_000,)
    assert bay.store.counts().doubts == 0


@pytest.mark.parametrize("disk", ["full disk"], indirect=True)
async def test_a_full_disk_does_not_condemn_what_it_keeps_from_being_opened(bay: Bay, disk: Disk) -> None:
    """Reading a closed replica makes files beside it; where there is no room for those, the replica must wait."""
    await bay.close()
    disk.fill()
    await bay.open()
    bay.feed.away = True
    expected = await truth(bay.primary, bay.catalog, "ann")
    assert await _rows_or_none(bay, "ann") in (expected, None)
    disk.free()
    assert await held(bay.store, "ann") == expected
    assert bay.store.counts().doubts == 0


async def test_a_seal_that_cannot_be_written_is_told_and_made_good(bay: Bay, monkeypatch: pytest.MonkeyPatch) -> None:
    await change(bay.primary, "ann")
    with monkeypatch.context() as patched:

        def write(*_: object) -> None:
            raise OSError(5, "Input/output error")

        patched.setattr(seal, "write", write)
        with pytest.raises(ReplicaUnavailable) as raised:
            await bay.store.sync("ann")
        _assert_clear(raised.value)
        await bay.assert_same("ann")
    await bay.reopen()
    await bay.assert_same("ann")
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    await bay.assert_same("ann")


@pytest.mark.parametrize("what", ["the file", "the log's index"])
async def test_what_was_opened_while_the_disk_was_read_only_is_not_kept_when_it_is_so_no_more(
    bay: Bay, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """What SQLite may not open for writing it opens for reading, and says nothing of it."""
    location = bay.directory.of("ann")
    await bay.close()
    location.shm.touch()  # else there would be nothing to be opened for reading
    await bay.open()
    with monkeypatch.context() as patched:
        if what == "the file":
            patched.setattr(Replica, "_open_writer", lambda self: Writer.open(self.location.uri("ro"), *WRITE_PRAGMAS))
        else:
            patched.setattr(
                "replica.replica.connect", lambda uri, **told: library.connect(f"{uri}&readonly_shm=1", **told)
            )
        await bay.assert_same("ann")
        await change(bay.primary, "ann")
        with pytest.raises(ReplicaUnavailable, match="readonly"):
            await bay.store.sync("ann")
    assert (await bay.store.read("ann", count_images)).value == ROWS
    await bay.store.sync("ann")
    await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0


@pytest.mark.parametrize("point", ["apply.committed", "apply.sealed", "build.renamed", "build.sealed"])
async def test_who_listens_is_told_of_a_state_that_was_reached_by_a_sync_that_failed(bay: Bay, point: str) -> None:
    """The next sync finds nothing new, and so would tell nobody."""
    asked = bay.store.sync if point.startswith("apply") else bay.store.rebuild
    reached = await change(bay.primary, "ann")

    def fail(passed: str) -> None:
        if passed == point:
            raise OSError(errno.EMFILE, "Too many open files")

    with bay.store.advances.watch("ann") as watch:
        bay.passing = fail
        with pytest.raises(ReplicaUnavailable):
            await asked("ann")
        bay.passing = lambda passed: None
        assert (await bay.store.sync("ann", at_least=reached)).version == reached
        assert watch.cursor == reached
        assert await watch.changed(within_s=0)
    await bay.assert_same("ann")


async def test_who_listens_is_not_told_of_a_state_whose_file_did_not_come_into_its_place(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would read again, find what was there before, and not be told when it is there: for them nothing is new."""
    before = await bay.store.cursor("ann")
    reached = await change(bay.primary, "ann")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with bay.store.advances.watch("ann") as watch:
        with monkeypatch.context() as patched:
            patched.setattr("replica.syncing.publish", fail)
            with pytest.raises(ReplicaUnavailable):
                await bay.store.rebuild("ann")
        assert await bay.store.cursor("ann") == before
        assert not await watch.changed(within_s=0)
        await bay.store.sync("ann")
        assert watch.cursor == reached
    await bay.assert_same("ann")


async def test_a_process_out_of_file_descriptors_condemns_no_replica(bay: Bay) -> None:
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    with bay.log_kept("ann"):
        await bay.close()
    await bay.open()
    bay.feed.away = True
    expected = await truth(bay.primary, bay.catalog, "ann")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    for spare in range(4):
        used = max(int(path.name) for path in Path("/proc/self/fd").iterdir()) + 1
        files: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (used + 64, before[1]))
        try:
            with contextlib.suppress(OSError):
                while True:
                    files.append(os.open("/dev/null", os.O_RDONLY))
            for _ in range(spare):
                os.close(files.pop())
            try:
                found = (await bay.store.read("ann", count_images)).value
            except ReplicaUnavailable as error:
                _assert_clear(error)
            else:
                assert found == sum(expected["image"].values())
        finally:
            for descriptor in files:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert await held(bay.store, "ann") == expected
        await bay.reopen()
    assert bay.store.counts().doubts == 0


@pytest.mark.parametrize("code", [apsw.SQLITE_NOMEM, apsw.SQLITE_PROTOCOL])
async def test_a_file_that_there_is_no_memory_to_read_is_not_condemned(
    bay: Bay, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    await bay.reopen()
    bay.feed.away = True

    def without_memory(_: apsw.Connection) -> State:
        raise apsw.exception_for(code)

    with monkeypatch.context() as patched:
        patched.setattr(State, "read", without_memory)
        for asked in (bay.store.cursor, bay.store.sync):
            with pytest.raises(ReplicaUnavailable) as raised:
                await asked("ann")
            _assert_clear(raised.value)
            assert "memory" in raised.value.hint
    assert bay.store.counts().doubts == 0
    await bay.assert_same("ann")

    def work(connection: apsw.Connection) -> None:
        connection.execute("SELECT 1").fetchall()
        raise apsw.exception_for(code)

    for long in (False, True):
        with pytest.raises(ReplicaUnavailable) as raised:
            await bay.store.read("ann", work, long=long)
        _assert_clear(raised.value)
    await bay.assert_same("ann")
