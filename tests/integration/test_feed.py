"""The feed from Postgres: what a pull holds, that it is of one snapshot, and what it costs."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, NamedTuple

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from primary import postgres_feed
from primary.cursor import Cursor
from primary.errors import MigrationsPending, NotAllowed, PrimarySlow, PrimaryUnavailable
from primary.feed import VALUES, Batch, Kind, Pull, Reason
from primary.feed_sql import PIPELINED_ROWS_MAX, STAND
from primary.postgres import Primary
from primary.postgres_feed import BATCH_ROWS, PostgresFeed
from primary.postgres_tail import PostgresTail
from primary.write import writing
from tests.support import shapes
from tests.support.databases import Databases, through
from tests.support.proxy import PostgresProxy, proxied


@pytest.fixture
async def primary(databases: Databases) -> AsyncIterator[Primary]:
    async with shapes.installed(databases) as primary:
        yield primary


@pytest.fixture
def feed(primary: Primary) -> PostgresFeed:
    return PostgresFeed(primary, shapes.catalog)


async def execute(primary: Primary, *statements: str) -> None:
    async with await psycopg.AsyncConnection.connect(primary.url, autocommit=True) as connection:
        for statement in statements:
            await connection.execute(statement.encode())


async def shelves(primary: Primary, user: str, number: int, first: int = 1) -> None:
    await execute(
        primary,
        f"INSERT INTO shelf (user_id, id, label) SELECT '{user}', i, repeat('x', 100) "
        f"FROM generate_series({first}, {first + number - 1}) AS i",
    )


async def read(pull: Pull) -> list[Batch]:
    return await asyncio.to_thread(list, pull.batches())


async def streamed(pull: Pull) -> AsyncGenerator[Batch]:
    """Give batch by batch, each read in a thread while the loop goes on."""
    batches = pull.batches()
    try:
        while (batch := await asyncio.to_thread(next, batches, None)) is not None:
            yield batch
    except asyncio.CancelledError:
        pull.stop()
        raise


async def pulled(feed: PostgresFeed, user: str, since: Cursor | None = None) -> tuple[Pull, list[Batch]]:
    async with feed.pull(user, since) as pull:
        return pull, await read(pull)


async def cursor_of(feed: PostgresFeed, user: str) -> Cursor:
    async with feed.pull(user, None) as pull:
        return pull.cursor


class Touched(NamedTuple):
    """What a change says; ``row`` is None of a row that is gone."""

    version: int
    row: Sequence[Any] | None


def changes(batches: list[Batch]) -> dict[tuple[str, tuple[str, ...]], Touched]:
    found = {}
    for batch in batches:
        for change in batch.changes:
            key, version, gone = change[:VALUES]
            row = change[VALUES:]
            table = shapes.catalog[batch.table]
            texts = tuple(str(row[place]) for place in table.key_places)
            assert key == json.dumps(texts)
            if gone:
                assert [value for place, value in enumerate(row) if place not in table.key_places and value] == []
            found[batch.table, texts] = Touched(version, None if gone else row)
    assert len(found) == sum(len(batch.changes) for batch in batches)  # each row once
    return found


# ------------------------------------------------------------- what it costs


@pytest.mark.parametrize("prepared", [True, False])
async def test_no_change_is_one_round_trip_and_a_small_change_two(primary: Primary, prepared: bool) -> None:
    async with proxied(primary.url) as proxy, through(proxy.url, pool_max=1, prepared_statements=prepared) as near:
        feed = PostgresFeed(near, shapes.catalog)
        await shelves(primary, "ann", 3)
        since = await cursor_of(feed, "ann")
        for _ in range(8):  # past the number of times after which psycopg prepares a statement
            before = proxy.round_trips
            pull, batches = await pulled(feed, "ann", since)
            assert (pull.kind, batches) == (Kind.UNCHANGED, [])
            assert proxy.round_trips == before + 1
            await execute(
                primary,
                "UPDATE shelf SET label = label || 'y' WHERE id < 3",
                "DELETE FROM shelf WHERE id = 3",
                "INSERT INTO book (user_id, shelf_id, place) VALUES ('ann', 1, 1) "
                "ON CONFLICT (user_id, shelf_id, place) DO UPDATE SET title = book.title || '.'",
                "INSERT INTO mood (user_id) VALUES ('ann') ON CONFLICT (user_id) DO UPDATE SET word = 'well'",
            )
            before = proxy.round_trips
            pull, batches = await pulled(feed, "ann", since)
            assert pull.kind is Kind.CHANGES
            assert {batch.table for batch in batches} == {"shelf", "book", "mood"}
            assert proxy.round_trips == before + 2
            since = pull.cursor


async def test_a_user_who_never_was_is_one_round_trip_too(primary: Primary) -> None:
    async with proxied(primary.url) as proxy, through(proxy.url, pool_max=1) as near:
        feed = PostgresFeed(near, shapes.catalog)
        since = await cursor_of(feed, "nobody")
        assert since.version == 0
        before = proxy.round_trips
        pull, _ = await pulled(feed, "nobody", since)
        assert pull.kind is Kind.UNCHANGED
        assert proxy.round_trips == before + 1


async def test_an_incremental_pull_reads_the_rows_that_changed_and_not_those_that_are_there(
    primary: Primary, feed: PostgresFeed
) -> None:
    await shelves(primary, "ann", 5_000)
    since = await cursor_of(feed, "ann")
    await execute(primary, "UPDATE shelf SET label = 'new' WHERE id IN (7, 4711)")

    async with through(primary.url, pool_max=1) as alone:  # one session, which counts what it reads

        async def rows_read() -> int:
            async with alone.connection() as connection:
                found = await connection.execute(
                    "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0)::bigint "
                    "FROM pg_stat_xact_user_tables"
                )
                row = await found.fetchone()
                assert row is not None
                return int(row[0])

        before = await rows_read()
        _, batches = await pulled(PostgresFeed(alone, shapes.catalog), "ann", since)
        assert len(changes(batches)) == 2
        assert 0 < await rows_read() - before < 30


# ------------------------------------------------------------- what it holds


async def test_a_snapshot_is_streamed_in_bounded_batches_a_tables_together_parents_first(
    primary: Primary, feed: PostgresFeed
) -> None:
    await shelves(primary, "ann", 3 * BATCH_ROWS + 17)
    await shelves(primary, "bob", 5)
    await execute(
        primary,
        f"INSERT INTO book (user_id, shelf_id, place) SELECT user_id, id, 1 FROM shelf WHERE id <= {BATCH_ROWS + 10}",
    )
    pull, batches = await pulled(feed, "ann")
    assert (pull.kind, pull.reason, pull.cursor.version) == (Kind.SNAPSHOT, Reason.NEW, 2)
    assert [(batch.table, len(batch.rows)) for batch in batches] == [
        ("shelf", BATCH_ROWS),
        ("shelf", BATCH_ROWS),
        ("shelf", BATCH_ROWS),
        ("shelf", 17),
        ("book", BATCH_ROWS),
        ("book", 10),
    ]
    assert not any(batch.changes for batch in batches)
    assert {row[0] for batch in batches[:4] for row in batch.rows} == set(range(1, 3 * BATCH_ROWS + 18))


@pytest.mark.parametrize("again", [False, True], ids=["new", "of another epoch"])
async def test_a_snapshots_rows_come_as_they_lie_however_the_planner_would_read_them(
    again: bool, primary: Primary, feed: PostgresFeed
) -> None:
    await shelves(primary, "other", 5_000)
    numbers = [number * 37 % 101 for number in range(1, 100)]
    await execute(
        primary,
        *(f"INSERT INTO shelf (user_id, id, label) VALUES ('ann', {number}, 'x')" for number in numbers),
        "ANALYZE",
    )
    since = Cursor("0-1-1-1", 1) if again else None
    _, batches = await pulled(feed, "ann", since)
    assert [row[0] for batch in batches for row in batch.rows if batch.table == "shelf"] == numbers
    # What is read afterwards on the same connection is planned as ever.
    async with primary.connection() as connection:
        found = await (await connection.execute("SHOW enable_indexscan")).fetchone()
    assert found == ("on",)


async def test_a_change_looks_at_its_own_rows_though_another_index_begins_with_the_owner_too(primary: Primary) -> None:
    """The statistics know nothing of this user yet, so either index seems to lead to one row."""
    await execute(
        primary,
        "CREATE INDEX other ON shelf (user_id, label)",
        "INSERT INTO shelf (user_id, id, label) SELECT 'user ' || i % 6, i, i FROM generate_series(1, 12000) AS i",
        "ANALYZE",
    )
    rows = 2_000
    await shelves(primary, "ann", rows)
    async with through(primary.url, pool_max=1) as lent:
        feed = PostgresFeed(lent, shapes.catalog)
        since = Cursor((await cursor_of(feed, "ann")).epoch, 0)
        _, batches = await pulled(feed, "ann", since)
        assert sum(len(batch.changes) for batch in batches) == rows
        async with lent.connection() as connection:
            await connection.execute("SELECT pg_stat_force_next_flush()")
            found = await connection.execute(
                "SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'shelf'"
            )
            [(looked_at,)] = await found.fetchall()
    assert looked_at <= 2 * rows


async def test_a_change_looks_at_no_rows_of_others(primary: Primary) -> None:
    """An owner is found by the index of its own collation, which here is not that of the marks."""
    others = 1_000
    await execute(
        primary,
        f"INSERT INTO mood (user_id) SELECT 'user ' || i FROM generate_series(1, {others}) AS i",
        f"INSERT INTO shelf (user_id, id) SELECT 'user ' || i, 1 FROM generate_series(1, {others}) AS i",
        "INSERT INTO mood (user_id) VALUES ('ann')",
        "INSERT INTO shelf (user_id, id) VALUES ('ann', 1)",
        "ANALYZE",
    )
    async with through(primary.url, pool_max=1) as lent:
        feed = PostgresFeed(lent, shapes.catalog)
        since = Cursor((await cursor_of(feed, "ann")).epoch, 0)
        counted = "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_user_tables WHERE relname IN ('mood', 'shelf')"

        async def looked_at() -> int:
            async with lent.connection() as connection:
                await connection.execute("SELECT pg_stat_force_next_flush()")
                [(rows,)] = await (await connection.execute(counted)).fetchall()
            return int(rows)

        before = await looked_at()
        _, batches = await pulled(feed, "ann", since)
        assert sum(len(batch.changes) for batch in batches) == 2
        assert await looked_at() - before <= 4


async def test_a_first_copy_does_not_go_through_all_marks(primary: Primary) -> None:
    rows = 3 * PIPELINED_ROWS_MAX
    # Between a VACUUM and its ANALYZE, Postgres takes a user with many marks for one with few, and reads them all.
    await execute(primary, "ALTER TABLE tidepool.change SET (autovacuum_enabled = off)")
    await shelves(primary, "ann", rows)
    async with through(primary.url, pool_max=1) as near:

        async def looked_at() -> int:
            async with near.connection() as connection:
                await connection.execute("SELECT pg_stat_force_next_flush()")
                found = await connection.execute(
                    "SELECT (SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname = 'change') "
                    "+ (SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'change')"
                )
                [(marks,)] = await found.fetchall()
            return int(marks)

        before = await looked_at()
        _, batches = await pulled(PostgresFeed(near, shapes.catalog), "ann")
        assert sum(len(batch.rows) for batch in batches) == rows
        assert await looked_at() - before <= PIPELINED_ROWS_MAX + 1


async def test_a_plan_that_was_kept_while_the_tables_were_small_does_for_large_ones(primary: Primary) -> None:
    await shelves(primary, "ann", 3)
    tables = "tidepool.change", "tidepool.head", "shelf"
    await execute(primary, "ANALYZE", *(f"ALTER TABLE {table} SET (autovacuum_enabled = off)" for table in tables))
    async with through(primary.url, pool_max=1) as near:
        feed = PostgresFeed(near, shapes.catalog)
        first = Cursor((await cursor_of(feed, "ann")).epoch, 0)

        async def asked(sql: str) -> int:
            async with near.connection() as connection:
                await connection.execute("SELECT pg_stat_force_next_flush()")
                found = await (await connection.execute(sql.encode())).fetchone()
            assert found is not None
            return int(found[0])

        for _ in range(12):  # past psycopg's threshold, and Postgres's own
            await pulled(feed, "ann", first)
        assert await asked("SELECT count(*) FROM pg_prepared_statements WHERE generic_plans > 0") >= 2
        await shelves(primary, "other", 3_000)
        scanned = "SELECT sum(seq_tup_read) FROM pg_stat_user_tables WHERE relname IN ('change', 'head', 'shelf')"
        before = await asked(scanned)
        _, batches = await pulled(feed, "ann", first)
        assert sum(len(batch.changes) for batch in batches) == 3
        assert await asked(scanned) == before


async def test_a_big_snapshot_waits_at_postgres_for_who_reads_it(primary: Primary, feed: PostgresFeed) -> None:
    await shelves(primary, "ann", 50_000)
    async with feed.pull("ann", None) as pull, aclosing(streamed(pull)) as batches:
        await anext(batches)
        async with primary.connection() as connection:  # Postgres could not send more than the socket takes
            async with asyncio.timeout(5):
                while True:
                    waiting = await connection.execute(
                        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'ClientWrite'"
                    )
                    if waiting.rowcount:
                        break
                    await asyncio.sleep(0.01)
        assert sum([len(batch.rows) async for batch in batches]) == 50_000 - BATCH_ROWS


async def test_a_pull_that_is_broken_off_leaves_nothing_that_reads_on(primary: Primary, feed: PostgresFeed) -> None:
    """What reads on from a freed connection takes rows from the pull that has its memory then (I1)."""
    await shelves(primary, "ann", 3 * BATCH_ROWS)
    with suppress(KeyError):
        async with feed.pull("ann", None) as pull:
            batches = pull.batches()
            await asyncio.to_thread(next, batches)
            raise KeyError
    with pytest.raises(psycopg.OperationalError, match="given up"):
        next(batches)


async def test_who_waits_for_rows_is_told_when_its_caller_leaves(primary: Primary) -> None:
    await shelves(primary, "ann", 50_000)
    async with proxied(primary.url) as proxy, through(proxy.url) as near:

        async def leave() -> None:
            async with PostgresFeed(near, shapes.catalog).pull("ann", None) as pull:
                proxy.stall()
                reading = asyncio.create_task(read(pull))
                await asyncio.wait([reading], timeout=0.2)
                assert not reading.done(), "it waits for what does not come"
                pull.stop()
                await reading

        async with asyncio.timeout(10):
            with pytest.raises(PrimaryUnavailable):
                await leave()
        await proxy.resume()
        _, batches = await pulled(PostgresFeed(near, shapes.catalog), "ann")
        assert sum(len(batch.rows) for batch in batches) == 50_000


async def test_changes_say_what_became_of_each_row(primary: Primary, feed: PostgresFeed) -> None:
    await shelves(primary, "ann", 6)
    since = await cursor_of(feed, "ann")
    await execute(
        primary,
        "UPDATE shelf SET label = 'edited' WHERE id = 1",
        "DELETE FROM shelf WHERE id = 2",
        "UPDATE shelf SET id = 30 WHERE id = 3",
        "UPDATE shelf SET user_id = 'bob' WHERE id = 4",
        "DELETE FROM shelf WHERE id = 5",
        "INSERT INTO shelf (user_id, id, label) VALUES ('ann', 5, 'back')",
    )
    pull, batches = await pulled(feed, "ann", since)
    found = {key: (change.version, change.row and change.row[:2]) for (_, key), change in changes(batches).items()}
    assert pull.cursor == Cursor(since.epoch, 7)
    assert found == {
        ("1",): (2, (1, "edited")),
        ("2",): (3, None),
        ("3",): (4, None),
        ("30",): (4, (30, "x" * 100)),
        ("4",): (5, None),
        ("5",): (7, (5, "back")),
    }


async def test_a_cursor_that_is_of_no_use_is_answered_with_everything_and_the_reason(
    primary: Primary, feed: PostgresFeed
) -> None:
    await shelves(primary, "ann", 3)
    for _ in range(4):
        await execute(primary, "UPDATE shelf SET label = label || '!'")
    now = await cursor_of(feed, "ann")
    await execute(primary, "UPDATE tidepool.head SET floor = 3")
    for since, kind, reason in (
        (None, Kind.SNAPSHOT, Reason.NEW),
        (Cursor("6b-1-5-4001", now.version), Kind.SNAPSHOT, Reason.EPOCH),
        (Cursor("6b-1-5-4001", 0), Kind.SNAPSHOT, Reason.EPOCH),
        (Cursor(now.epoch, now.version + 1), Kind.SNAPSHOT, Reason.AHEAD),
        (Cursor(now.epoch, 2**63 - 1), Kind.SNAPSHOT, Reason.AHEAD),
        (Cursor(now.epoch, 0), Kind.SNAPSHOT, Reason.FLOOR),
        (Cursor(now.epoch, 2), Kind.SNAPSHOT, Reason.FLOOR),
        (Cursor(now.epoch, 3), Kind.CHANGES, None),
        (now, Kind.UNCHANGED, None),
    ):
        pull, batches = await pulled(feed, "ann", since)
        assert (pull.kind, pull.reason, pull.cursor) == (kind, reason, now), since
        assert sum(len(batch.rows) for batch in batches) == (3 if kind is Kind.SNAPSHOT else 0)


@pytest.mark.parametrize(("behind", "expected"), [(0, (Kind.UNCHANGED, None)), (1, (Kind.SNAPSHOT, Reason.OLDER))])
def test_a_primary_whose_log_did_not_grow_is_no_older_copy_of_itself(
    behind: int, expected: tuple[Kind, Reason | None]
) -> None:
    here = Cursor("1-1-1-1", 5)
    stand = postgres_feed._Stand(here, floor=0, tables=frozenset(), total=0, position=7)
    assert stand.kind(here, 7 + behind) == expected


async def test_users_are_told_apart_to_the_last_character(primary: Primary, feed: PostgresFeed) -> None:
    users = ["ann", "Ann", "ann ", " ann", "an", "ann%", "a_n", "ánn", "a\u0301nn", "'; --", "ann\n", "\U0010ffff"]
    async with primary.connection() as connection:
        for number, user in enumerate(users):
            await connection.execute("INSERT INTO shelf (user_id, id) VALUES (%s, %s)", [user, number])
    for number, user in enumerate(users):
        pull, batches = await pulled(feed, user)
        assert pull.cursor.version == 1
        assert [row[0] for batch in batches for row in batch.rows] == [number]
        _, batches = await pulled(feed, user, Cursor(pull.cursor.epoch, 0))
        assert [key for _, key in changes(batches)] == [(str(number),)]


# ------------------------------------------------------------- one snapshot


@pytest.mark.parametrize("since", ["new", "old"])
async def test_cursor_and_rows_are_of_one_snapshot_while_writers_run(
    since: str, primary: Primary, feed: PostgresFeed
) -> None:
    """The writer keeps three tables and the version in step; a pull that saw two states would show them out of step."""
    await execute(primary, "INSERT INTO mood VALUES ('ann', '0')", "INSERT INTO shelf (user_id, id) VALUES ('ann', 0)")
    start = await cursor_of(feed, "ann")
    begun = asyncio.Event()
    stop = False

    async def write() -> None:
        async with await psycopg.AsyncConnection.connect(primary.url, autocommit=True) as connection:
            number = 0
            while not stop:
                if number:
                    begun.set()
                number += 1
                async with connection.transaction():
                    await connection.execute("UPDATE mood SET word = %s", [str(number)])
                    await connection.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', %s)", [number])

    writing = asyncio.create_task(write())
    await begun.wait()
    kinds = set()
    try:
        for _ in range(25):
            async with feed.pull("ann", start if since == "old" else None) as pull:
                word, top, count = "0", 0, 0
                async with aclosing(streamed(pull)) as batches:
                    async for batch in batches:
                        await asyncio.sleep(0.004)  # the writer goes on between two batches
                        for row in [*batch.rows, *(change[VALUES:] for change in batch.changes)]:
                            match batch.table:
                                case "mood":
                                    word = row[0]
                                case "shelf":
                                    top, count = max(top, row[0]), count + 1
                kinds.add(pull.kind)
            assert pull.cursor.version == start.version + 2 * int(word)
            assert top == int(word)
            assert count == top + (since == "new")
    finally:
        stop = True
        await writing
    assert kinds >= {Kind.SNAPSHOT if since == "new" else Kind.CHANGES}


async def test_what_comes_at_once_and_what_is_streamed_are_the_same(
    primary: Primary, feed: PostgresFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelves(primary, "ann", 3_000)
    since = await cursor_of(feed, "ann")
    await execute(
        primary,
        "UPDATE shelf SET label = 'edited ' || id WHERE id % 2 = 0",
        "DELETE FROM shelf WHERE id % 5 = 0",
        "UPDATE shelf SET id = id + 10000 WHERE id % 7 = 0",
        "INSERT INTO book (user_id, shelf_id, place) SELECT user_id, id, 1 FROM shelf WHERE id < 900",
        "INSERT INTO mood (user_id, word) VALUES ('ann', 'busy')",
        "INSERT INTO specimen (user_id, double) VALUES ('ann', 'NaN')",
    )
    streamed_pull, streamed = await pulled(feed, "ann", since)
    assert len(changes(streamed)) > PIPELINED_ROWS_MAX
    assert all(len(batch.changes) <= BATCH_ROWS for batch in streamed)
    monkeypatch.setattr(postgres_feed, "PIPELINED_ROWS_MAX", 10**6)
    all_marks = STAND.replace(f"LIMIT {PIPELINED_ROWS_MAX + 1})", "LIMIT 1000001)")
    assert all_marks != STAND
    monkeypatch.setattr(postgres_feed, "STAND", all_marks)
    at_once_pull, at_once = await pulled(feed, "ann", since)
    assert at_once_pull.cursor == streamed_pull.cursor

    def plain(batches: list[Batch]) -> dict[Any, tuple[int, list[Any] | None]]:
        return {
            where: (change.version, None if change.row is None else [*change.row])
            for where, change in changes(batches).items()
        }

    assert plain(at_once) == plain(streamed)
    assert [*dict.fromkeys(batch.table for batch in at_once)] == [*dict.fromkeys(batch.table for batch in streamed)]


async def test_news_of_a_table_that_was_quiet_at_the_first_look_are_in_the_pull(
    primary: Primary, feed: PostgresFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    await shelves(primary, "ann", 3)
    since = await cursor_of(feed, "ann")
    await execute(primary, "UPDATE shelf SET label = 'first'")
    first_look = postgres_feed.PostgresPull._stand_of
    looks = 0

    async def then_write(self: Any, found: Any) -> Any:
        nonlocal looks
        stand = await first_look(self, found)
        looks += 1
        if looks == 1:
            await execute(
                primary,
                "INSERT INTO mood (user_id) VALUES ('ann')",
                "DELETE FROM shelf WHERE id = 2",
                "DELETE FROM book",
            )
        return stand

    monkeypatch.setattr(postgres_feed.PostgresPull, "_stand_of", then_write)
    pull, batches = await pulled(feed, "ann", since)
    found = {where: change.row is not None for where, change in changes(batches).items()}
    assert pull.cursor.version == since.version + 3
    assert found == {("shelf", ("1",)): True, ("shelf", ("2",)): False, ("shelf", ("3",)): True, ("mood", ()): True}


@pytest.mark.parametrize(
    "hint", [["shelf"], ["shelf", "mood"], ["mood"], ["book", "of nobody"], ["of nobody"], []], ids="+".join
)
async def test_a_hint_saves_a_round_trip_and_a_wrong_one_loses_nothing(primary: Primary, hint: list[str]) -> None:
    async with proxied(primary.url) as proxy, through(proxy.url, pool_max=1) as near:
        feed = PostgresFeed(near, shapes.catalog)
        await shelves(primary, "ann", 3)
        since = await cursor_of(feed, "ann")
        for news in (True, False):
            if news:
                await execute(primary, "UPDATE shelf SET label = 'new' WHERE id = 1", "DELETE FROM shelf WHERE id = 2")
            near.touched.note("ann", hint)
            before = proxy.round_trips
            pull, batches = await pulled(feed, "ann", since)
            assert proxy.round_trips - before == (1 if not news or "shelf" in hint else 2)
            found = {where: change.row is not None for where, change in changes(batches).items()}
            assert found == ({("shelf", ("1",)): True, ("shelf", ("2",)): False} if news else {})
            since = pull.cursor


async def test_a_hint_of_more_than_is_read_at_once_is_streamed_and_one_of_another_epoch_a_snapshot(
    primary: Primary, feed: PostgresFeed
) -> None:
    await shelves(primary, "ann", 3)
    since = await cursor_of(feed, "ann")
    await shelves(primary, "ann", PIPELINED_ROWS_MAX + 1, first=10)
    primary.touched.note("ann", ["shelf"])
    pull, batches = await pulled(feed, "ann", since)
    assert (pull.kind, pull.whole, len(changes(batches))) == (Kind.CHANGES, None, PIPELINED_ROWS_MAX + 1)
    primary.touched.note("ann", ["shelf"])
    pull, batches = await pulled(feed, "ann", Cursor("another", 1))
    assert (pull.kind, sum(len(batch.rows) for batch in batches)) == (Kind.SNAPSHOT, PIPELINED_ROWS_MAX + 4)


# ------------------------------------------------------------- leaving early


@pytest.mark.parametrize("how", ["returns", "raises", "is cancelled"])
@pytest.mark.parametrize("what", ["snapshot", "stream", "at once"])
async def test_after_a_pull_that_was_left_half_way_the_pool_is_whole(how: str, what: str, primary: Primary) -> None:
    await shelves(primary, "ann", 5_000)
    async with through(primary.url, pool_max=2, pool_timeout_s=2) as near:
        feed = PostgresFeed(near, shapes.catalog)
        now = await cursor_of(feed, "ann")
        await execute(primary, f"UPDATE shelf SET label = 'y' WHERE id <= {5000 if what == 'stream' else 1500}")
        since = None if what == "snapshot" else now

        async def leave() -> None:
            async with feed.pull("ann", since) as pull, aclosing(streamed(pull)) as batches:
                await anext(batches)
                if how == "raises":
                    raise LookupError
                if how == "is cancelled":
                    await asyncio.Event().wait()

        async with asyncio.timeout(30):
            for _ in range(4):
                # Beside one that is read slowly, which must not lose its connection to the one that is left.
                async with feed.pull("ann", None) as other, aclosing(streamed(other)) as batches:
                    rows = len((await anext(batches)).rows)
                    leaving = asyncio.create_task(leave())
                    await asyncio.wait([leaving], timeout=0.2 if how == "is cancelled" else None)
                    leaving.cancel()
                    await asyncio.gather(leaving, return_exceptions=True)
                    rows += sum([len(batch.rows) async for batch in batches])
                assert rows == 5_000
            # As many as the pool may have, at once, and none of them in somebody else's transaction.
            pulls = await asyncio.gather(*(pulled(feed, "ann") for _ in range(6)))
        assert [sum(len(batch.rows) for batch in batches) for _, batches in pulls] == [5_000] * 6
        assert near.reachable


async def test_a_roles_time_limit_for_a_statement_is_not_one_for_a_first_copy(primary: Primary) -> None:
    await shelves(primary, "ann", 50_000)
    async with (
        through(make_conninfo(primary.url, options="-c statement_timeout=250")) as near,
        PostgresFeed(near, shapes.catalog).pull("ann", None) as pull,
        aclosing(streamed(pull)) as batches,
    ):
        rows = len((await anext(batches)).rows)
        await asyncio.sleep(0.5)  # as a replica on a slow disk
        rows += sum([len(batch.rows) async for batch in batches])
    assert rows == 50_000


@pytest.mark.parametrize("moment", ["first look", "rows", "end"])
async def test_a_link_that_goes_dead_ends_the_pull_within_its_time(moment: str, primary: Primary) -> None:
    await shelves(primary, "ann", 30_000)
    async with proxied(primary.url) as proxy, through(proxy.url, answer_timeout_s=0.5, pool_timeout_s=1) as near:
        feed = PostgresFeed(near, shapes.catalog)
        since = await cursor_of(feed, "ann")

        async def stalled(proxy: PostgresProxy) -> None:
            if moment == "first look":
                proxy.stall()
                await pulled(feed, "ann", since)
            else:
                async with feed.pull("ann", None) as pull, aclosing(streamed(pull)) as batches:
                    await anext(batches)
                    if moment == "end":
                        async for _ in batches:
                            pass
                    proxy.stall()
                    async for _ in batches:
                        pass

        async with asyncio.timeout(10):
            with pytest.raises(PrimaryUnavailable):
                await stalled(proxy)
            assert not near.reachable
            await proxy.resume()
            await near.ping()
            pull, _ = await pulled(feed, "ann", since)
        assert pull.kind is Kind.UNCHANGED


_WAITS = (
    "SELECT FROM pg_locks AS l JOIN pg_database AS d ON d.oid = l.database "
    "WHERE NOT l.granted AND d.datname = current_database()"
)


@pytest.mark.parametrize("news", [0, PIPELINED_ROWS_MAX + 1])
async def test_a_pull_that_waits_long_for_a_lock_is_given_up_on_both_sides_and_is_no_outage(
    news: int, primary: Primary, feed: PostgresFeed
) -> None:
    """Else each that follows would leave one more who waits, until Postgres takes no connection from anybody."""
    await shelves(primary, "ann", 3)
    since = await cursor_of(feed, "ann") if news else None
    await shelves(primary, "ann", news, first=10)
    async with through(primary.url, answer_timeout_s=0.5) as near:
        feed = PostgresFeed(near, shapes.catalog)
        async with primary.connection() as other, asyncio.timeout(20):
            await other.execute("BEGIN")
            await other.execute("LOCK TABLE shelf")
            for _ in range(2):
                with pytest.raises(PrimarySlow):
                    await pulled(feed, "ann", since)
                assert near.reachable
            while (await other.execute(_WAITS)).rowcount:
                await asyncio.sleep(0.01)
            await other.execute("ROLLBACK")
        assert (await pulled(feed, "ann", since))[0].whole is None


async def test_a_database_without_the_engines_tables_is_told_as_such(empty_database_url: str) -> None:
    async with through(empty_database_url) as near:
        feed = PostgresFeed(near, shapes.catalog)
        for _ in range(3):
            with pytest.raises(MigrationsPending) as told:
                await pulled(feed, "ann")
            assert "tidepool migrate" in told.value.hint


async def test_a_table_that_lacks_a_column_is_told_as_such(primary: Primary, feed: PostgresFeed) -> None:
    before = await cursor_of(feed, "ann")
    await shelves(primary, "ann", 1)
    await execute(primary, "ALTER TABLE shelf DROP COLUMN label")
    for since in (None, before):
        with pytest.raises(MigrationsPending):
            await pulled(feed, "ann", since)


# ------------------------------------------------------------- epochs


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
async def test_texts_are_texts_whatever_the_database_keeps_them_in(
    encoding: str, databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN1")
    how = f"ENCODING {encoding} LOCALE_PROVIDER libc LOCALE 'C'"
    async with databases.database(migrated=False, how=how) as url, through(url) as primary:
        catalog = await shapes.install(primary, shapes.metadata)
        feed, tail = PostgresFeed(primary, catalog), PostgresTail(primary)
        await tail.poll()
        async with writing(primary, "zoë") as write:
            await write.execute("INSERT INTO mood (user_id, word) VALUES (%(user)s, 'Grüße')", {"user": "zoë"})
            await write.finish()
        pull, batches = await pulled(feed, "zoë")
        assert [row[0] for batch in batches for row in batch.rows] == ["Grüße"]
        assert (await tail.poll()).users == {"zoë": pull.cursor}


async def test_rows_that_are_hidden_from_the_role_are_never_left_out_unsaid(primary: Primary) -> None:
    role = f"reader_{random.randrange(10**9)}"
    await shelves(primary, "ann", 3)
    await execute(
        primary,
        f"CREATE ROLE {role} LOGIN",
        f"GRANT USAGE ON SCHEMA tidepool TO {role}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public, tidepool TO {role}",
        "ALTER TABLE shelf ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON shelf USING (user_id = current_user)",
    )
    try:
        async with through(primary.url.replace("//postgres@", f"//{role}@"), pool_max=1) as near:
            feed = PostgresFeed(near, shapes.catalog)
            since = await cursor_of(PostgresFeed(primary, shapes.catalog), "ann")
            await shelves(primary, "ann", 1, first=4)
            for cursor in (None, since, replace(since, version=0)):
                with pytest.raises(NotAllowed, match="row-level security"):
                    await pulled(feed, "ann", cursor)
            await execute(primary, f"ALTER ROLE {role} BYPASSRLS")
            _, batches = await pulled(feed, "ann", since)
            assert len(changes(batches)) == 1
    finally:
        await execute(primary, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def test_a_database_that_is_made_again_or_copied_is_another_epoch(databases: Databases) -> None:
    async with shapes.installed(databases) as primary:
        await shelves(primary, "ann", 2)
        since = await cursor_of(PostgresFeed(primary, shapes.catalog), "ann")
        name = primary.url.partition("@/")[2].partition("?")[0]
    # Dropped, and made again with the same name and the same history.
    server = databases.url("postgres")
    async with await psycopg.AsyncConnection.connect(server, autocommit=True) as connection:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        try:
            async with through(databases.url(name)) as again:
                await shapes.install(again, shapes.metadata)
                await shelves(again, "ann", 3)
                feed = PostgresFeed(again, shapes.catalog)
                pull, batches = await pulled(feed, "ann", since)
                assert (pull.kind, pull.reason) == (Kind.SNAPSHOT, Reason.EPOCH)
                assert pull.cursor.version == since.version
                assert len(batches[0].rows) == 3
                since = pull.cursor
            # A copy has the same tables with the same object ids.
            await connection.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}".encode())
            try:
                async with through(databases.url(f"{name}_copy")) as copy:
                    pull, _ = await pulled(PostgresFeed(copy, shapes.catalog), "ann", since)
                    assert (pull.kind, pull.reason) == (Kind.SNAPSHOT, Reason.EPOCH)
            finally:
                await connection.execute(f"DROP DATABASE {name}_copy WITH (FORCE)".encode())
        finally:
            await connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def test_a_history_that_is_begun_anew_in_the_same_database_is_another_epoch(
    primary: Primary, feed: PostgresFeed
) -> None:
    await shelves(primary, "ann", 2)
    since = await cursor_of(feed, "ann")
    await execute(primary, "DROP SCHEMA tidepool CASCADE")
    await execute(primary, *(f"DROP TABLE {table.name} CASCADE" for table in shapes.metadata.sorted_tables))
    await execute(primary, "DROP TYPE ledger_size", "DROP TYPE specimen_stage")
    await shapes.install(primary, shapes.metadata)
    await shelves(primary, "ann", 1)
    pull, _ = await pulled(feed, "ann", since)
    assert (pull.kind, pull.reason) == (Kind.SNAPSHOT, Reason.EPOCH)


async def test_the_epoch_is_the_same_for_every_session_and_after_a_checkpoint(
    primary: Primary, feed: PostgresFeed
) -> None:
    first = await cursor_of(feed, "ann")
    await execute(primary, "CHECKPOINT", "SELECT pg_switch_wal()")
    async with through(primary.url) as other:
        assert await cursor_of(PostgresFeed(other, shapes.catalog), "ann") == first
        async with writing(other, "ann") as write:
            assert await write.cursor() == first
