"""Capture: whoever changes a synced row, by whatever statement, the change is marked, at the right version, once."""

from __future__ import annotations

import asyncio
import hashlib
import random
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from psycopg import errors

from primary.capture import (
    _REFUSE_TRUNCATE,
    SCHEMA,
    capture_pending,
    capture_sql,
    engine_tables,
    install_capture,
    table_sql,
)
from primary.cursor import Cursor
from primary.declaration import Catalog, synced
from primary.embedded.binaries import binary
from primary.errors import MigrationsPending, UnsupportedDeclaration
from primary.feed import Reason
from primary.fitness import check_fitness
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed, PostgresPull
from replica.store import Store
from tests.support import shapes
from tests.support.databases import Databases
from tests.support.oracle import Oracle

Session = psycopg.AsyncConnection[tuple[Any, ...]]

WAITS_FOR_SHELF = "SELECT pid FROM pg_locks WHERE relation = 'shelf'::regclass AND NOT granted"


@pytest.fixture
async def primary(databases: Databases) -> AsyncIterator[Primary]:
    async with shapes.installed(databases) as primary:
        yield primary


@pytest.fixture
def oracle(primary: Primary) -> Oracle:
    return Oracle(primary, shapes.metadata)


@pytest.fixture
async def store(data_dir: Path, oracle: Oracle) -> AsyncIterator[Store]:
    store = Store(data_dir, shapes.catalog, oracle)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


@pytest.fixture
async def session(primary: Primary) -> AsyncIterator[Session]:
    """A session in autocommit mode, of someone who knows nothing of the engine."""
    async with connected(primary) as connection:
        yield connection


@asynccontextmanager
async def connected(primary: Primary, **options: Any) -> AsyncIterator[Session]:
    connection = await psycopg.AsyncConnection.connect(primary.url, autocommit=True, **options)
    async with connection:
        yield connection


async def value(session: Session, sql: str) -> Any:
    row = await (await session.execute(sql.encode())).fetchone()
    assert row is not None
    return row[0]


async def version(session: Session, user: str) -> int:
    return int(await value(session, f"SELECT coalesce(max(version), 0) FROM tidepool.head WHERE user_id = '{user}'"))


async def assert_caught_up(store: Store, oracle: Oracle, *users: str) -> None:
    """Sync, and compare with what the oracle reads."""
    for user in users:
        await store.sync(user)
        at, rows = await oracle.look(user)
        reading = await store.read(user, oracle.held)
        assert (reading.version.version, reading.value) == (at, rows), user


# ------------------------------------------------------------- versions


async def test_versions_are_without_gaps_and_in_the_order_of_commits(primary: Primary) -> None:
    users = ["ann", "bob", "eve"]
    committed: dict[str, list[int]] = {user: [] for user in users}

    async def write(number: int) -> None:
        rng = random.Random(number)
        async with connected(primary) as session:
            for turn in range(25):
                user = rng.choice(users)
                await session.execute("BEGIN")
                await asyncio.sleep(rng.uniform(0, 0.004))  # so that transactions end in another order than they began
                await session.execute("INSERT INTO shelf (user_id, id) VALUES (%s, %s)", [user, number * 1000 + turn])
                mine = await version(session, user)
                # Every version below is committed, for I see its row; there is none above, for I hold the head.
                assert await value(session, f"SELECT count(*) FROM shelf WHERE user_id = '{user}'") == mine
                await asyncio.sleep(rng.uniform(0, 0.004))
                if rng.random() < 0.2:
                    await session.execute("ROLLBACK")
                else:
                    await session.execute("COMMIT")
                    committed[user].append(mine)

    await asyncio.gather(*(write(number) for number in range(6)))
    for versions in committed.values():
        assert sorted(versions) == list(range(1, len(versions) + 1))


async def test_a_statement_is_one_version_however_many_rows_it_touches(session: Session) -> None:
    await session.execute("INSERT INTO shelf (user_id, id) SELECT 'ann', i FROM generate_series(1, 500) AS i")
    assert await version(session, "ann") == 1
    await session.execute("UPDATE shelf SET label = 'x' WHERE id > 250")
    assert await version(session, "ann") == 2
    counted = await session.execute("SELECT version, count(*) FROM tidepool.change GROUP BY 1 ORDER BY 1")
    assert await counted.fetchall() == [(1, 250), (2, 250)]


async def test_a_statement_that_touches_no_row_moves_nobody(session: Session) -> None:
    await session.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1)")
    await session.execute("UPDATE shelf SET label = 'x' WHERE id = 2")
    await session.execute("DELETE FROM shelf WHERE user_id = 'bob'")
    await session.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1) ON CONFLICT DO NOTHING")
    assert await version(session, "ann") == 1
    assert await value(session, "SELECT count(*) FROM tidepool.head") == 1


async def test_the_log_has_one_mark_for_a_row_however_often_it_is_edited(session: Session) -> None:
    await session.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1)")
    for _ in range(20):
        await session.execute("UPDATE shelf SET label = 'x'")
    await session.execute("DELETE FROM shelf")
    found = await session.execute("SELECT row_key, version, deleted FROM tidepool.change")
    assert await found.fetchall() == [(["1"], 22, True)]


async def test_what_is_rolled_back_was_never_there(session: Session) -> None:
    await session.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1)")
    async with session.transaction(force_rollback=True):
        await session.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 2), ('bob', 1)")
    async with session.transaction():
        await session.execute("UPDATE shelf SET label = 'kept'")
        async with session.transaction(force_rollback=True):
            await session.execute("UPDATE shelf SET id = 7, user_id = 'bob'")
    heads = await session.execute("SELECT user_id, version FROM tidepool.head")
    assert await heads.fetchall() == [("ann", 2)]
    marks = await session.execute("SELECT row_key, version FROM tidepool.change")
    assert await marks.fetchall() == [(["1"], 2)]


# ------------------------------------------------------------- every way of writing


def psql(url: str, script: str) -> None:
    done = subprocess.run(
        [str(binary("psql")), "--no-psqlrc", "-v", "ON_ERROR_STOP=1", "-d", url],
        input=script,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


async def by_copy(session: Session) -> None:
    async with session.cursor() as cursor, cursor.copy("COPY shelf (user_id, id, label) FROM STDIN") as copy:
        for number in range(5, 2_000):
            await copy.write_row(("ann" if number % 2 else "bob", number, None))


async def by_cursor(session: Session) -> None:
    async with session.transaction():
        await session.execute("DECLARE here CURSOR FOR SELECT * FROM shelf WHERE user_id = 'ann' FOR UPDATE")
        await session.execute("FETCH 2 FROM here")
        await session.execute("UPDATE shelf SET label = 'here' WHERE CURRENT OF here")
        await session.execute("DELETE FROM shelf WHERE CURRENT OF here")


async def by_trigger(session: Session) -> None:
    await session.execute(
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO mood (user_id, word) VALUES (NEW.user_id, NEW.label) "
        "ON CONFLICT (user_id) DO UPDATE SET word = excluded.word; RETURN NEW; END $$"
    )
    await session.execute("CREATE TRIGGER note AFTER UPDATE ON shelf FOR EACH ROW EXECUTE FUNCTION note()")
    await session.execute("UPDATE shelf SET label = 'noted ' || id")


async def by_a_trigger_that_puts_back(session: Session) -> None:
    """It comes before ours, so the mark of what it writes is there before that of what it answers to."""
    await session.execute(
        "CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        "INSERT INTO mood (user_id, word) SELECT user_id, word || ' again' FROM gone; RETURN NULL; END $$"
    )
    await session.execute(
        "CREATE TRIGGER again AFTER DELETE ON mood REFERENCING OLD TABLE AS gone "
        "FOR EACH STATEMENT EXECUTE FUNCTION again()"
    )
    await session.execute("DELETE FROM mood")
    assert await value(session, "SELECT bool_and(deleted) FROM tidepool.change WHERE table_name = 'mood'")
    assert await value(session, "SELECT count(*) FROM mood") == 2


async def under_replica_role(session: Session) -> None:
    await session.execute("SET session_replication_role = replica")
    await session.execute("UPDATE shelf SET label = 'unseen' WHERE user_id = 'ann'")
    await session.execute("DELETE FROM book WHERE user_id = 'bob'")
    await session.execute("INSERT INTO shelf (user_id, id) VALUES ('bob', 50)")


WRITES: dict[str, str | Callable[[Session], Awaitable[None]]] = {
    "insert": "INSERT INTO shelf (user_id, id) VALUES ('ann', 10), ('bob', 10)",
    "insert select": "INSERT INTO shelf (user_id, id) SELECT user_id, id + 10 FROM shelf",
    "on conflict do update": (
        "INSERT INTO shelf (user_id, id, label) SELECT u, i, 'upserted' FROM unnest(ARRAY['ann', 'bob']) AS u, "
        "generate_series(2, 6) AS i ON CONFLICT (user_id, id) DO UPDATE SET label = excluded.label"
    ),
    "on conflict moves the key": (
        "INSERT INTO mood (user_id) VALUES ('ann') ON CONFLICT (user_id) DO UPDATE SET user_id = 'cat', word = 'moved'"
    ),
    "update": "UPDATE shelf SET label = 'x' WHERE id = 1",
    "update from": "UPDATE shelf SET label = m.word FROM mood AS m WHERE m.user_id = shelf.user_id",
    "key change": "UPDATE book SET place = place + 100 WHERE shelf_id = 1",
    "cascaded key change": "UPDATE shelf SET id = id + 100 WHERE id < 3",
    "keys that follow each other": "DELETE FROM book WHERE place = 1; UPDATE book SET place = place - 1",
    "owner change": "UPDATE mood SET user_id = 'cat' WHERE user_id = 'ann'",
    "cascaded owner and key change": (
        "UPDATE book SET before_shelf = NULL, after_shelf = NULL; "
        "UPDATE shelf SET user_id = 'cat', id = id + 7 WHERE user_id = 'ann'"
    ),
    "delete": "DELETE FROM book WHERE place = 1",
    "delete using": "DELETE FROM shelf USING mood WHERE mood.user_id = shelf.user_id AND mood.user_id = 'ann'",
    "cascaded delete": "DELETE FROM shelf WHERE id = 1",
    "two references forgotten in one row": "DELETE FROM shelf WHERE id IN (3, 4)",
    "merge": (
        "MERGE INTO shelf AS s USING (VALUES ('ann', 1), ('ann', 2), ('bob', 77), ('cat', 1)) AS n (u, i) "
        "ON s.user_id = n.u AND s.id = n.i WHEN MATCHED AND n.i = 1 THEN DELETE "
        "WHEN MATCHED THEN UPDATE SET label = 'merged', id = 78 "
        "WHEN NOT MATCHED THEN INSERT (user_id, id) VALUES (n.u, n.i)"
    ),
    "merge not matched by source": (
        "MERGE INTO shelf AS s USING (VALUES ('ann', 1)) AS n (u, i) ON s.user_id = n.u AND s.id = n.i "
        "WHEN NOT MATCHED BY SOURCE AND s.user_id = 'ann' THEN DELETE WHEN MATCHED THEN UPDATE SET label = 'only'"
    ),
    "statements within a statement": (
        "WITH gone AS (DELETE FROM book WHERE place = 1 RETURNING *), "
        "renamed AS (UPDATE shelf SET label = 'cte' WHERE id = 2 RETURNING *), "
        "moved AS (INSERT INTO book SELECT user_id, shelf_id, place + 50, title FROM gone RETURNING *) "
        "INSERT INTO mood (user_id, word) SELECT DISTINCT user_id || '!', 'cte' FROM moved"
    ),
    "a row goes and comes back in a statement": (
        "WITH gone AS (DELETE FROM mood RETURNING *) "
        "INSERT INTO mood (user_id, word) SELECT user_id, word || '2' FROM gone"
    ),
    "an edit beside a cascade": "WITH gone AS (DELETE FROM shelf WHERE id = 3) UPDATE book SET title = 'edited'",
    "a block that fails and goes on": (
        "DO $$ BEGIN UPDATE shelf SET label = 'kept'; BEGIN DELETE FROM shelf; RAISE EXCEPTION 'no'; "
        "EXCEPTION WHEN raise_exception THEN NULL; END; DELETE FROM mood; END $$"
    ),
    "through a view": (
        "CREATE VIEW labels AS SELECT user_id, id, label FROM shelf; UPDATE labels SET label = 'seen'; "
        "DELETE FROM labels WHERE id = 1; INSERT INTO labels VALUES ('bob', 30, 'through')"
    ),
    "by a rule": (
        "CREATE RULE also AS ON UPDATE TO mood DO ALSO UPDATE shelf SET label = NEW.word WHERE user_id = NEW.user_id; "
        "UPDATE mood SET word = 'ruled'"
    ),
    "copy": by_copy,
    "where current of": by_cursor,
    "by another trigger": by_trigger,
    "by a trigger that puts back": by_a_trigger_that_puts_back,
    "session_replication_role": under_replica_role,
    "psql": "psql",
}

SEED = """
INSERT INTO shelf (user_id, id) SELECT u, i FROM unnest(ARRAY['ann', 'bob']) AS u, generate_series(1, 4) AS i;
INSERT INTO book SELECT user_id, id, p, 'title', 3, 4 FROM shelf, generate_series(1, 3) AS p WHERE id < 3;
INSERT INTO mood VALUES ('ann', 'calm'), ('bob', 'merry');
"""


SCRIPT = r"""
\set who bob
UPDATE shelf SET label = :'who' WHERE user_id = :'who';
\copy mood (user_id) FROM STDIN
cat
\.
"""


@pytest.mark.parametrize("how", WRITES)
async def test_every_way_of_writing_reaches_the_replicas(
    how: str, primary: Primary, session: Session, store: Store, oracle: Oracle
) -> None:
    write = WRITES[how]
    await session.execute(SEED.encode())
    await assert_caught_up(store, oracle, "ann", "bob", "cat")
    before = store.counts().rebuilds
    if write == "psql":
        await asyncio.to_thread(psql, primary.url, SCRIPT)
    elif isinstance(write, str):
        await session.execute(write.encode())
    else:
        await write(session)
    moved = await value(
        session, "SELECT count(*) FROM tidepool.head WHERE version > 3 OR user_id NOT IN ('ann', 'bob')"
    )
    assert moved > 0
    await assert_caught_up(store, oracle, "ann", "bob", "cat")
    assert store.counts().rebuilds == before


@pytest.mark.parametrize("statement", ["TRUNCATE mood", "TRUNCATE shelf CASCADE", "TRUNCATE book, mood"])
async def test_truncate_is_refused_and_says_what_to_do(statement: str, session: Session) -> None:
    await session.execute(SEED.encode())
    with pytest.raises(errors.FeatureNotSupported) as told:
        await session.execute(statement.encode())
    assert "is synced" in str(told.value)
    assert (told.value.diag.message_hint or "").startswith("Use DELETE FROM ")
    assert await value(session, "SELECT count(*) FROM mood") == 2


# ------------------------------------------------------------- many rows, many users


async def reads_of_heads(session: Session) -> int:
    """Count the rows of `head` that this session has read, less those that it has already told the server."""
    return int(
        await value(
            session,
            "SELECT coalesce(sum(seq_tup_read + coalesce(idx_tup_fetch, 0)), 0) FROM pg_stat_xact_all_tables "
            "WHERE relid = 'tidepool.head'::regclass",
        )
    )


async def test_a_plan_that_was_cached_for_one_row_and_one_user_does_for_many(session: Session) -> None:
    rows, users = 20_000, 4_000
    # The statistics say that reading all heads is cheapest, and these statements' plans are kept by the session.
    await session.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1)")
    await session.execute("VACUUM ANALYZE tidepool.head, tidepool.change")
    for statement in (
        "INSERT INTO shelf (user_id, id) VALUES ('ann', 2)",
        "UPDATE shelf SET label = 'x' WHERE id = 2",
        "DELETE FROM shelf WHERE id = 2",
    ):
        await session.execute(statement.encode())
    for statement in (
        f"INSERT INTO shelf (user_id, id) SELECT 'user ' || i % {users}, i FROM generate_series(1, {rows}) AS i",
        "UPDATE shelf SET label = 'y', id = id - 1",
        f"DELETE FROM shelf WHERE id < {rows // 10}",
    ):
        async with session.transaction():
            before = await reads_of_heads(session)
            done = await session.execute(statement.encode())
            read = await reads_of_heads(session) - before
        assert done.rowcount >= rows // 10
        # For each owner its head is bumped, for each key that was or is it is looked up: never all heads for a row.
        assert read <= 2 * rows + 2 * users + 10, statement
    assert await value(session, "SELECT max(version) FROM tidepool.head WHERE user_id = 'user 7'") == 3


async def test_a_plan_that_was_cached_for_many_users_does_not_read_them_all_for_one(session: Session) -> None:
    for statement in (
        "INSERT INTO shelf (user_id, id) SELECT 'user ' || i, 1 FROM generate_series(1, 5000) AS i",
        "UPDATE shelf SET label = 'x'",
        "DELETE FROM shelf WHERE user_id > 'user 4'",
    ):
        await session.execute(statement.encode())
    for statement in (
        "INSERT INTO shelf (user_id, id) VALUES ('user 1', 2)",
        "UPDATE shelf SET label = 'y', id = 3 WHERE user_id = 'user 1' AND id = 2",
        "DELETE FROM shelf WHERE user_id = 'user 1'",
    ):
        async with session.transaction():
            before = await reads_of_heads(session)
            await session.execute(statement.encode())
            assert await reads_of_heads(session) - before <= 6, statement


async def test_writers_of_many_users_at_once_do_not_deadlock(primary: Primary, session: Session) -> None:
    users = [f"user {number}" for number in range(60)]
    # The rows of shelf 1 lie in one order of the users, those of shelf 2 in the other.
    for shelf, order in ((1, users), (2, users[::-1])):
        for user in order:
            await session.execute("INSERT INTO shelf (user_id, id) VALUES (%s, %s)", [user, shelf])

    async def write(shelf: int) -> None:
        async with connected(primary, options="-c deadlock_timeout=10ms") as mine:
            for turn in range(40):
                await mine.execute("UPDATE shelf SET label = %s WHERE id = %s", [str(turn), shelf])

    await asyncio.gather(write(1), write(2))
    assert await value(session, "SELECT min(version) = max(version) AND min(version) = 82 FROM tidepool.head")


async def test_writers_that_do_deadlock_lose_one_of_them_and_no_change(
    primary: Primary, session: Session, store: Store, oracle: Oracle
) -> None:
    await session.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1), ('ann', 2), ('bob', 1), ('bob', 2)")
    met = asyncio.Barrier(2)

    async def write(first: str, second: str, shelf: int) -> bool:
        async with connected(primary, options="-c deadlock_timeout=20ms") as mine:
            try:
                async with mine.transaction():
                    for user in (first, second):
                        await mine.execute(
                            "UPDATE shelf SET label = %s WHERE user_id = %s AND id = %s", [first, user, shelf]
                        )
                        if user == first:
                            await met.wait()
            except errors.DeadlockDetected:
                return False
            return True

    assert sorted(await asyncio.gather(write("ann", "bob", 1), write("bob", "ann", 2))) == [False, True]
    assert [await version(session, user) for user in ("ann", "bob")] == [2, 2]
    await assert_caught_up(store, oracle, "ann", "bob")


# ------------------------------------------------------------- who writes, and in which session


@pytest.fixture
async def clerk(primary: Primary, session: Session) -> AsyncIterator[Session]:
    """The session of a role that may insert shelves, and nothing else."""
    name = f"clerk_{random.randrange(10**9)}"
    await session.execute(f"CREATE ROLE {name}; GRANT INSERT ON shelf TO {name}".encode())
    try:
        async with connected(primary) as connection:
            await connection.execute(f"SET ROLE {name}".encode())
            yield connection
    finally:
        await session.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


async def test_who_may_only_insert_is_captured_and_may_not_touch_the_marks(
    clerk: Session, store: Store, oracle: Oracle
) -> None:
    await store.sync("ann")
    await clerk.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1)")
    await assert_caught_up(store, oracle, "ann")
    for forbidden in (
        "SELECT * FROM shelf",
        "UPDATE shelf SET label = 'x'",
        "SELECT * FROM tidepool.head",
        "INSERT INTO tidepool.head VALUES ('ann', 99, '1', 0)",
        "DELETE FROM tidepool.change",
        "ALTER TABLE shelf DISABLE TRIGGER ALL",
    ):
        with pytest.raises(errors.InsufficientPrivilege):
            await clerk.execute(forbidden.encode())


async def test_names_in_the_writers_search_path_do_not_lead_capture_astray(
    session: Session, store: Store, oracle: Oracle
) -> None:
    await session.execute("CREATE TEMP TABLE head (user_id text); CREATE TEMP TABLE change (user_id text)")
    await session.execute(
        "CREATE SCHEMA mine; "  # no function is looked for among what is temporary
        "CREATE FUNCTION mine.pg_current_xact_id() RETURNS xid8 LANGUAGE sql AS $$ SELECT '1'::xid8 $$"
    )
    await session.execute("SET search_path = pg_temp, mine, public, pg_catalog")
    assert await value(session, "SELECT pg_current_xact_id()::text") == "1"
    await session.execute("INSERT INTO public.shelf (user_id, id) VALUES ('ann', 1)")
    assert await value(session, "SELECT count(*) FROM head") == 0
    assert await value(session, "SELECT xid::text::bigint > 1 FROM tidepool.head")
    await assert_caught_up(store, oracle, "ann")


ODD_SETTINGS = [
    "DateStyle = 'German'",
    "DateStyle = 'SQL, DMY'",
    "DateStyle = 'Postgres, MDY'",
    "TimeZone = 'Pacific/Apia'",  # had no 30 December 2011
    "TimeZone = 'America/Sao_Paulo'",  # had days that began at one o'clock
    "TimeZone = 'Asia/Kathmandu'",
    "IntervalStyle = 'sql_standard'",
    "bytea_output = 'escape'",
    "extra_float_digits = -15",
    "standard_conforming_strings = off",
    "quote_all_identifiers = on",
    "array_nulls = off",
    "transform_null_equals = on",
    "client_encoding = 'SQL_ASCII'",
    "default_transaction_isolation = 'serializable'",
    "plan_cache_mode = 'force_generic_plan'",
    "enable_indexscan = off",
    "session_replication_role = 'replica'",
]

# Constants that mean the same in every session.
ROWS = r"""
INSERT INTO ledger (owner, a_text, a_bool, a_date, a_time, a_timestamp, a_timestamptz, a_bytea, a_bigint, amount)
SELECT $$user$$, t, b, d::date, '23:59:59.999999', s::timestamp, z::timestamptz, decode(x, 'hex'),
  -9223372036854775808, 1
FROM (VALUES ($$a\b$$, true, '2011-12-29', '2011-12-30 00:30:00', '2011-12-30T00:30:00+00', '5c27'),
             ($$a\\b$$, false, '2011-12-30', '2018-11-04 00:00:00', '2018-11-04T00:00:00+00', '00ff'),
             ('', true, '2011-12-31', '0044-03-15 12:00:00 BC', '0044-03-15 12:00:00+00 BC', ''),
             ('é🐚', NULL::boolean IS NULL, '2018-11-04', 'infinity', '-infinity', '5c5c'),
             ('x', true, '2038-01-19', '1999-12-31 23:59:59.999999', '1999-12-31T23:59:59.999999+00', '414243'),
             ('y', true, '5874897-12-31', '294276-12-31 00:00', '294276-12-31 00:00+00', '20')) AS v (t, b, d, s, z, x)
"""


async def test_the_settings_of_the_writing_session_change_nothing(
    primary: Primary, session: Session, store: Store, oracle: Oracle
) -> None:
    async def write(mine: Session, user: str) -> tuple[Any, Any]:
        """Write, edit, move and delete; give the marks and the replica's rows."""
        for statement in (
            ROWS.replace("$$user$$", f"'{user}'"),
            f"UPDATE ledger SET amount = 2 WHERE owner = '{user}' AND a_bool",
            f"UPDATE ledger SET a_date = a_date - 1 WHERE owner = '{user}' AND a_text LIKE 'a%'",
            f"DELETE FROM ledger WHERE owner = '{user}' AND a_text IN ('x', '')",
        ):
            await mine.execute(statement.encode())
            await store.sync(user)
        marks = await session.execute(
            "SELECT row_key, version, deleted FROM tidepool.change WHERE user_id = %s ORDER BY row_key", [user]
        )
        await assert_caught_up(store, oracle, user)
        return await marks.fetchall(), (await store.read(user, oracle.held)).value

    expected = await write(session, "plain")
    assert len(expected[0]) == 8  # six rows, two of which moved
    for number, setting in enumerate(ODD_SETTINGS):
        async with connected(primary) as mine:
            await mine.execute(f"SET {setting}".encode())
            assert await write(mine, f"odd {number}") == expected, setting


# ------------------------------------------------------------- installing


async def test_installing_again_does_nothing(primary: Primary) -> None:
    async with primary.transaction() as conn:
        assert await capture_pending(conn, shapes.catalog) == []
        assert await install_capture(conn, shapes.catalog) == []


@pytest.mark.parametrize(
    "harm",
    [
        "DROP TRIGGER tidepool_update ON shelf",
        "ALTER TABLE shelf DISABLE TRIGGER ALL",
        "ALTER TABLE shelf DISABLE TRIGGER tidepool_delete",
        "ALTER TABLE shelf ENABLE TRIGGER tidepool_insert",  # and not ALWAYS
        "DROP FUNCTION tidepool.capture_shelf_insert CASCADE",
    ],
)
async def test_triggers_that_were_not_at_work_are_found_and_every_replica_starts_over(
    harm: str, primary: Primary, session: Session, store: Store, oracle: Oracle
) -> None:
    await session.execute(SEED.encode())
    await assert_caught_up(store, oracle, "ann", "bob", "dan")
    rebuilds = store.counts().rebuilds
    await session.execute(harm.encode())
    await session.execute("SET session_replication_role = replica")  # so that the one that is not ALWAYS sleeps too
    await session.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 90), ('cat', 90), ('dan', 90)")
    await session.execute("UPDATE shelf SET label = 'by night' WHERE user_id = 'bob'")
    async with primary.transaction() as conn:
        assert await capture_pending(conn, shapes.catalog) == ['"public"."shelf"']
        assert await install_capture(conn, shapes.catalog) == ['"public"."shelf"']
        assert await capture_pending(conn, shapes.catalog) == []
        (moved,) = await conn.execute(sa.text("SELECT every(xid = pg_current_xact_id()) FROM tidepool.head"))
        assert moved.every, "else the tail would pass them by"
    # They stand at a version at which replicas may have been built without these rows: the oracle must start over too.
    fresh = Oracle(primary, shapes.metadata)
    store._syncing._feed = fresh
    await assert_caught_up(store, fresh, "ann", "bob", "cat", "dan")
    assert store.counts().rebuilds == rebuilds + 4


async def as_by_0_10_0(session: Session) -> None:
    """Have the triggers noted as that release does: it knows of no other note."""
    await session.execute("DELETE FROM tidepool.captured")
    for table in shapes.catalog:
        text = "\n".join([_REFUSE_TRUNCATE, *capture_sql(table)])
        noted = (table_sql(table), hashlib.sha256(text.encode()).hexdigest())
        await session.execute("INSERT INTO tidepool.captured VALUES (%s, %s)", noted)


async def test_of_triggers_that_0_10_0_installed_it_is_noted_what_travels_and_that_release_finds_them_as_its_own(
    primary: Primary, session: Session
) -> None:
    """Its nodes go on beside those of this release; to them, a table that is noted in another way is pending."""
    await as_by_0_10_0(session)
    its_own = await (await session.execute("SELECT * FROM tidepool.captured")).fetchall()
    async with connected(primary) as other, other.transaction():
        await other.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1)")  # who writes is not waited for
        async with primary.transaction() as conn:
            await conn.execute(sa.text("SET LOCAL lock_timeout = '1ms'"))
            assert await install_capture(conn, shapes.catalog) == sorted(table for table, _ in its_own)
            assert await capture_pending(conn, shapes.catalog) == []
    now = await (await session.execute("SELECT * FROM tidepool.captured")).fetchall()
    assert set(its_own) < set(now)


async def test_who_writes_to_one_table_and_then_to_another_is_not_waited_for_in_a_circle(
    primary: Primary, session: Session
) -> None:
    await session.execute("DELETE FROM tidepool.captured")

    async def install() -> list[str]:
        async with primary.transaction() as conn:
            return await install_capture(conn, shapes.catalog)

    async with connected(primary) as other, asyncio.timeout(30):
        await session.execute("SET deadlock_timeout = '10s'")  # who was there first finds no deadlock first
        async with session.transaction():
            await session.execute("INSERT INTO shelf (user_id, id) VALUES ('ann', 1)")
            installing = asyncio.create_task(install())
            while not await (await other.execute(WAITS_FOR_SHELF)).fetchone():
                await asyncio.sleep(0.01)
            for table in ("mood", "ledger", "book"):
                await session.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE".encode())
        assert len(await installing) == len(shapes.catalog)


def late(*columns: sa.Column[Any]) -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table(
        "late",
        metadata,
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("id", sa.Integer, primary_key=True),
        *columns,
        info=synced(owner="user_id"),
    )
    return metadata


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE late (user_id text NOT NULL, id integer PRIMARY KEY)",
        "CREATE TABLE late (user_id text NOT NULL, id integer NOT NULL); CREATE UNIQUE INDEX ON late (id, user_id)",
    ],
)
async def test_a_table_joins_whose_key_in_the_database_is_another_and_tells_its_rows_apart(
    made: str, primary: Primary, session: Session
) -> None:
    await session.execute(made.encode())
    async with primary.transaction() as conn:
        assert await install_capture(conn, Catalog.of(late())) == ['"public"."late"']


async def test_who_has_rows_in_a_table_that_joins_or_that_tells_more_of_them_can_go_on_from_no_cursor(
    primary: Primary, session: Session
) -> None:
    await session.execute(SEED.encode())
    await session.execute("CREATE TABLE late (user_id text, id integer, note text, PRIMARY KEY (user_id, id))")
    await session.execute("INSERT INTO late VALUES ('ann', 1), ('ann', 2), ('new', 1)")

    async def pulled(catalog: Catalog, user: str, since: Cursor | None = None) -> PostgresPull:
        async with PostgresFeed(primary, catalog).pull(user, since) as pull:
            return pull

    async def stand(catalog: Catalog) -> dict[str, Cursor]:
        return {user: (await pulled(catalog, user)).cursor for user in ("ann", "bob", "new")}

    async def joined(catalog: Catalog) -> list[str]:
        async with primary.transaction() as conn:
            return await install_capture(conn, catalog)

    before = await stand(shapes.catalog)
    for metadata in (late(), late(sa.Column("note", sa.Text))):
        catalog = Catalog.of(metadata)
        assert await joined(catalog) == ['"public"."late"']
        reasons = {user: (await pulled(catalog, user, since)).reason for user, since in before.items()}
        assert reasons == {"ann": Reason.FLOOR, "bob": None, "new": Reason.FLOOR}
        before = await stand(catalog)
        # An index that is declared, or triggers that are written otherwise, change no row.
        await session.execute("UPDATE tidepool.captured SET digest = 'other' WHERE table_name NOT LIKE 'rows of %'")
        assert await joined(catalog) == ['"public"."late"']
        await session.execute("DELETE FROM tidepool.captured WHERE table_name LIKE 'rows of %'")
        assert await joined(catalog) == ['"public"."late"']
        assert await stand(catalog) == before


async def test_a_table_with_rows_joins_later_and_its_rows_are_in_every_new_replica(
    primary: Primary, session: Session, data_dir: Path
) -> None:
    await session.execute("CREATE TABLE late (user_id text, id integer, PRIMARY KEY (user_id, id))")
    await session.execute("INSERT INTO late VALUES ('ann', 1), ('ann', 2), ('bob', 1)")
    metadata = late()
    catalog = Catalog.of(metadata)
    async with primary.transaction() as conn:
        assert await install_capture(conn, catalog) == ['"public"."late"']
    oracle = Oracle(primary, metadata)
    store = Store(data_dir, catalog, oracle)
    await store.open()
    try:
        await assert_caught_up(store, oracle, "ann", "bob")
        await session.execute("UPDATE late SET id = 3 WHERE id = 2")
        await assert_caught_up(store, oracle, "ann", "bob")
    finally:
        await store.close()


UNFIT = {
    "a view": ("CREATE VIEW unfit AS SELECT 'ann' AS user_id, 1 AS id", "it is a view"),
    "partitioned": (
        "CREATE TABLE unfit (user_id text, id integer, PRIMARY KEY (user_id, id)) PARTITION BY HASH (user_id)",
        "it is partitioned or inherits",
    ),
    "inherited": (
        (
            "CREATE TABLE unfit (user_id text, id integer, PRIMARY KEY (user_id, id)); "
            "CREATE TABLE heir () INHERITS (unfit)"
        ),
        "it is partitioned or inherits",
    ),
    "an heir": (
        (
            "CREATE TABLE ancestor (user_id text, id integer); "
            "CREATE TABLE unfit (PRIMARY KEY (user_id, id)) INHERITS (ancestor)"
        ),
        "it is partitioned or inherits",
    ),
    "unlogged": (
        "CREATE UNLOGGED TABLE unfit (user_id text, id integer, PRIMARY KEY (user_id, id))",
        "it is unlogged or temporary",
    ),
    "texts that differ are equal": (
        # Made in this way for this Postgres is built without ICU, whose collations can be so.
        (
            'CREATE COLLATION blurred FROM "POSIX"; '
            "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'blurred'; "
            "CREATE TABLE unfit (user_id text COLLATE blurred, id integer, PRIMARY KEY (user_id, id))"
        ),
        "by the collation of user_id",
    ),
    "texts that differ are equal in the key": (
        (
            'CREATE COLLATION blurred FROM "POSIX"; '
            "UPDATE pg_collation SET collisdeterministic = false WHERE collname = 'blurred'; "
            "CREATE TABLE unfit (user_id text, id text COLLATE blurred, PRIMARY KEY (user_id, id))"
        ),
        "by the collation of id",
    ),
    "a row may be nobody's": (
        "CREATE TABLE unfit (user_id text, id integer PRIMARY KEY)",
        "these columns of its key may be NULL: user_id",
    ),
    "a key may be two rows'": (
        (
            "CREATE TABLE unfit (user_id text NOT NULL, id integer NOT NULL, kind text); "
            "CREATE UNIQUE INDEX ON unfit (user_id, id) WHERE kind = 'a'; "
            "CREATE UNIQUE INDEX ON unfit (user_id, (id % 10)); "
            "CREATE UNIQUE INDEX ON unfit (user_id, id, kind); "
            "CREATE INDEX ON unfit (user_id, id)"
        ),
        "nothing in the database says that its key is unique: user_id, id",
    ),
}


@pytest.mark.parametrize(("made", "why"), UNFIT.values(), ids=UNFIT)
async def test_a_table_that_cannot_be_captured_as_it_is_in_the_database_is_refused(
    made: str, why: str, empty_database_url: str
) -> None:
    primary = Primary(empty_database_url)
    await primary.open()
    metadata = sa.MetaData()
    sa.Table(
        "unfit",
        metadata,
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("id", sa.Integer, primary_key=True),
        info=synced(owner="user_id"),
    )
    engine = sa.MetaData()
    engine_tables(engine)
    try:
        async with primary.transaction() as conn:
            await conn.execute(sa.schema.CreateSchema(SCHEMA))
            await conn.run_sync(engine.create_all)
            for statement in made.split("; "):
                await conn.execute(sa.text(statement))
        with pytest.raises(UnsupportedDeclaration, match=why):
            async with primary.transaction() as conn:
                await install_capture(conn, Catalog.of(metadata))
    finally:
        await primary.close()


async def test_a_table_that_is_not_there_is_a_matter_of_migrations(primary: Primary, session: Session) -> None:
    await session.execute("DROP TABLE shelf CASCADE")
    with pytest.raises(MigrationsPending):
        async with primary.transaction() as conn:
            await install_capture(conn, shapes.catalog)


async def test_a_table_whose_rows_may_be_hidden_from_the_role_is_refused(primary: Primary, clerk: Session) -> None:
    role = await value(clerk, "SELECT current_user")
    async with primary.transaction() as conn:
        await conn.execute(sa.text("ALTER TABLE shelf ENABLE ROW LEVEL SECURITY"))
        await check_fitness(conn, shapes.catalog["shelf"], "shelf")  # whom it does not concern
        await conn.execute(sa.text(f"SET LOCAL ROLE {role}"))
        with pytest.raises(UnsupportedDeclaration, match="row-level security hides rows"):
            await check_fitness(conn, shapes.catalog["shelf"], "shelf")
        await conn.rollback()
