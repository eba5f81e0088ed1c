"""The data directory: one process owns it, folders that are missing come back, and what is set aside is bounded."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from primary.declaration import Catalog
from primary.feed import Feed
from primary.postgres import Primary
from replica.errors import DataDirectoryLocked, DataDirectoryUnusable, ReplicaUnavailable
from replica.export import FORMATS, export
from replica.results import StoreLimits
from replica.store import Store
from tests.support.bay import Bay
from tests.support.damages import DAMAGES, TICK_S, Scene, flip
from tests.support.open_files import open_files
from tests.support.replicas import change, grow

IMAGES = 12


@pytest.fixture
def limits() -> StoreLimits:
    return StoreLimits(quarantine_max=4)


# ------------------------------------------------------------- the folders


async def test_folders_that_are_removed_while_serving_come_back(bay: Bay) -> None:
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    directory = bay.directory
    for folder in (directory.replicas, directory.building, directory.quarantine, directory.apart, directory.root):
        shutil.rmtree(folder)
        await bay.assert_same("ann")
        await change(bay.primary, "ann")
        await bay.store.sync("ann")
        await bay.assert_same("ann")
        (await export(bay.store, "ann", FORMATS["ndjson"])).close()


async def test_what_lies_where_files_are_built_is_no_obstacle(bay: Bay) -> None:
    await grow(bay.primary, "ann", IMAGES)
    building = bay.directory.building / bay.directory.of("ann").database.name
    building.mkdir()
    await bay.store.sync("ann")
    await bay.assert_same("ann")
    (building / "a folder").mkdir(parents=True)
    (bay.directory.building / "stray").symlink_to("/nowhere")
    await bay.reopen()
    assert not [*bay.directory.building.iterdir()]


async def test_a_data_directory_may_have_any_name(
    primary: Primary, catalog: Catalog, feed: Feed, tmp_path: Path
) -> None:
    for name in ("a#b", "a?mode=memory", "50%25", "with a space", "日本", "a'b\"c"):
        bay = Bay(tmp_path / name, primary, catalog, feed)
        await bay.open()
        await grow(primary, "ann", 1)
        await bay.store.sync("ann")
        await change(primary, "ann", rows=1)
        await bay.store.sync("ann")
        await bay.reopen()
        await bay.assert_same("ann")
        assert bay.store.counts().doubts == 0
        await bay.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read whatever its mode is")
async def test_a_file_that_may_not_be_read_is_built_anew(bay: Bay) -> None:
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    await bay.close()
    bay.directory.of("ann").database.chmod(0)
    await bay.open()
    await bay.assert_same("ann")


# ------------------------------------------------------------- the quarantine


async def test_the_quarantine_keeps_the_last_few(bay: Bay) -> None:
    await grow(bay.primary, "ann", IMAGES)
    await grow(bay.primary, "bob", IMAGES)
    damages = [
        "a letter of a row changed",
        "a directory in its place",
        "a link to nowhere",
        "the file deleted",
        "a text in its place",
        "the log deleted",
        "a byte of the log changed",
        "a pipe in its place",
    ]
    last: list[str] = []
    for damage in damages:
        for user in ("ann", "bob"):
            await change(bay.primary, user)
            await bay.store.sync(user)
            scene = Scene(bay.directory.of(user), bay.directory.of("bob"), bay.directory.root)
            await asyncio.sleep(TICK_S)
            DAMAGES[damage](scene)
            await bay.assert_same(user)
            kept = sorted(path.name for path in bay.directory.quarantine.iterdir())
            databases = [name for name in kept if name.endswith(".db")]
            assert len(databases) <= bay.limits.quarantine_max
            assert {name.removesuffix("-wal") for name in kept} == set(databases)
            if len(last) == bay.limits.quarantine_max and databases != last:
                assert databases[:-1] == last[1:], "the oldest goes first"
            last = databases
    assert len(last) == bay.limits.quarantine_max


async def test_a_file_in_doubt_that_cannot_be_set_aside_is_told_as_any_trouble_of_the_disk(bay: Bay) -> None:
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    bay.directory.quarantine.rmdir()
    bay.directory.quarantine.write_text("in the way")
    os.utime(bay.directory.of("ann").database)
    for asked in (bay.assert_same, bay.assert_same, bay.store.sync):
        with pytest.raises(ReplicaUnavailable, match="cannot be written"):
            await asked("ann")
    bay.directory.quarantine.unlink()
    await bay.assert_same("ann")


async def test_what_is_set_aside_has_its_log_with_it(bay: Bay) -> None:
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    with bay.log_kept("ann"):
        await bay.close()
    location = bay.directory.of("ann")
    log = location.wal.read_bytes()
    await asyncio.sleep(TICK_S)
    flip(location.database, 9_000)
    await bay.open()
    await bay.assert_same("ann")
    assert log
    assert [path.read_bytes() for path in bay.directory.quarantine.glob("*-wal")] == [log]


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
    with pytest.raises(DataDirectoryUnusable, match="building") as raised:
        await store.open()
    assert raised.value.hint
    (tmp_path / "building").unlink()
    await store.open()
    await store.close()


async def test_a_disk_that_knows_no_locks_is_told_as_that(
    bay: Bay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(DataDirectoryUnusable, match=f"{tmp_path} cannot be used: No locks available$"):
        await Store(tmp_path, bay.catalog, bay.feed).open()
    assert not open_files(tmp_path)


async def test_a_path_of_which_sqlite_opens_no_file_is_told_at_the_start_and_not_by_each_read(
    bay: Bay, tmp_path: Path
) -> None:
    def of(length: int) -> Path:
        folder = tmp_path
        while len(str(folder)) < length:  # a name has 255 bytes at most, and no folder is to end in a slash
            left = length - len(str(folder)) - 1
            folder /= "d" * (left if left <= 200 else 150)
        assert len(str(folder)) == length
        return folder

    longest = 504 - len("/replicas/ab/cd/.db") - 64
    for length in (longest + 1, 600):
        store = Store(of(length), bay.catalog, bay.feed)
        with pytest.raises(DataDirectoryUnusable, match="File name too long") as raised:
            await store.open()
        assert raised.value.hint
    short = tmp_path / "short"
    short.symlink_to(of(longest + 1))
    with pytest.raises(DataDirectoryUnusable, match="File name too long"):
        await Store(short, bay.catalog, bay.feed).open()
    store = Store(of(longest), bay.catalog, bay.feed)
    await store.open()
    try:
        assert (await store.sync("alice")).rebuilt
    finally:
        await store.close()
