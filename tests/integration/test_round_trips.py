"""What a write says to Postgres in a round trip: all of it is done or nothing, and no connection is left half-way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
import sqlalchemy as sa

from primary.errors import PrimaryUnavailable
from primary.once import Asked, Given, once
from primary.postgres import Primary
from primary.write import Write
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
    return Given(201, str(await write.commit()).encode())


async def save_under_key(write: Write) -> Given:
    await write.execute(SAVE, {"user": write.user})
    return Given(201, str(await write.cursor()).encode())


async def saved(primary: Primary) -> Given:
    return await once(primary, "ann", None, save, kept_s=60)


@asynccontextmanager
async def through(url: str) -> AsyncIterator[Primary]:
    primary = Primary(url, pool_max=1, pool_timeout_s=5)
    await primary.open()
    try:
        yield primary
    finally:
        await primary.close()


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


async def test_a_write_is_two_round_trips(database_url: str) -> None:
    async with proxied(database_url) as proxy, through(proxy.url) as primary:
        await saved(primary)
        for number in range(8):  # past the number of times after which psycopg prepares a statement
            before = proxy.round_trips
            await saved(primary)
            assert proxy.round_trips == before + 2
            await once(primary, "ann", Asked(f"k{number}", b"d"), save_under_key, kept_s=60)


async def test_a_commit_that_fails_is_a_failed_write(database_url: str) -> None:
    await execute(database_url, AT_COMMIT.format("RAISE EXCEPTION 'not like this';"))
    async with through(database_url) as primary:
        told: list[str] = []
        primary.watch(lambda user, cursor: told.append(user))
        for work in (save, save_under_key):
            with pytest.raises(psycopg.errors.RaiseException):
                await once(primary, "ann", None, work, kept_s=60)
        assert (await count(database_url), told) == (0, [])
        await execute(database_url, "DROP TRIGGER at_commit ON image")
        await assert_whole(primary, database_url)


async def test_a_cursor_that_cannot_be_read_commits_nothing(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with through(database_url) as primary:
        monkeypatch.setattr("primary.write._CURSOR", "SELECT 1 / 0 WHERE %(user)s <> ''")
        with pytest.raises(Exception, match="division by zero"):
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
        with pytest.raises(Exception, match="division by zero"):
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
        return Given(200, str(await write.commit()).encode())

    async with through(database_url) as primary:
        first = await saved(primary)
        assert (await once(primary, "ann", None, commit, kept_s=60)).body == first.body
        await assert_whole(primary, database_url)


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
