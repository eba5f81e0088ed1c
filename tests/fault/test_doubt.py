"""I4: doubt is answered by rebuilding, never by guessing.

Whatever is done to a replica's files by others, a reader gets the user's rows as they are in the primary, or a clear
error while the primary is away. Never a wrong row.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import subprocess
import sys

import pytest

from primary.errors import PrimaryUnavailable
from replica import changes, seal
from replica.changes import Changes, Position
from replica.errors import ReplicaUnavailable
from replica.location import Location
from tests.support.bay import Bay
from tests.support.damages import DAMAGES, TICK_S, Scene, by_sql, flip
from tests.support.replicas import change, every_row, grow, grow_all, held, touch_all, truth

IMAGES = 12
OTHER = "someone else"


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
    await _warm(bay, *users)
    await asyncio.sleep(TICK_S)
    return scenes


async def _warm(bay: Bay, *users: str) -> None:
    """Have the next read of each done at once, on the event loop, and no longer in the lane."""
    for user in users:
        await held(bay.store, user)


async def _sync_all(bay: Bay, *users: str) -> None:
    await asyncio.gather(*(bay.store.sync(user) for user in users))


# ------------------------------------------------------------- and what is asked then


async def _read(bay: Bay, user: str) -> None:
    assert await held(bay.store, user) == await truth(bay.primary, bay.catalog, user)


async def _read_in_the_lane(bay: Bay, user: str) -> None:
    found = await bay.store.read(user, every_row(bay.catalog), long=True)
    assert found.value == await truth(bay.primary, bay.catalog, user)


async def _read_without_the_primary(bay: Bay, user: str) -> None:
    bay.feed.away = True
    expected = await truth(bay.primary, bay.catalog, user)
    refused: ReplicaUnavailable | PrimaryUnavailable | None = None
    try:
        assert await held(bay.store, user) == expected
    except (ReplicaUnavailable, PrimaryUnavailable) as error:
        refused = error
    bay.feed.away = False
    assert refused is None or (str(refused) and refused.hint)


async def _sync(bay: Bay, user: str) -> None:
    await bay.store.sync(user)


CASES = [
    ("open", _read),
    ("open", _read_in_the_lane),
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
    await _warm(bay, users[-1])
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
            flip(path, rng.randrange(path.stat().st_size))
        flipped.add((path.suffix, closed))
        if closed:
            await bay.open()
        assert await held(bay.store, "ann") == expected
    assert len(flipped) == 4, "the seed does not try every kind"


async def test_readers_who_find_a_file_in_doubt_at_once_share_what_is_built(bay: Bay) -> None:
    [scene] = await _prepare(bay, "ann")
    expected = await truth(bay.primary, bay.catalog, "ann")
    before = bay.store.counts()
    flip(scene.location.database, 9_000)
    read = every_row(bay.catalog)
    readings = await asyncio.gather(*(bay.store.read("ann", read, long=long) for long in (False, True) * 3))
    assert [reading.value for reading in readings] == [expected] * 6
    after = bay.store.counts()
    assert (after.doubts - before.doubts, after.rebuilds - before.rebuilds) == (1, 1)


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


async def test_what_others_changed_is_not_sealed_when_the_connection_that_writes_is_closed(bay: Bay) -> None:
    [scene] = await _prepare(bay, "ann")
    slot = bay.store._slot("ann")
    DAMAGES["a letter of a row changed"](scene)
    async with slot.lock:
        await bay.store._open._rest(slot)
    await bay.assert_same("ann")
    assert bay.store.counts().doubts == 1


async def test_a_write_that_begins_while_the_files_are_looked_at_is_no_doubt(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    replica = bay.store._slot("ann").replica
    assert replica is not None

    def looking(_: Location) -> seal.Print:
        replica._writing += 1
        return (), ()

    with monkeypatch.context() as patched:
        patched.setattr(seal, "look", looking)
        replica.attest()
    replica._writing += 1
    await bay.assert_same("ann")


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE image ADD COLUMN colour TEXT",
        "DROP TABLE image_activity",
        "DELETE FROM _replica",
        "UPDATE _replica SET epoch = CAST(x'ff' AS TEXT)",
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
    by_sql(statement)(scene)
    seal.write(location, seal.look(location))
    await bay.open()
    await change(bay.primary, "ann")  # may, once in ninety times, delete just what it has put in and edited
    await grow(bay.primary, "ann", 1)
    await bay.store.sync("ann")
    await bay.assert_same("ann")
    assert bay.store.counts().rebuilds == 1 or "version" in statement


async def test_a_file_built_anew_while_a_version_is_told_in_parts_does_not_end_it_there(bay: Bay) -> None:
    """Of a version that is told in parts, the file that is built at it knows nothing."""
    begun = (await bay.store.sync("ann")).version
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")

    async def told(position: Position, limit: int) -> Changes | None:
        return (await bay.store.read("ann", lambda file: changes.since(file, bay.catalog, position, limit))).value

    part = await told(Position(begun), IMAGES // 2)
    assert part is not None
    assert not part.whole
    rest = await told(part.next, IMAGES)
    assert rest is not None
    assert (len(part.changes) + len(rest.changes), rest.whole) == (IMAGES, True)
    await bay.store.rebuild("ann")
    assert await told(part.next, IMAGES) is None, "it is at the version of which half was told, and was built at it"
    rest = await told(rest.next, IMAGES)
    assert rest is not None
    assert (rest.changes, rest.whole) == ([], True)


async def test_changes_are_not_applied_to_a_file_that_is_not_where_they_begin(bay: Bay) -> None:
    """Though it is sealed as ours, and open: else what lies between would never come."""
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    location = bay.directory.of("ann")
    replica = bay.store._slot("ann").replica
    assert replica is not None
    by_sql("UPDATE _replica SET version = version - 1")(Scene(location, location, bay.directory.root))
    replica._seen = seal.look(location)
    seal.write(location, replica._seen)
    await grow(bay.primary, "ann", 1)
    assert (await bay.store.sync("ann")).rebuilt
    assert bay.store.counts().doubts == 1
    await bay.assert_same("ann")


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
