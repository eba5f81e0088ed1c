"""I4: doubt is answered by rebuilding, never by guessing.

Whatever is done to a replica's files by others, a reader gets the user's rows as they are in the primary, or a clear
error while the primary is away. Never a wrong row.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa

from primary.capture import engine_tables, install_capture
from primary.declaration import Catalog, ReadIndex, synced
from primary.errors import PrimaryError, PrimaryUnavailable
from primary.feed import Feed
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from replica import seal
from replica.errors import ReplicaUnavailable
from replica.location import Location
from replica.results import StoreLimits
from replica.store import Store
from tests.support.bay import Bay, opened
from tests.support.feeds import TestFeed
from tests.support.replicas import change, grow, grow_all, held, touch_all, truth

IMAGES = 12
OTHER = "someone else"
TICK_S = 0.01
"""The clock of a file system may stand still for so long; a damage within the same tick as our write is not seen."""


@dataclass
class Scene:
    """A replica in some state of use, and what a damage may need."""

    location: Location
    other: Location
    older: Path  # a folder with a copy of the replica's files and seal, as they were some syncs ago


# ------------------------------------------------------------- what is done to the files


def _cut(keep: Callable[[int], int]) -> Callable[[Scene], None]:
    def damage(scene: Scene) -> None:
        os.truncate(scene.location.database, keep(scene.location.database.stat().st_size))

    return damage


def _flip(path: Path, place: int) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        byte = file.read(1)[0]
        file.seek(place)
        file.write(bytes([byte ^ 1 << place % 8]))


def _flip_in_a_row(scene: Scene) -> None:
    """Change a letter of a prompt, which no structure of the file depends on."""
    place = scene.location.database.read_bytes().rindex(b"basalt")
    _flip(scene.location.database, place)


def _flip_and_hide_it(scene: Scene) -> None:
    """Change a letter, and set the time of the change back."""
    before = scene.location.database.stat()
    _flip_in_a_row(scene)
    os.utime(scene.location.database, ns=(before.st_atime_ns, before.st_mtime_ns))


def _flip_in_the_log(scene: Scene) -> None:
    path = (
        scene.location.wal
        if scene.location.wal.exists() and scene.location.wal.stat().st_size
        else scene.location.database
    )
    _flip(path, path.stat().st_size // 2)


def _sql(statement: str) -> Callable[[Scene], None]:
    def damage(scene: Scene) -> None:
        with contextlib.closing(sqlite3.connect(scene.location.database)) as connection, connection:
            connection.execute(statement)

    return damage


def _delete(scene: Scene) -> None:
    scene.location.database.unlink()


def _delete_all(scene: Scene) -> None:
    for path in (scene.location.database, *scene.location.beside()):
        path.unlink(missing_ok=True)


def _delete_log(scene: Scene) -> None:
    scene.location.wal.unlink(missing_ok=True)


def _delete_log_index(scene: Scene) -> None:
    scene.location.shm.unlink(missing_ok=True)


def _delete_seal(scene: Scene) -> None:
    scene.location.seal.unlink()


def _spoil_seal(scene: Scene) -> None:
    scene.location.seal.write_bytes(b"\xff\xfe\0" * 40)


def _other_users_file(scene: Scene) -> None:
    shutil.copy2(scene.other.database, scene.location.database)


def _other_users_file_sealed(scene: Scene) -> None:
    _other_users_file(scene)
    seal.write(scene.location, seal.look(scene.location))


def _older_copy(scene: Scene) -> None:
    """Put an older copy in its place, as a restored backup would."""
    for path in (scene.location.database, *scene.location.beside()):
        path.unlink(missing_ok=True)
    for copy in scene.older.iterdir():
        shutil.copy2(copy, scene.location.database.parent / copy.name)


def _older_content(scene: Scene) -> None:
    """Write the older bytes into the same files, with the older times and the older seal."""
    for copy in scene.older.iterdir():
        place = scene.location.database.parent / copy.name
        place.write_bytes(copy.read_bytes())
        shutil.copystat(copy, place)


def _directory(scene: Scene) -> None:
    scene.location.database.unlink()
    scene.location.database.mkdir()
    (scene.location.database / "something").write_text("in it")


def _directory_for_log(scene: Scene) -> None:
    scene.location.wal.unlink(missing_ok=True)
    scene.location.wal.mkdir()


def _directory_for_seal(scene: Scene) -> None:
    scene.location.seal.unlink()
    scene.location.seal.mkdir()


def _link_to_itself_moved(scene: Scene) -> None:
    elsewhere = scene.older / "moved.db"
    scene.location.database.replace(elsewhere)
    scene.location.database.symlink_to(elsewhere)


def _link_to_other(scene: Scene) -> None:
    scene.location.database.unlink()
    scene.location.database.symlink_to(scene.other.database)


def _link_to_nowhere(scene: Scene) -> None:
    scene.location.database.unlink()
    scene.location.database.symlink_to(scene.older / "nothing")


def _link_to_itself(scene: Scene) -> None:
    scene.location.database.unlink()
    scene.location.database.symlink_to(scene.location.database)


def _pipe(scene: Scene) -> None:
    scene.location.database.unlink()
    os.mkfifo(scene.location.database)


def _text(scene: Scene) -> None:
    scene.location.database.write_text("This is no database. " * 1000)


DAMAGES: dict[str, Callable[[Scene], None]] = {
    "truncated to nothing": _cut(lambda size: 0),
    "truncated to half": _cut(lambda size: size // 2),
    "one byte less": _cut(lambda size: size - 1),
    "a letter of a row changed": _flip_in_a_row,
    "a letter of a row changed, and the time set back": _flip_and_hide_it,
    "a byte of the header changed": lambda scene: _flip(scene.location.database, 27),
    "a byte of the log changed": _flip_in_the_log,
    "the file deleted": _delete,
    "all files deleted": _delete_all,
    "the log deleted": _delete_log,
    "the log's index deleted": _delete_log_index,
    "the seal deleted": _delete_seal,
    "the seal spoiled": _spoil_seal,
    "another user's file in its place": _other_users_file,
    "another user's file in its place, sealed": _other_users_file_sealed,
    "an older copy in its place": _older_copy,
    "older content in the same file": _older_content,
    "the version lowered": _sql("UPDATE _replica SET version = version - 1"),
    "the version raised": _sql("UPDATE _replica SET version = version + 7"),
    "the epoch changed": _sql("UPDATE _replica SET epoch = '1-1-1-1'"),
    "a column added": _sql("ALTER TABLE image ADD COLUMN colour TEXT"),
    "a row deleted": _sql("DELETE FROM image WHERE rowid = (SELECT min(rowid) FROM image)"),
    "a directory in its place": _directory,
    "a directory in its log's place": _directory_for_log,
    "a directory in its seal's place": _directory_for_seal,
    "moved, and a link to it": _link_to_itself_moved,
    "a link to another user's": _link_to_other,
    "a link to nowhere": _link_to_nowhere,
    "a link to itself": _link_to_itself,
    "a pipe in its place": _pipe,
    "a text in its place": _text,
}


# ------------------------------------------------------------- in which state of use


@pytest.fixture
async def bay(primary: Primary, catalog: Catalog, feed: Feed) -> AsyncIterator[Bay]:
    async with opened(primary, catalog, feed, StoreLimits(quarantine_max=4)) as made:
        yield made


async def _prepare(bay: Bay, *users: str) -> list[Scene]:
    """Give users replicas that were built, copied, and synced again."""
    await grow_all(bay.primary, [*users, OTHER], IMAGES)
    await _sync_all(bay, *users, OTHER)
    scenes = [Scene(bay.directory.of(user), bay.directory.of(OTHER), bay.scratch(user)) for user in users]
    for scene in scenes:
        for path in (scene.location.database, scene.location.seal):
            shutil.copy2(path, scene.older)
    await touch_all(bay.primary, users)
    await _sync_all(bay, *users)
    await asyncio.sleep(TICK_S)
    return scenes


async def _sync_all(bay: Bay, *users: str) -> None:
    await asyncio.gather(*(bay.store.sync(user) for user in users))


# ------------------------------------------------------------- and what is asked then


async def _read(bay: Bay, user: str) -> None:
    assert await held(bay.store, user) == await truth(bay.primary, bay.catalog, user)


async def _read_without_the_primary(bay: Bay, user: str) -> None:
    bay.feed.away = True
    expected = await truth(bay.primary, bay.catalog, user)
    refused: ReplicaUnavailable | PrimaryUnavailable | None = None
    try:
        assert await held(bay.store, user) == expected
    except (ReplicaUnavailable, PrimaryUnavailable) as error:
        refused = error
    bay.feed.away = False
    assert refused is None or (str(refused) and refused.hint and refused.retry)


async def _sync(bay: Bay, user: str) -> None:
    await bay.store.sync(user)


CASES = [
    ("open", _read),
    ("open", _read_without_the_primary),
    ("open", _sync),
    ("open and closed then", _read),
    ("open and closed then without its log", _sync),
    ("closed", _read_without_the_primary),
    ("closed with its log", _read),
    ("open for reading alone", _read),
]
"""In which state of use the damage is done, and what is asked first after it."""


@pytest.mark.parametrize("name", DAMAGES)
async def test_a_damaged_replica_answers_right_or_not_at_all(bay: Bay, name: str) -> None:
    users = [f"{use}: {ask.__name__}" for use, ask in CASES]
    scenes = dict(zip(users, await _prepare(bay, *users), strict=True))

    def damage(use: str) -> None:
        for user, (its_use, _) in zip(users, CASES, strict=True):
            if its_use == use:
                DAMAGES[name](scenes[user])

    async def check(use: str) -> None:
        asked = {user: ask for user, (its_use, ask) in zip(users, CASES, strict=True) if its_use == use}
        for user, ask in asked.items():
            await ask(bay, user)
        await touch_all(bay.primary, [*asked])
        await _sync_all(bay, *asked)
        await bay.assert_same(*asked)

    damage("open")
    await check("open")
    with contextlib.ExitStack() as logs:
        for user, (use, _) in zip(users, CASES, strict=True):
            if use in {"open and closed then", "closed with its log"}:
                logs.enter_context(bay.log_kept(user))
        damage("open and closed then")
        damage("open and closed then without its log")
        await bay.close()
    damage("closed")
    damage("closed with its log")
    await bay.open()
    for use in ("open and closed then", "open and closed then without its log", "closed", "closed with its log"):
        await check(use)
    await held(bay.store, users[-1])
    damage("open for reading alone")
    await check("open for reading alone")
    await bay.assert_same(OTHER)


async def test_no_changed_byte_is_ever_read(bay: Bay) -> None:
    """Bytes at random, in the database and in its log, while it is open and while it is not."""
    rng = random.Random(20)
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    expected = await truth(bay.primary, bay.catalog, "ann")
    location = bay.directory.of("ann")
    flipped = set()
    for _ in range(40):
        if rng.random() < 0.6:
            await change(bay.primary, "ann", rows=1)
            await bay.store.sync("ann")
            expected = await truth(bay.primary, bay.catalog, "ann")
        paths = [path for path in (location.database, location.wal) if path.exists() and path.stat().st_size]
        path = rng.choice(paths)
        await asyncio.sleep(TICK_S)
        closed = rng.random() < 0.3
        if closed:
            with bay.log_kept("ann"):
                await bay.close()
        for _ in range(rng.choice([1, 1, 1, 20])):
            _flip(path, rng.randrange(path.stat().st_size))
        flipped.add((path.suffix, closed))
        if closed:
            await bay.open()
        assert await held(bay.store, "ann") == expected
    assert len(flipped) == 4, "the seed does not try every kind"


@pytest.mark.parametrize("name", ["another user's file in its place", "an older copy in its place", "the file deleted"])
@pytest.mark.parametrize("point", ["apply.begun", "apply.rows", "apply.stated", "apply.committed"])
async def test_a_file_exchanged_while_it_is_written_is_not_sealed(bay: Bay, name: str, point: str) -> None:
    [scene] = await _prepare(bay, "ann")
    expected = await change(bay.primary, "ann")

    def passing(passed: str) -> None:
        if passed == point:
            bay.passing = lambda point: None
            DAMAGES[name](scene)

    bay.passing = passing
    assert (await bay.store.sync("ann")).version == expected
    await bay.assert_same("ann")
    await bay.reopen()
    await bay.assert_same("ann", OTHER)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE image ADD COLUMN colour TEXT",
        "DROP TABLE image_activity",
        "DELETE FROM _replica",
        "UPDATE _replica SET version = version - 1",
        "CREATE TRIGGER t BEFORE INSERT ON image BEGIN SELECT RAISE(ABORT, 'no'); END",
        "CREATE UNIQUE INDEX i ON image (row_version) WHERE row_version > 1",
        "DROP TABLE image_fts",
    ],
)
async def test_a_file_that_does_not_take_a_change_is_built_anew(bay: Bay, statement: str) -> None:
    """Even one that is sealed as ours, so that only SQLite can tell: changes are never half applied, or left out."""
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    await bay.close()
    location = bay.directory.of("ann")
    scene = Scene(location, location, bay.directory.root)
    _sql(statement)(scene)
    seal.write(location, seal.look(location))
    await bay.open()
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    await bay.assert_same("ann")
    assert bay.store.counts().rebuilds == 1 or "version" in statement


# ------------------------------------------------------------- the declared schema


def _declared(*columns: str, indexes: Sequence[ReadIndex] = ()) -> Catalog:
    metadata = sa.MetaData()
    sa.Table(
        "note",
        metadata,
        sa.Column("owner", sa.Text(collation="C"), primary_key=True),
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.Text) for name in columns),
        info=synced(owner="owner", indexes=indexes),
    )
    return Catalog.of(metadata)


async def test_a_replica_of_another_declaration_is_built_anew(empty_database_url: str, data_dir: Path) -> None:
    primary = Primary(empty_database_url)
    await primary.open()
    try:
        first = _declared("body")
        async with primary.transaction() as conn:
            engine = sa.MetaData()
            engine_tables(engine)
            await conn.exec_driver_sql("CREATE SCHEMA tidepool")
            await conn.run_sync(engine.create_all)
            await conn.run_sync(first["note"].table.metadata.create_all)
            await install_capture(conn, first)
            await conn.exec_driver_sql("INSERT INTO note SELECT 'ann', i, 'note ' || i FROM generate_series(1, 9) AS i")
        with_colour = _declared("body", "colour")
        declarations = [
            first,
            _declared("body", indexes=[ReadIndex("by_body", ["body"])]),
            _declared(),
            first,
            with_colour,  # of which the database knows nothing yet
            with_colour,
        ]
        for place, catalog in enumerate(declarations):
            store = Store(data_dir, catalog, PostgresFeed(primary, catalog))
            await store.open()
            try:
                if place == 4:
                    with pytest.raises(PrimaryError):
                        await held(store, "ann")
                    async with primary.transaction() as conn:
                        await conn.exec_driver_sql("ALTER TABLE note ADD COLUMN colour text DEFAULT 'red'")
                        await install_capture(conn, catalog)
                found = await held(store, "ann")
                assert found == await truth(primary, catalog, "ann")
                assert sum(found["note"].values()) == 9
            finally:
                await store.close()
    finally:
        await primary.close()


async def test_a_replica_of_another_declaration_is_not_served_while_the_primary_is_away(
    bay: Bay, catalog: Catalog
) -> None:
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    await bay.close()
    bay.catalog = Catalog([table for table in catalog if table.name != "album"])
    bay.feed = TestFeed(PostgresFeed(bay.primary, bay.catalog))
    await bay.open()
    bay.feed.away = True
    with pytest.raises(ReplicaUnavailable, match="another schema") as raised:
        await held(bay.store, "ann")
    assert raised.value.hint
    bay.feed.away = False
    await bay.assert_same("ann")


# ------------------------------------------------------------- the folders


async def test_folders_that_are_removed_while_serving_come_back(bay: Bay) -> None:
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    for folder in (bay.directory.replicas, bay.directory.building, bay.directory.quarantine, bay.directory.root):
        shutil.rmtree(folder)
        await bay.assert_same("ann")
        await change(bay.primary, "ann")
        await bay.store.sync("ann")
        await bay.assert_same("ann")


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
    damages = [_flip_in_a_row, _directory, _link_to_nowhere, _delete, _text, _delete_log, _flip_in_the_log, _pipe]
    last: list[str] = []
    for damage in damages:
        for user in ("ann", "bob"):
            await change(bay.primary, user)
            await bay.store.sync(user)
            scene = Scene(bay.directory.of(user), bay.directory.of("bob"), bay.directory.root)
            await asyncio.sleep(TICK_S)
            damage(scene)
            await bay.assert_same(user)
            kept = sorted(path.name for path in bay.directory.quarantine.iterdir())
            databases = [name for name in kept if name.endswith(".db")]
            assert len(databases) <= bay.limits.quarantine_max
            assert {name.removesuffix("-wal") for name in kept} == set(databases)
            if len(last) == bay.limits.quarantine_max and databases != last:
                assert databases[:-1] == last[1:], "the oldest goes first"
            last = databases
    assert len(last) == bay.limits.quarantine_max


async def test_others_who_only_read_the_files_raise_no_doubt(bay: Bay) -> None:
    """As `tidepool verify` does beside a server: from another process, and while there is a log."""
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    for _ in range(2):
        await change(bay.primary, "ann")
        await bay.store.sync("ann")
        uri = bay.directory.of("ann").uri("ro")
        read = f"import sqlite3; sqlite3.connect({uri!r}, uri=True).execute('SELECT * FROM image').fetchall()"
        subprocess.run([sys.executable, "-c", read], check=True, timeout=20)
        await bay.assert_same("ann")
        with bay.log_kept("ann"):
            await bay.close()
        await bay.open()
        await bay.assert_same("ann")
        await bay.store.sync("ann")
        await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0
    assert bay.store.counts().rebuilds == 0
