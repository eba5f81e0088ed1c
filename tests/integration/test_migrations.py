"""The chain of migrations makes the database that the program declares, and nothing else."""

from __future__ import annotations

import asyncio
import gc
import random
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from psycopg.conninfo import make_conninfo

from primary.as_declared import NotAsDeclared, OtherSchema
from primary.capture import SCHEMA, engine_tables, install_capture
from primary.declaration import Catalog, synced
from primary.errors import InTheWay, NotAllowed, UnsupportedDeclaration
from primary.gallery.tables import catalog, metadata
from primary.migrate import (
    _LOCK,
    VERSION_TABLE,
    StepFailed,
    UnknownRevision,
    _config,
    migrate,
    pending,
    write_step,
)
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from replica.store import Store
from tests.support.databases import through
from tests.support.replicas import assert_same

STEPS = len(list((resources.files("primary") / "migrations" / "versions").glob("0*.py")))  # type: ignore[attr-defined]

# Whatever a table or function can differ in, as Postgres itself writes it.
DESCRIPTION = f"""
WITH ours AS (
  SELECT c.oid, n.nspname || '.' || c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE n.nspname IN ('public', '{SCHEMA}') AND c.relkind = 'r' AND c.relname <> '{VERSION_TABLE}'
)
SELECT 'table ' || name || ' # ' || coalesce(obj_description(oid, 'pg_class'), '') FROM ours
UNION ALL
SELECT concat_ws(' ', 'column', name, a.attnum, a.attname, format_type(a.atttypid, a.atttypmod), l.collname,
    CASE WHEN a.attnotnull THEN 'not null' END, pg_get_expr(d.adbin, d.adrelid),
    '#', col_description(ours.oid, a.attnum))
  FROM ours JOIN pg_attribute a ON a.attrelid = ours.oid AND a.attnum > 0 AND NOT a.attisdropped
  LEFT JOIN pg_attrdef d ON d.adrelid = ours.oid AND d.adnum = a.attnum
  LEFT JOIN pg_collation l ON l.oid = a.attcollation
UNION ALL
SELECT concat_ws(' ', 'constraint', name, k.conname, pg_get_constraintdef(k.oid), k.convalidated)
  FROM ours JOIN pg_constraint k ON k.conrelid = ours.oid
UNION ALL
SELECT 'index ' || pg_get_indexdef(i.indexrelid) FROM ours JOIN pg_index i ON i.indrelid = ours.oid
UNION ALL
SELECT concat_ws(' ', 'trigger', name, t.tgenabled, pg_get_triggerdef(t.oid))
  FROM ours JOIN pg_trigger t ON t.tgrelid = ours.oid AND NOT t.tgisinternal
UNION ALL
SELECT 'function ' || pg_get_functiondef(p.oid)
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname IN ('public', '{SCHEMA}')
"""

OF_THE_FIRST_RELEASE = """
INSERT INTO image (user_id, prompt, image_url, created_at)
  SELECT u, 'p' || i, 'https://i.example/' || i, timestamptz '2024-01-01' + i * interval '1 min'
  FROM unnest(ARRAY['ann', 'bob']) AS u, generate_series(1, 60) AS i;
INSERT INTO image_activity (user_id, image_id, is_favorite, rating, view_count, o_count)
  SELECT user_id, id, true, 80, 3, 2 FROM image WHERE prompt < 'p3';
INSERT INTO image_event (user_id, image_id, kind)
  SELECT user_id, id, kind FROM image, unnest(ARRAY['view', 'o']) AS kind;
INSERT INTO album (user_id, title, cover_image_id) SELECT DISTINCT ON (user_id) user_id, 'best', id FROM image;
INSERT INTO album_image (user_id, album_id, image_id)
  SELECT i.user_id, a.id, i.id FROM album AS a JOIN image AS i USING (user_id);
INSERT INTO profile (user_id, username, sync_upstream) VALUES ('ann', 'ann', true);
INSERT INTO image_edit (user_id, image_id, field, new_value) SELECT user_id, id, 'prompt', '1' FROM image"""
"""What its users had: rows of every table, totals that no events tell of, and events that no totals count."""


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Primary]:
    primary = Primary(url)
    await primary.open()
    try:
        yield primary
    finally:
        await primary.close()


async def description(primary: Primary) -> set[str]:
    async with primary.connection() as connection:
        rows = await (await connection.execute(DESCRIPTION)).fetchall()
    return {text for (text,) in rows}


async def execute(primary: Primary, sql: str) -> None:
    async with primary.connection() as connection:
        await connection.execute(sql)


def declared() -> list[sa.MetaData]:
    engine = sa.MetaData()
    engine_tables(engine)
    return [engine, metadata]


async def create_what_is_declared(primary: Primary) -> None:
    async with primary.transaction() as connection:
        await connection.execute(sa.schema.CreateSchema(SCHEMA))
        for each in declared():
            await connection.run_sync(each.create_all)
        await install_capture(connection, catalog)


async def test_the_chain_makes_exactly_the_declared_database(primary: Primary, empty_database_url: str) -> None:
    async with opened(empty_database_url) as other:
        await create_what_is_declared(other)
        assert await description(primary) == await description(other)


@pytest.mark.parametrize(
    "drift",
    [
        "ALTER TABLE image DROP CONSTRAINT ck_image_prompt",
        "ALTER TABLE image ALTER source SET DEFAULT 'elsewhere'",
        "ALTER TABLE image ALTER model SET NOT NULL",
        'ALTER TABLE image ALTER user_id TYPE text COLLATE "default"',
        """ALTER TABLE album DROP CONSTRAINT fk_album_image, ADD CONSTRAINT fk_album_image
        FOREIGN KEY (user_id, cover_image_id) REFERENCES image (user_id, id) ON DELETE SET NULL""",
        "DROP INDEX ix_image_event_image_id_user_id",
        "DROP TRIGGER touch_row_version ON image",
        "ALTER TABLE image DISABLE TRIGGER tidepool_insert",
        "CREATE OR REPLACE FUNCTION touch_row_version() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "COMMENT ON TABLE image IS 'pictures'",
    ],
)
async def test_a_database_that_drifted_is_told_from_the_declared_one(primary: Primary, drift: str) -> None:
    before = await description(primary)
    await execute(primary, drift)
    assert await description(primary) != before


@pytest.mark.filterwarnings("ignore:Did not recognize type 'xid8'")
async def test_alembic_finds_nothing_to_write(primary: Primary) -> None:
    def differences(connection: sa.Connection) -> list[object]:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "include_name": lambda name, kind, _: (
                    name in {None, SCHEMA} if kind == "schema" else name != VERSION_TABLE
                ),
                "compare_type": True,
                "compare_server_default": True,
                "target_metadata": declared(),
            },
        )
        return list(compare_metadata(context, declared()))  # type: ignore[arg-type]  # it takes several

    async with primary.transaction() as connection:
        assert await connection.run_sync(differences) == []


@pytest.fixture
def chain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the chain, to write steps into; give where they are."""
    copy = tmp_path / "migrations"
    shutil.copytree(str(resources.files("primary") / "migrations"), copy)

    def config(**handed: Any) -> Config:
        made = _config(**handed)
        made.set_main_option("script_location", str(copy))
        return made

    monkeypatch.setattr("primary.migrate._config", config)
    return copy / "versions"


async def test_a_table_in_a_schema_of_its_own_is_written_into_one_step_and_not_into_the_next(
    chain: Path, empty_database_url: str
) -> None:
    apart = sa.MetaData(schema="Apart")
    note = sa.Table(
        "note",
        apart,
        sa.Column("ownedBy", sa.Text, primary_key=True),
        sa.Column("kind", sa.Enum("a", "b", name="Kind", metadata=apart), primary_key=True),
        info=synced(owner="ownedBy"),
    )
    both = Catalog([*catalog, *Catalog.of(apart)])
    async with opened(empty_database_url) as primary:
        await migrate(primary, Catalog([]))
        written = Path(await write_step(primary, "add note", [metadata, apart]))
        assert written.parent == chain
        assert "capture of Apart.note" in await migrate(primary, both)
        await execute(primary, "INSERT INTO \"Apart\".note VALUES ('ann', 'b')")
        async with PostgresFeed(primary, both).pull("ann", None) as pull:
            batches = await asyncio.to_thread(list, pull.batches())
        assert [batch.rows for batch in batches if batch.table == note.name] == [[("b",)]]
        nothing = Path(await write_step(primary, "add nothing", [metadata, apart]))
        assert "op." not in nothing.read_text().partition("def upgrade")[2]


async def test_migrating_tells_what_it_did_and_a_second_time_does_nothing(empty_database_url: str) -> None:
    async with opened(empty_database_url) as primary:
        announced = await pending(primary, catalog)
        assert announced[0].startswith("0001 ")
        assert {f"capture of public.{table.name}" for table in catalog} == set(announced[STEPS:])
        assert await migrate(primary, catalog) == announced
        after = await description(primary)
        assert await pending(primary, catalog) == []
        assert await migrate(primary, catalog) == []
        assert await description(primary) == after


async def test_to_look_what_is_pending_leaves_nothing_in_memory(primary: Primary) -> None:
    """As /health/ready does, each second for as long as the server runs: Alembic makes a table of its own each time."""

    def tables() -> int:
        gc.collect()
        return sum(type(each) is sa.Table for each in gc.get_objects())

    await pending(primary, catalog)
    before = tables()
    for _ in range(5):
        assert await pending(primary, catalog) == []
    assert tables() == before


async def test_of_migrations_at_once_one_does_everything_and_the_others_wait(empty_database_url: str) -> None:
    async with opened(empty_database_url) as one, opened(empty_database_url) as two:
        done = await asyncio.gather(migrate(one, catalog), migrate(two, catalog), migrate(one, catalog))
        assert sorted(map(len, done)) == [0, 0, STEPS + len(catalog)]
        assert await pending(two, catalog) == []
        assert not one._handed, "it would keep each task and connection"


async def test_migrations_at_once_wait_for_each_other_whatever_the_databases_isolation(empty_database_url: str) -> None:
    async with opened(empty_database_url) as primary:
        await execute(
            primary,
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_isolation = serializable', "
            "current_database()); END $$",
        )
    async with opened(empty_database_url) as one, opened(empty_database_url) as two:
        done = await asyncio.gather(migrate(one, catalog), migrate(two, catalog))
        assert sorted(map(len, done)) == [0, STEPS + len(catalog)]


async def test_a_migration_takes_as_long_as_it_takes(empty_database_url: str) -> None:
    async with through(empty_database_url, answer_timeout_s=0.05) as primary:
        assert len(await migrate(primary, catalog)) == STEPS + len(catalog)


async def test_a_roles_time_limit_for_a_statement_is_not_one_for_a_migration(primary: Primary) -> None:
    limited = make_conninfo(primary.url, options="-c statement_timeout=250")
    async with primary.transaction() as other, through(limited) as slow:
        await other.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))  # another is migrating
        migrating = asyncio.create_task(migrate(slow, catalog))
        await asyncio.wait([migrating], timeout=0.5)
    assert await migrating == []


async def test_a_migration_does_not_wait_long_for_a_table_that_others_then_wait_for_too(primary: Primary) -> None:
    await execute(primary, "DROP TRIGGER tidepool_update ON album")
    async with primary.connection() as connection, through(primary.url, answer_timeout_s=0.3) as other:
        async with connection.transaction():
            await connection.execute("INSERT INTO album (user_id, title) VALUES ('ann', 'held')")
            with pytest.raises(InTheWay):
                await migrate(other, catalog)
        assert await migrate(other, catalog) == ["capture of public.album"]
        async with other.connection() as migrated:  # which is to be as patient as any
            assert await (await migrated.execute("SHOW lock_timeout")).fetchone() == ("0",)


async def test_who_would_make_the_tables_elsewhere_is_told(empty_database_url: str) -> None:
    async with opened(empty_database_url) as primary:
        await execute(primary, "CREATE SCHEMA postgres")  # of the role's name, so the first that it makes tables in
        with pytest.raises(OtherSchema, match="the schema postgres, not in public"):
            await migrate(primary, catalog)
        await execute(primary, "DROP SCHEMA postgres")
        assert len(await migrate(primary, catalog)) == STEPS + len(catalog)


async def test_a_role_that_may_not_use_public_is_told_of_that_right_and_not_of_its_search_path(
    empty_database_url: str,
) -> None:
    async with opened(empty_database_url) as owner:
        await execute(owner, "REVOKE ALL ON SCHEMA public FROM PUBLIC")
        await execute(owner, "CREATE ROLE visitor LOGIN")
        try:
            async with through(make_conninfo(owner.url, user="visitor")) as visitor:
                with pytest.raises(NotAllowed, match="permission denied for schema public"):
                    await migrate(visitor, catalog)
        finally:
            await execute(owner, "DROP ROLE visitor")


async def test_a_search_path_of_nothing_that_is_there_is_told_as_that(empty_database_url: str) -> None:
    async with through(make_conninfo(empty_database_url, options="-c search_path=nowhere")) as lost:
        with pytest.raises(OtherSchema, match="would lie in no schema, not in public"):
            await migrate(lost, catalog)


async def test_a_database_of_the_first_release_keeps_its_rows_and_its_replicas_are_built_anew(
    empty_database_url: str, data_dir: Path
) -> None:
    async with opened(empty_database_url) as primary:
        async with primary.transaction() as connection:
            await connection.execute(sa.schema.CreateSchema(SCHEMA))
            await connection.run_sync(lambda conn: command.upgrade(_config(connection=conn), "0001"))
            there = await connection.run_sync(lambda conn: sa.inspect(conn).get_table_names())
            await install_capture(connection, Catalog([table for table in catalog if table.name in there]))
        await execute(primary, OF_THE_FIRST_RELEASE)
        told = "SELECT user_id, view_count, o_count, rating FROM image_activity ORDER BY 1, 2, image_id"
        async with primary.connection() as connection:
            before = await (await connection.execute(told)).fetchall()
            heads = dict(await (await connection.execute(f"SELECT user_id, version FROM {SCHEMA}.head")).fetchall())
        announced = await pending(primary, catalog)
        assert "capture of public.upstream" in announced
        assert await migrate(primary, catalog) == announced
        assert await pending(primary, catalog) == []
        async with primary.connection() as connection:
            assert await (await connection.execute(told)).fetchall() == before
            wrong = (
                "SELECT count(*) FROM image_activity AS a JOIN image AS i USING (user_id) "
                "WHERE i.id = a.image_id AND i.created_at <> a.image_created_at"
            )
            assert await (await connection.execute(wrong)).fetchone() == (0,)
            moved = dict(await (await connection.execute(f"SELECT user_id, version FROM {SCHEMA}.head")).fetchall())
            assert all(moved[user] > version for user, version in heads.items()), "rows changed, so versions have"
        store = Store(data_dir, catalog, PostgresFeed(primary, catalog))
        await store.open()
        try:
            for user in heads:
                await store.sync(user)
                await execute(primary, f"DELETE FROM image_event WHERE user_id = '{user}' AND kind = 'o'")
                await store.sync(user)
                await assert_same(store, primary, user)
        finally:
            await store.close()


async def test_a_migration_that_fails_leaves_the_database_as_it_was(empty_database_url: str) -> None:
    async with opened(empty_database_url) as primary:
        await execute(primary, "CREATE TABLE album_image (mine int)")
        before = await description(primary)
        told = r'^0001_the_first_tables\.py, line \d+: relation "album_image" already exists$'
        with pytest.raises(StepFailed, match=told):
            await migrate(primary, catalog)
        assert await description(primary) == before
        await execute(primary, "DROP TABLE album_image")
        assert len(await migrate(primary, catalog)) == STEPS + len(catalog)


async def test_a_right_that_a_role_lacks_is_not_told_as_a_fault_of_a_step(empty_database_url: str) -> None:
    role = f"maker_{random.randrange(10**9)}"
    async with opened(empty_database_url) as primary:
        # It may make the engine's tables, and none in public.
        await execute(
            primary,
            f"CREATE ROLE {role}; "
            f"DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO {role}', current_database()); END $$",
        )
        try:
            async with opened(make_conninfo(empty_database_url, options=f"-c role={role}")) as other:
                with pytest.raises(NotAllowed, match="permission denied for schema public"):
                    await migrate(other, catalog)
        finally:
            await execute(primary, f"DROP OWNED BY {role} CASCADE; DROP ROLE {role}")


@pytest.mark.parametrize(
    ("drift", "told"),
    [
        ("DROP TABLE album_image CASCADE", "album_image: there is no such table in the database"),
        ("ALTER TABLE album DROP COLUMN description", "album: its table in the database has no column description"),
        (
            "ALTER TABLE album ALTER created_at TYPE timestamp, ALTER row_version TYPE numeric",
            "album: in .* of other types: created_at is timestamp without time zone, row_version is numeric",
        ),
        ("ALTER TABLE image_edit ALTER old_value TYPE text", "image_edit: in .* of other types: old_value is text"),
        (
            "ALTER TABLE album ALTER title DROP NOT NULL, ALTER created_at DROP NOT NULL",
            "album: in the database these columns may be NULL, .*: created_at, title",
        ),
    ],
)
async def test_what_is_declared_and_made_by_no_step_is_named(primary: Primary, drift: str, told: str) -> None:
    await execute(primary, drift)
    for attempt in (pending, migrate):
        with pytest.raises(NotAsDeclared, match=told) as refused:
            await attempt(primary, catalog)
        assert "step" in refused.value.hint


@pytest.mark.parametrize(
    ("drift", "told"),
    [
        ("ALTER TABLE album_image DROP CONSTRAINT pk_album_image CASCADE", "album_image: nothing .* its key is unique"),
        ("ALTER TABLE image_edit SET UNLOGGED", "image_edit: it is unlogged or temporary"),
    ],
)
async def test_a_table_that_cannot_be_captured_is_named_before_anything_is_done(
    primary: Primary, drift: str, told: str
) -> None:
    await execute(primary, f"{drift}; DELETE FROM {SCHEMA}.captured")
    before = await description(primary)
    for attempt in (pending, migrate):
        with pytest.raises(UnsupportedDeclaration, match=told):
            await attempt(primary, catalog)
    assert await description(primary) == before


async def test_a_column_may_be_of_a_domain_and_there_may_be_others_beside_it(primary: Primary) -> None:
    await execute(
        primary,
        "CREATE DOMAIN title AS varchar(255) NOT NULL; "
        "ALTER TABLE album ALTER title TYPE title, ALTER title DROP NOT NULL, ADD colour text, "
        "ALTER row_version TYPE integer",
    )
    assert await pending(primary, catalog) == []


async def test_a_role_that_would_find_other_tables_than_those_that_are_read_is_told(primary: Primary) -> None:
    await execute(primary, "CREATE SCHEMA mine; CREATE TABLE mine.image (user_id text)")
    for path in ("mine,public", "mine"):
        async with opened(make_conninfo(primary.url, options=f"-c search_path={path}")) as other:
            for attempt in (pending, migrate):
                with pytest.raises(OtherSchema, match=r"^the table \w+ is not looked for in public first"):
                    await attempt(other, catalog)


async def test_a_database_of_a_newer_program_is_left_alone(primary: Primary) -> None:
    await execute(primary, f"UPDATE {SCHEMA}.{VERSION_TABLE} SET version_num = '9999'")
    for attempt in (migrate, pending):
        with pytest.raises(UnknownRevision, match="9999"):
            await attempt(primary, catalog)


@pytest.mark.parametrize("loss", ["DROP TRIGGER tidepool_update ON album", f"DELETE FROM {SCHEMA}.captured"])
async def test_capture_that_was_lost_is_found_and_put_back(primary: Primary, loss: str) -> None:
    before = await description(primary)
    await execute(primary, loss)
    missing = await pending(primary, catalog)
    assert "capture of public.album" in missing
    assert await migrate(primary, catalog) == missing
    assert await description(primary) == before
