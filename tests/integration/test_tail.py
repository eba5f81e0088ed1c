"""The tail: of everyone who moved it tells, once, whatever order transactions end in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import psycopg
import pytest

from primary.cursor import Cursor
from primary.embedded import EmbeddedPostgres
from primary.errors import PrimaryUnavailable
from primary.postgres import Primary
from primary.postgres_tail import PostgresTail
from primary.tail import Tail
from primary.write import writing
from tests.support import shapes
from tests.support.databases import Databases

Session = psycopg.AsyncConnection


@pytest.fixture
async def primary(databases: Databases) -> AsyncIterator[Primary]:
    async with shapes.installed(databases) as primary:
        yield primary


async def connect(primary: Primary) -> Session:
    return await psycopg.AsyncConnection.connect(primary.url, autocommit=True)


async def write(session: Session, user: str, key: int = 1) -> None:
    await session.execute(
        "INSERT INTO shelf (user_id, id) VALUES (%s, %s) "
        "ON CONFLICT (user_id, id) DO UPDATE SET label = shelf.label || '!'",
        [user, key],
    )


class Listener:
    """Follows a tail, and checks that it never tells the same move twice."""

    def __init__(self, tail: Tail) -> None:
        self.told: dict[str, list[int]] = {}
        self.looks = 0
        self._tail = tail

    async def look(self) -> None:
        moves = await self._tail.poll()
        self.looks += 1
        assert not moves.reset
        for user, cursor in moves.users.items():
            versions = self.told.setdefault(user, [])
            assert not versions or versions[-1] < cursor.version, f"{user} was told at {versions[-1]}, now at {cursor}"
            versions.append(cursor.version)

    async def follow(self, until: asyncio.Event) -> None:
        while not until.is_set():
            await self.look()
            await asyncio.sleep(0.001)


async def test_the_first_look_knows_nothing_and_says_so(primary: Primary) -> None:
    async with await connect(primary) as session:
        await write(session, "ann")
        tail = PostgresTail(primary)
        first = await tail.poll()
        assert (first.users, first.reset) == ({}, True)
        second = await tail.poll()
        assert (second.users, second.reset) == ({}, False)
        await write(session, "ann")
        await write(session, "bob")
        expected = {}
        for user in ("ann", "bob"):
            async with writing(primary, user) as looking:
                expected[user] = await looking.cursor()
        assert (await tail.poll()).users == expected
        assert (await tail.poll()).users == {}
        await write(session, "ann")
        tail.forget()
        again = await tail.poll()
        assert (again.users, again.reset) == ({}, True)


async def test_two_tails_are_told_each_for_itself(primary: Primary) -> None:
    tails = [PostgresTail(primary), PostgresTail(primary)]
    for tail in tails:
        await tail.poll()
    async with await connect(primary) as session:
        await write(session, "ann")
    for tail in tails:
        assert [*(await tail.poll()).users] == ["ann"]


async def test_a_transaction_that_commits_late_is_told_when_it_does(primary: Primary) -> None:
    tail = PostgresTail(primary)
    await tail.poll()
    async with await connect(primary) as slow, await connect(primary) as quick:
        await slow.execute("BEGIN")
        await write(slow, "slow")
        for number in range(5):  # later ones come and go, with higher transaction ids
            await write(quick, f"quick {number}")
            assert [*(await tail.poll()).users] == [f"quick {number}"]
        await slow.execute("COMMIT")
        assert (await tail.poll()).users.keys() == {"slow"}
        assert (await tail.poll()).users == {}


async def test_what_is_rolled_back_is_not_told_nor_a_subtransaction_apart(primary: Primary) -> None:
    tail = PostgresTail(primary)
    await tail.poll()
    async with await connect(primary) as session:
        async with session.transaction(force_rollback=True):
            await write(session, "never")
        async with session.transaction():
            async with session.transaction(force_rollback=True):
                await write(session, "never")
                await write(session, "once")
            async with session.transaction():
                await write(session, "once")
            async with session.transaction(force_rollback=True):
                await write(session, "once", 2)
            assert (await tail.poll()).users == {}
    moved = (await tail.poll()).users
    assert {user: cursor.version for user, cursor in moved.items()} == {"once": 1}
    assert (await tail.poll()).users == {}


async def test_no_move_is_missed_and_none_is_told_twice_whatever_the_order_of_commits(primary: Primary) -> None:
    """6 writers, slow and rolled back ones and subtransactions among them, and a transaction open throughout.

    Each transaction writes for a user of its own, who is to be told once if it commits and never if not, and for
    one of a few whom all write for.
    """
    tail = PostgresTail(primary)
    await tail.poll()
    listener = Listener(tail)
    committed: set[str] = set()
    done = asyncio.Event()

    async def writer(number: int) -> None:
        rng = random.Random(number)
        async with await connect(primary) as session:
            for turn in range(40):
                mine = f"{number}:{turn}"
                slow = rng.random() < 0.2
                try:
                    async with session.transaction(force_rollback=rng.random() < 0.2) as transaction:
                        await write(session, mine)
                        if rng.random() < 0.5:
                            async with session.transaction(force_rollback=rng.random() < 0.5):
                                await write(session, mine, 2)
                        if slow:
                            await asyncio.sleep(rng.uniform(0, 0.05))
                        else:
                            await write(session, rng.choice(["ann", "bob", "cat"]), rng.randrange(3))
                    if not transaction.force_rollback:
                        committed.add(mine)
                except psycopg.errors.DeadlockDetected:
                    pass

    async with await connect(primary) as open_throughout:
        await open_throughout.execute("BEGIN")
        await write(open_throughout, "open throughout")
        following = asyncio.create_task(listener.follow(done))
        await asyncio.gather(*(writer(number) for number in range(6)))
        done.set()
        await following
        await listener.look()
        assert "open throughout" not in listener.told
        await open_throughout.execute("COMMIT")
    await listener.look()
    async with await connect(primary) as session:
        found = await session.execute("SELECT user_id, version FROM tidepool.head")
        heads: dict[str, int] = dict(await found.fetchall())
    assert listener.looks > 20
    assert {user: versions[-1] for user, versions in listener.told.items()} == heads
    assert {user for user in listener.told if ":" in user} == committed
    for user in committed:
        assert len(listener.told[user]) == 1
    assert listener.told["open throughout"] == [1]
    assert len(listener.told["ann"]) > 3


async def test_a_restart_of_postgres_in_between_loses_and_repeats_nothing(own_postgres: EmbeddedPostgres) -> None:
    primary = Primary(own_postgres.url, pool_timeout_s=1, connect_timeout_s=2)
    await primary.open()
    try:
        await shapes.install(primary, shapes.metadata)
        tail = PostgresTail(primary)
        await tail.poll()
        session = await connect(primary)
        await write(session, "before")
        assert [*(await tail.poll()).users] == ["before"]
        await write(session, "between")
        await session.execute("BEGIN")
        await write(session, "cut off")
        await own_postgres.stop()
        await session.close()
        with pytest.raises(PrimaryUnavailable):
            await tail.poll()
        await own_postgres.start()
        async with asyncio.timeout(10):
            while not primary.reachable:
                try:
                    await primary.ping()
                except PrimaryUnavailable:
                    await asyncio.sleep(0.01)
        async with await connect(primary) as session:
            await write(session, "after")
        moves = await tail.poll()
        assert {*moves.users} == {"between", "after"}
        assert not moves.reset
        assert (await tail.poll()).users == {}
    finally:
        await primary.close()


async def test_another_primary_at_the_same_address_is_a_reset(primary: Primary) -> None:
    tail = PostgresTail(primary)
    await tail.poll()
    async with await connect(primary) as session:
        await write(session, "ann")
        # What a promoted standby or a restored dump looks like: the same tables, another making.
        await session.execute(
            "ALTER TABLE tidepool.head RENAME TO old; "
            "CREATE TABLE tidepool.head (LIKE tidepool.old INCLUDING ALL); "
            "INSERT INTO tidepool.head SELECT * FROM tidepool.old"
        )
    moves = await tail.poll()
    assert moves.reset
    assert (await tail.poll()).reset is False


async def test_heads_that_came_in_a_dump_are_not_told_until_they_move(primary: Primary) -> None:
    """They bear the transaction ids of another server, of which some are still to come in this one."""
    tail = PostgresTail(primary)
    async with await connect(primary) as session:
        for user in ("ann", "bob", "cat"):
            await write(session, user)
        await session.execute("UPDATE tidepool.head SET xid = '9000000000'")
        await tail.poll()
        await session.execute("UPDATE tidepool.head SET xid = '9000000001' WHERE user_id = 'cat'")
        for _ in range(3):
            await write(session, "dan")
            assert (await tail.poll()).users.keys() == {"dan"}
        await write(session, "bob")
        moved = (await tail.poll()).users
        assert {user: cursor.version for user, cursor in moved.items()} == {"bob": 2}
        assert (await tail.poll()).users == {}


async def test_a_look_reads_the_heads_that_moved_and_not_all(primary: Primary) -> None:
    async with await connect(primary) as session:
        await session.execute(
            "INSERT INTO shelf (user_id, id) SELECT 'user ' || i, 1 FROM generate_series(1, 5000) AS i"
        )
        await session.execute("ANALYZE tidepool.head")
    one = Primary(primary.url)
    try:
        tail = PostgresTail(one)
        await tail.poll()

        async def heads_read() -> int:
            ((read,),) = await tail._line.ask(  # what a session has read, only it is told
                "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint "
                "FROM pg_stat_xact_all_tables WHERE relid = 'tidepool.head'::regclass",
                within_s=5,
            )
            assert read is not None
            return int(read)

        async with await connect(primary) as session:
            for turn in range(8):  # past the number of times after which psycopg prepares a statement
                await write(session, f"user {turn + 1}", 2)
                before = await heads_read()
                assert len((await tail.poll()).users) == 1
                assert await heads_read() - before < 20
    finally:
        await one.close()


async def test_a_cursor_of_the_tail_is_the_feeds(primary: Primary) -> None:
    tail = PostgresTail(primary)
    await tail.poll()
    async with writing(primary, "ann") as writes:
        await writes.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1), ('ann', 2)")
        mine: Cursor = await writes.cursor()
    assert (await tail.poll()).users == {"ann": mine}
