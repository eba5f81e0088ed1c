"""A write that is broken off, wherever it is, is done or not, and never half; and nothing is left in anybody's way.

No place in the pool is lost, no turn is held, no transaction stays open, and the next write of that user goes on. What
was acknowledged is there, and who asks again under the same key has it done once.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import psycopg
import pytest
import sqlalchemy as sa

from primary.cursor import Cursor
from primary.errors import PrimaryError, PrimaryUnavailable
from primary.once import Asked, Given, once
from primary.postgres import WRITES_OF_USER_MAX, Primary
from primary.write import Write
from tests.support.http import execute
from tests.support.proxy import PostgresProxy

POOL_MAX = 2
SOON_S = 5.0  # a bound for what takes milliseconds
COMMIT_LOCK = 7
SAVE = sa.text("INSERT INTO image (user_id, prompt, image_url) VALUES (:user, :prompt, 'https://images.example/1.png')")
TURN_HELD = "SELECT pg_advisory_lock(hashtextextended('tidepool write ann', 0))"
COMMIT_HELD = f"SELECT pg_advisory_lock({COMMIT_LOCK})"
AT_COMMIT = f"""
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN PERFORM pg_advisory_xact_lock({COMMIT_LOCK}); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON image DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION at_commit()"""
OURS = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = ''"
WAITS = f"SELECT count(*) {OURS} AND wait_event_type = 'Lock'"
BUSY = f"SELECT count(*) {OURS} AND (state <> 'idle' OR backend_xid IS NOT NULL)"
LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
END_ALL = f"SELECT count(pg_terminate_backend(pid)) {OURS}"


async def eventually(what: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON_S):
        while not await what():
            await asyncio.sleep(0.01)


@dataclass
class Image:
    """The work of a write that saves one image; it stops at ``moment``, and says so, until it is let go."""

    prompt: str = "a pool"
    moment: str = ""
    there: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, write: Write) -> Given:
        await self._stop("before its first statement")
        await write.execute(SAVE, {"user": write.user, "prompt": self.prompt})
        await self._stop("between statements")
        return Given(201, str(await write.cursor()).encode())

    async def _stop(self, moment: str) -> None:
        if moment == self.moment:
            self.there.set()
            await self.go_on.wait()


@dataclass
class Writer:
    """Writes for users through one pool behind a proxy; ``told`` is what the process was told of."""

    primary: Primary
    url: str
    proxy: PostgresProxy
    told: list[tuple[str, str]] = field(default_factory=list)

    def heard(self, user: str, cursor: Cursor) -> None:
        self.told.append((user, str(cursor)))

    async def save(self, work: Image, user: str = "ann", key: str = "") -> Given:
        return await once(self.primary, user, Asked(key, b"d") if key else None, work, kept_s=60)

    async def count(self, prompt: str = "a pool") -> int:
        return int((await execute(self.url, "SELECT count(*) FROM image WHERE prompt = %s", prompt))[0][0])

    async def is_none(self, sql: str) -> bool:
        return await execute(self.url, sql) == [(0,)]

    async def assert_whole(self) -> None:
        """Check that nobody holds anything, that every place of the pool can be had, and that each user writes on."""
        await eventually(lambda: self.is_none(BUSY))
        await eventually(lambda: self.is_none(LOCKS))
        await eventually(self._answers)
        full = asyncio.Barrier(POOL_MAX)

        async def take() -> None:
            async with self.primary.connection() as connection:
                assert not connection.pgconn.pipeline_status
                assert connection.pgconn.transaction_status == psycopg.pq.TransactionStatus.IDLE
                await full.wait()

        async with asyncio.timeout(SOON_S):
            await asyncio.gather(*(take() for _ in range(POOL_MAX)))
            for user in ("ann", "bob"):
                given = [await self.save(Image(prompt="the next"), user) for _ in range(WRITES_OF_USER_MAX + 1)]
                assert self.told[-1] == (user, given[-1].body.decode())
        assert await self.count("the next") == 2 * (WRITES_OF_USER_MAX + 1)

    async def _answers(self) -> bool:
        try:
            await self.primary.ping()
            async with self.primary.connection() as connection:
                await connection.execute("SELECT 1")
        except PrimaryError:
            return False
        return True


@pytest.fixture
async def writer(database_url: str, proxy: PostgresProxy) -> AsyncIterator[Writer]:
    primary = Primary(proxy.url, pool_max=POOL_MAX, pool_timeout_s=SOON_S)
    await primary.open()
    made = Writer(primary, database_url, proxy)
    primary.watch(made.heard)
    try:
        yield made
    finally:
        await primary.close()


async def _is_held(writer: Writer) -> bool:
    return not await writer.is_none(WAITS)


@asynccontextmanager
async def stopped_at(writer: Writer, moment: str, key: str) -> AsyncIterator[asyncio.Task[Given]]:
    """Give a write that has come so far and no further; at the end of the block nothing keeps it there any more."""
    work = Image(moment=moment)
    others = [Image(moment="between statements", prompt="another's") for _ in range(2)]
    held: list[asyncio.Task[Given]] = []
    async with await psycopg.AsyncConnection.connect(
        writer.url, autocommit=True, application_name="in the way"
    ) as in_the_way:
        if moment == "waiting for a place":
            held = [asyncio.create_task(writer.save(others[0]))]
            await others[0].there.wait()
            held += [asyncio.create_task(writer.save(others[1]))]
            await eventually(lambda: _is_held(writer))
        elif moment == "waiting for a connection":
            held = [asyncio.create_task(writer.save(o, user)) for o, user in zip(others, "xy", strict=True)]
            await asyncio.gather(*(other.there.wait() for other in others))
        elif moment == "waiting for its turn":
            await in_the_way.execute(TURN_HELD)
        elif moment == "in its commit":
            await execute(writer.url, AT_COMMIT)
            await in_the_way.execute(COMMIT_HELD)
        writing = asyncio.create_task(writer.save(work, key=key))
        if moment in {"before its first statement", "between statements"}:
            await work.there.wait()
        elif held:
            await asyncio.sleep(0.05)  # it has asked by then, and nothing tells
        else:
            await eventually(lambda: _is_held(writer))
        try:
            yield writing
        finally:
            for stopped in (work, *others):
                stopped.go_on.set()
    await asyncio.wait([writing, *held], timeout=SOON_S)
    for task in held:
        assert task.result().status == 201
    if moment == "in its commit":
        await eventually(lambda: writer.is_none(BUSY))
        await execute(writer.url, "DROP FUNCTION at_commit CASCADE")


IN_POSTGRES = ("before its first statement", "waiting for its turn", "between statements", "in its commit")
ANYWHERE = ("waiting for a place", "waiting for a connection", *IN_POSTGRES)


@pytest.mark.parametrize("key", ["", "k"], ids=["without a key", "under a key"])
@pytest.mark.parametrize("times", [1, 2, 50], ids=["once", "twice", "over and over"])
@pytest.mark.parametrize("moment", ANYWHERE)
async def test_a_write_that_is_cancelled_leaves_nothing_half_done(
    writer: Writer, moment: str, times: int, key: str
) -> None:
    async with stopped_at(writer, moment, key) as writing:
        for _ in range(times):
            writing.cancel()
            await asyncio.sleep(0)
        await asyncio.wait([writing], timeout=SOON_S)
    # Cancelled again while Postgres is told of it, psycopg breaks the connection off, and says that.
    assert writing.cancelled() or (times > 1 and isinstance(writing.exception(), PrimaryUnavailable))
    done = await writer.count()
    assert done == 0 or (times > 1 and moment == "in its commit")
    assert len(writer.told) == await writer.count("another's")
    await writer.assert_whole()
    if key:
        assert (await writer.save(Image(), key=key)).again == bool(done)
        assert await writer.count() == 1


async def _cut(writer: Writer) -> None:
    await writer.proxy.cut()
    await writer.proxy.resume()


async def _end(writer: Writer) -> None:
    await execute(writer.url, END_ALL)


@pytest.mark.parametrize("key", ["", "k"], ids=["without a key", "under a key"])
@pytest.mark.parametrize("breaks", [_cut, _end], ids=["is cut", "is ended by Postgres"])
@pytest.mark.parametrize("moment", IN_POSTGRES)
async def test_a_write_whose_connection_breaks_is_done_whole_or_not_at_all(
    writer: Writer, moment: str, breaks: Callable[[Writer], Awaitable[None]], key: str
) -> None:
    async with stopped_at(writer, moment, key) as writing:
        await breaks(writer)
    assert isinstance(writing.exception(), PrimaryUnavailable)
    # Postgres looks whether anybody is there when it has committed.
    done = await writer.count()
    assert done == (moment == "in its commit" and breaks is _cut)
    assert writer.told == []
    await writer.assert_whole()
    if key:
        assert (await writer.save(Image(), key=key)).again == bool(done)
        assert await writer.count() == 1


async def test_a_connection_whose_return_is_cancelled_comes_back_to_the_pool(writer: Writer) -> None:
    there = asyncio.Event()

    async def leave_open() -> None:
        async with writer.primary.connection() as connection:
            await connection.execute("BEGIN")
            there.set()
            await asyncio.Event().wait()

    for _ in range(POOL_MAX):
        there.clear()
        leaving = asyncio.create_task(leave_open())
        await there.wait()
        writer.proxy.stall()
        for _ in range(3):  # the first ends the block; the others come while its transaction is rolled back
            leaving.cancel()
            await asyncio.sleep(0.02)
        await writer.proxy.resume()
        await asyncio.wait([leaving])
    await writer.assert_whole()


async def test_whatever_breaks_a_crowd_of_writes_what_was_acknowledged_is_there_once(writer: Writer, seed: int) -> None:
    choose = random.Random(seed)
    acknowledged: list[str] = []
    broken: list[str] = []

    async def client(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        for turn in range(12):
            prompt, user = f"{number} {turn}", chance.choice(("ann", "bob"))
            key = chance.choice(("", prompt))
            asking = asyncio.create_task(writer.save(Image(prompt=prompt), user, key))
            if chance.random() < 0.5:
                await asyncio.wait([asking], timeout=chance.uniform(0, 0.02))
                asking.cancel()
            while True:
                await asyncio.wait([asking])
                if not asking.cancelled() and asking.exception() is None:
                    acknowledged.append(prompt)
                    break
                assert asking.cancelled() or isinstance(asking.exception(), PrimaryError), asking.exception()
                broken.append(prompt)
                if not key:
                    break
                await asyncio.sleep(0.01)
                asking = asyncio.create_task(writer.save(Image(prompt=prompt), user, key))

    async def break_connections() -> None:
        while True:
            await asyncio.sleep(choose.uniform(0.02, 0.2))
            await choose.choice((_cut, _end))(writer)

    breaking = asyncio.create_task(break_connections())
    await asyncio.gather(*(client(number) for number in range(8)))
    breaking.cancel()
    await asyncio.wait([breaking])
    await writer.assert_whole()
    saved = dict(await execute(writer.url, "SELECT prompt, count(*) FROM image GROUP BY prompt"))
    assert {prompt: saved.get(prompt) for prompt in acknowledged} == dict.fromkeys(acknowledged, 1)
    assert max(saved[prompt] for prompt in saved if prompt != "the next") == 1
    # A test that cannot fail is a defect: it all happened.
    assert len(acknowledged) > 20
    assert len(broken) > 5
