"""What a write says to Postgres in a round trip: all of it is done or nothing, and no connection is left half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from uuid import UUID

import psycopg
import pytest
import sqlalchemy as sa

from primary.cursor import Cursor
from primary.errors import InvalidValue, PrimaryUnavailable
from primary.gallery import activity, albums, events, images, places
from primary.gallery.album_records import AlbumPatch, NewAlbum, NewPlace
from primary.gallery.errors import InvalidRecord
from primary.gallery.events import Happened
from primary.gallery.records import ImagePatch, NewImage
from primary.once import Asked, Given, once
from primary.postgres import Primary
from primary.write import Write, writing
from tests.support import databases
from tests.support.http import execute
from tests.support.proxy import proxied

SAVE = sa.text(
    "INSERT INTO image (user_id, prompt, image_url) VALUES (:user, 'a pool', 'https://images.example/1.png')"
)
HELD = "SELECT pg_advisory_lock(hashtextextended('tidepool write ann', 0))"
AT_COMMIT = """
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON image DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION at_commit()"""


async def save(write: Write) -> Given:
    await write.execute(SAVE, {"user": write.user})
    return Given(201, str(await write.cursor()).encode())


async def saved(primary: Primary) -> Given:
    return await once(primary, "ann", None, save, kept_s=60)


through = partial(databases.through, pool_max=1, pool_timeout_s=5)


async def count(url: str) -> int:
    return int((await execute(url, "SELECT count(*) FROM image"))[0][0])


async def assert_whole(primary: Primary, url: str) -> None:
    """Check that the pool's connection is in nobody's transaction, and answers what it is asked."""
    left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
    async with primary.connection() as connection:
        assert await (await connection.execute("SELECT 'whole'")).fetchone() == ("whole",)
        assert not connection.pgconn.pipeline_status
    assert await execute(url, left) == [(0,)]
    before = await count(url)
    given = await saved(primary)
    assert given.status == 201
    assert await count(url) == before + 1


async def save_last(write: Write) -> Given:
    await write.finish((SAVE, {"user": write.user}))
    return Given(201, str(await write.cursor()).encode())


@pytest.mark.parametrize(("work", "trips", "under_key"), [(save, 2, 4), (save_last, 1, 3)])
async def test_a_write_is_as_many_round_trips_as_it_has_steps(
    database_url: str, work: Callable[[Write], Awaitable[Given]], trips: int, under_key: int
) -> None:
    async with proxied(database_url) as proxy, through(proxy.url) as primary:
        await saved(primary)
        for number in range(8):  # past the number of times after which psycopg prepares a statement
            before = proxy.round_trips
            await once(primary, "ann", None, work, kept_s=60)
            assert proxy.round_trips - before == trips
            before = proxy.round_trips
            await once(primary, "ann", Asked(f"k{number}", b"d"), work, kept_s=60)
            assert proxy.round_trips - before == under_key


async def test_what_comes_after_the_commit_is_a_transaction_of_its_own(database_url: str) -> None:
    async def look_after(write: Write) -> Given:
        await write.finish((SAVE, {"user": write.user}))
        found = await write.execute(sa.text("SELECT count(*) FROM image WHERE user_id = :user"), {"user": write.user})
        assert found.value() == 1
        raise LookupError

    told: list[str] = []
    async with through(database_url) as primary:
        primary.watch(lambda user, cursor: told.append(str(cursor)))
        with pytest.raises(LookupError):
            await once(primary, "ann", Asked("k", b"d"), look_after, kept_s=60)
        assert (await count(database_url), told) == (0, [])  # under a key, all is one transaction
        with pytest.raises(LookupError):
            await once(primary, "ann", None, look_after, kept_s=60)
        assert (await count(database_url), len(told)) == (1, 1)
        await assert_whole(primary, database_url)


A_POOL = NewImage(prompt="a pool", image_url="https://images.example/1.png")
STEPS: dict[str, Callable[[Write, UUID, UUID], Awaitable[object]]] = {
    "save": lambda write, image, album: images.create(write, A_POOL),
    "edit": lambda write, image, album: images.patch(write, image, ImagePatch(prompt="another")),
    "edit what is at a row version": lambda write, image, album: images.patch(
        write, image, ImagePatch(prompt="a third"), row_version=2
    ),
    "favourite": lambda write, image, album: activity.set_favorite(write, image, True),
    "no favourite": lambda write, image, album: activity.toggle_favorite(write, image),
    "rate": lambda write, image, album: activity.rate(write, image, 80),
    "view": lambda write, image, album: events.count(write, image, "view", Happened(client_event_id="e")),
    "view again": lambda write, image, album: events.count(write, image, "view", Happened(client_event_id="e")),
    "o": lambda write, image, album: events.count(write, image, "o", Happened()),
    "no o": lambda write, image, album: events.take_o_back(write, image),
    "edit an album": lambda write, image, album: albums.patch(write, album, AlbumPatch(title="Ebb"), row_version=1),
    "make an album": lambda write, image, album: albums.create(write, NewAlbum(title="Neap")),
    "take out": lambda write, image, album: places.take_out(write, album, image),
    "delete an album": lambda write, image, album: albums.delete(write, album),
    "delete": lambda write, image, album: images.delete(write, image),
}


async def test_what_people_do_all_day_is_one_round_trip_each(database_url: str) -> None:
    async with proxied(database_url) as proxy, through(proxy.url) as primary:
        async with writing(primary, "ann") as write:
            image = UUID((await images.create(write, A_POOL)).image.id)
            album = UUID((await albums.create(write, NewAlbum(title="Spring"))).album.id)
            await places.put(write, album, [NewPlace(image_id=image)])
        took = {}
        for name, step in STEPS.items():

            async def work(write: Write, step: Callable[..., Awaitable[object]] = step) -> Given:
                await step(write, image, album)
                return Given(200, str(await write.cursor()).encode())

            before = proxy.round_trips
            await once(primary, "ann", None, work, kept_s=60)
            took[name] = proxy.round_trips - before
        assert took == dict.fromkeys(STEPS, 1)


async def test_a_batch_of_an_import_is_one_round_trip_and_all_of_it_or_nothing(database_url: str) -> None:
    nul = NewImage(prompt="a pool\0", image_url="https://images.example/1.png")  # which a check would have refused
    async with proxied(database_url) as proxy, through(proxy.url) as primary:
        await saved(primary)
        trips = []
        for _ in range(9):
            before = proxy.round_trips
            assert await images.import_many(primary, "ann", images.Many.of([A_POOL, A_POOL])) == (2, 0)
            trips.append(proxy.round_trips - before)
        assert sorted(trips) == [1] * 8 + [2]  # one of them prepares the statement first
        there = await count(database_url)
        with pytest.raises(InvalidRecord):
            await images.import_many(primary, "ann", images.Many.of([A_POOL, nul]))
        assert await count(database_url) == there
        await assert_whole(primary, database_url)


async def test_a_commit_that_fails_is_a_failed_write(database_url: str) -> None:
    await execute(database_url, AT_COMMIT.format("RAISE EXCEPTION 'not like this';"))
    async with through(database_url) as primary:
        told: list[str] = []
        primary.watch(lambda user, cursor: told.append(user))
        for asked in (None, Asked("k", b"d")):
            with pytest.raises(InvalidValue, match="breaks a rule of the database"):
                await once(primary, "ann", asked, save, kept_s=60)
        assert (await count(database_url), told) == (0, [])
        await execute(database_url, "DROP TRIGGER at_commit ON image")
        await assert_whole(primary, database_url)


async def test_a_cursor_that_cannot_be_read_commits_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with through(database_url) as primary:
        monkeypatch.setattr("primary.write._CURSOR", "SELECT 1 / 0 WHERE %(user)s <> ''")
        with pytest.raises(InvalidValue, match="cannot be taken"):
            await saved(primary)
        monkeypatch.undo()
        assert await count(database_url) == 0
        await assert_whole(primary, database_url)


async def test_a_statement_that_fails_commits_nothing(database_url: str) -> None:
    async def fail(write: Write) -> Given:
        await write.execute(SAVE, {"user": write.user})
        await write.execute(sa.text("SELECT 1 / 0"))
        raise AssertionError

    async with through(database_url) as primary:
        with pytest.raises(InvalidValue, match="cannot be taken"):
            await once(primary, "ann", None, fail, kept_s=60)
        assert await count(database_url) == 0
        await assert_whole(primary, database_url)


async def test_a_write_that_executes_nothing_leaves_nothing_for_the_next(database_url: str) -> None:
    async def nothing(write: Write) -> Given:
        return Given(200, b"")

    async with through(database_url) as primary:
        await once(primary, "bob", None, nothing, kept_s=60)
        async with primary.connection() as connection:
            await connection.execute("SELECT 1")
            assert connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
        await assert_whole(primary, database_url)


async def test_a_write_that_only_commits_gives_the_cursor(database_url: str) -> None:
    async def commit(write: Write) -> Given:
        return Given(200, str(await write.cursor()).encode())

    async with through(database_url) as primary:
        first = await saved(primary)
        assert (await once(primary, "ann", None, commit, kept_s=60)).body == first.body
        await assert_whole(primary, database_url)


async def test_a_cursor_that_was_asked_for_too_early_is_not_the_last(primary: Primary) -> None:
    async with writing(primary, "ann") as write:
        early = await save(write)
        late = await save(write)
    assert Cursor.parse(late.body.decode()) > Cursor.parse(early.body.decode())


@pytest.mark.parametrize("work", [save, save_last])
@pytest.mark.parametrize("asked", [None, Asked("k", b"d")], ids=["", "under a key"])
async def test_who_watches_is_told_of_a_write_once_it_is_committed_and_not_of_a_retry(
    primary: Primary, work: Callable[[Write], Awaitable[Given]], asked: Asked | None
) -> None:
    told: list[tuple[str, bytes]] = []
    primary.watch(lambda user, cursor: told.append((user, str(cursor).encode())))
    given = await once(primary, "ann", asked, work, kept_s=60)
    assert told == [("ann", given.body)]
    if asked is not None:
        assert (await once(primary, "ann", asked, work, kept_s=60)).again
        assert len(told) == 1


@pytest.mark.parametrize("moment", ["turn", "commit"])
@pytest.mark.parametrize("times", [1, 2])
async def test_a_request_that_is_cancelled_in_a_round_trip_leaves_no_transaction(
    database_url: str, moment: str, times: int
) -> None:
    async with through(database_url) as primary, await psycopg.AsyncConnection.connect(database_url) as other:
        if moment == "turn":
            await other.execute(HELD)
        else:
            await execute(database_url, AT_COMMIT.format("PERFORM pg_sleep(30);"))
        for _ in range(3):
            writing = asyncio.create_task(saved(primary))
            async with asyncio.timeout(5):
                while not await execute(
                    database_url,
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
                    "AND (wait_event_type = 'Lock' OR wait_event = 'PgSleep')",
                ):
                    await asyncio.sleep(0.01)
            for _ in range(times):
                writing.cancel()
                await asyncio.sleep(0)
            await asyncio.wait([writing], timeout=5)
            # Cancelled again while Postgres is told, psycopg breaks the connection off, and says that.
            assert writing.cancelled() or (times == 2 and isinstance(writing.exception(), PrimaryUnavailable))
        await other.close()
        await execute(database_url, "DROP TRIGGER IF EXISTS at_commit ON image")
        assert await count(database_url) == 0
        await assert_whole(primary, database_url)


async def test_who_writes_one_after_another_keeps_to_one_connection(database_url: str) -> None:
    async with databases.through(database_url, pool_max=3) as primary:

        async def backend() -> int:
            async with primary.connection() as connection:
                return connection.info.backend_pid

        async with primary.connection(), primary.connection():
            pass  # so there are two, or three where the first was late
        async with asyncio.timeout(5):  # one that comes later would be lent in its turn, as the latest
            while (stats := primary._pool.get_stats())["pool_available"] < stats["pool_size"]:
                await asyncio.sleep(0.001)
        assert len({await backend() for _ in range(4)}) == 1
