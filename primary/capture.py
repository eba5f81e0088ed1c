"""Capture: every committed change of a synced table leaves its mark, whoever makes it.

`tidepool.head` has one row per user: the version that the user's rows are at. `tidepool.change` has one row per
row that was ever touched: at which version it was touched last. Statement-level triggers, generated here from the
declaration, keep both in the transaction of the change itself:

1. each owner that the statement touched gets the next version, in the order of the owners' ids. The owner's
   head row is then locked until the transaction ends, so that versions are in commit order, without gaps. (A number
   or a time that is taken without such a lock becomes visible out of order, and a reader's cursor passes it by.)
2. each row that it touched is marked with that version; a key that is no more is marked deleted.

The marks say which rows to look at; whether a row lives is read from its table. So one mark per row is enough,
and the log grows with the rows, never with the edits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from math import inf
from time import monotonic
from typing import NamedTuple

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from primary.declaration import Catalog, SyncedTable
from primary.fitness import check_fitness

SCHEMA = "tidepool"

_TRIGGERS = ("insert", "update", "delete", "truncate")

_GIVE_WAY_MS = 300
"""Less than users' writes wait for us (700 ms), and than it takes Postgres to look for a deadlock, and end another."""


class Xid8(sa.types.UserDefinedType[int]):
    """Postgres's 64-bit transaction id, which never wraps around."""

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:
        """Give the type's name in DDL."""
        return "xid8"


def engine_tables(metadata: sa.MetaData) -> None:
    """Declare the engine's own tables in ``metadata`` (they live in the schema `tidepool`)."""
    sa.Table(
        "head",
        metadata,
        sa.Column("user_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False, comment="the last version of the user's rows"),
        sa.Column("xid", Xid8, nullable=False, comment="the transaction that made it"),
        sa.Column(
            "floor",
            sa.BigInteger,
            nullable=False,
            server_default="0",
            comment="older marks may be compacted away",
        ),
        sa.Index("head_xid", "xid"),  # lets the tail find who moved without reading every head
        schema=SCHEMA,
    )
    sa.Table(
        "change",
        metadata,
        sa.Column("user_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("table_name", sa.Text(collation="C"), primary_key=True),
        sa.Column("row_key", pg.ARRAY(sa.Text(collation="C")), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False, comment="when the row was touched last"),
        sa.Column("deleted", sa.Boolean, nullable=False, comment="a hint for compaction, never read as the truth"),
        sa.Index("change_user_version", "user_id", "version"),  # lets a pull read only what is new
        schema=SCHEMA,
    )
    sa.Table(
        "captured",
        metadata,
        sa.Column("table_name", sa.Text, primary_key=True, comment="the synced table, with its schema"),
        sa.Column("digest", sa.Text, nullable=False, comment="of the triggers as they were installed"),
        schema=SCHEMA,
    )
    sa.Table(
        "idempotency",
        metadata,
        sa.Column("user_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("key", sa.Text(collation="C"), primary_key=True, comment="the Idempotency-Key of a request"),
        sa.Column("digest", sa.LargeBinary, nullable=False, comment="tells the request from others"),
        sa.Column("status", sa.SmallInteger, nullable=False, comment="of the answer"),
        sa.Column("body", sa.LargeBinary, nullable=False, comment="of the answer, as it was sent"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        sa.Index("idempotency_created_at", "created_at"),  # lets the sweep find what is old without reading the rest
        schema=SCHEMA,
    )


def quoted(name: str) -> str:
    """Quote an SQL name."""
    return '"' + name.replace('"', '""') + '"'


def table_sql(table: SyncedTable) -> str:
    """Give the table's name as SQL, with its schema."""
    return f"{quoted(table.table.schema or 'public')}.{quoted(table.name)}"


def key_sql(table: SyncedTable, alias: str) -> str:
    """Give the SQL of a row's key as ``text[]`` of canonical texts."""
    # One collation for all parts, whatever the columns have: keys are compared as bytes.
    parts = (
        f'({table.column(name).mapping.key.replace("{}", f"{alias}.{quoted(name)}")}) COLLATE "C"' for name in table.key
    )
    return f"ARRAY[{', '.join(parts)}]::text[]"


def owner_sql(table: SyncedTable) -> str:
    """Give the SQL of a row's owner as the engine's tables have it."""
    return f'{quoted(table.owner)}::text COLLATE "C"'


def capture_sql(table: SyncedTable) -> list[str]:
    """Generate the functions and triggers that capture a table, as statements that may be run again and again."""
    owner = owner_sql(table)
    touched = {
        "insert": f"SELECT {owner} FROM new_rows",
        "update": f"SELECT {owner} FROM old_rows UNION SELECT {owner} FROM new_rows",
        "delete": f"SELECT {owner} FROM old_rows",
    }
    now = f"SELECT r.{owner} AS user_id, {key_sql(table, 'r')} AS row_key, false AS deleted FROM new_rows AS r"
    before = f"SELECT r.{owner} AS user_id, {key_sql(table, 'r')} AS row_key, true AS deleted FROM old_rows AS r"
    # One row can be here more than once: the actions of several foreign keys are one statement to a trigger.
    # Grouped, never joined: a plan that was cached for one row must do for a hundred thousand.
    marks = {
        "insert": now,
        "update": _once(f"{now} UNION ALL {before}"),
        "delete": _once(before),
    }
    transitions = {
        "insert": "NEW TABLE AS new_rows",
        "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
        "delete": "OLD TABLE AS old_rows",
    }
    statements = []
    for event, rows in transitions.items():
        function = f"{SCHEMA}.{quoted(f'capture_{table.name}_{event}')}"
        body = _bump(touched[event]) + _mark(table, marks[event])
        # SECURITY DEFINER: who may write the table need not be able to write the marks.
        # No sequential scans: a session keeps the plan of its first statement, made when there was one head.
        statements.append(
            f"CREATE OR REPLACE FUNCTION {function}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER\n"
            f"SET search_path = pg_catalog, pg_temp SET enable_seqscan = off\n"
            f"AS $capture$\nBEGIN{body}\n  RETURN NULL;\nEND $capture$"
        )
        statements.append(
            f"CREATE OR REPLACE TRIGGER tidepool_{event} AFTER {event.upper()} ON {table_sql(table)}\n"
            f"REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )
    statements.append(
        f"CREATE OR REPLACE TRIGGER tidepool_truncate BEFORE TRUNCATE ON {table_sql(table)}\n"
        f"FOR EACH STATEMENT EXECUTE FUNCTION {SCHEMA}.refuse_truncate()"
    )
    # ALWAYS: what is written under session_replication_role = replica is captured too. (Not what a logical
    # replication's worker applies: that fires no statement triggers, so a synced table cannot be a subscriber's.)
    statements += [f"ALTER TABLE {table_sql(table)} ENABLE ALWAYS TRIGGER tidepool_{event}" for event in _TRIGGERS]
    return statements


_REFUSE_TRUNCATE = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.refuse_truncate() RETURNS trigger LANGUAGE plpgsql AS $refuse$
BEGIN
  RAISE EXCEPTION '% is synced: TRUNCATE does not say whose rows it removes, so replicas would keep them', TG_TABLE_NAME
    USING ERRCODE = 'feature_not_supported', HINT = 'Use DELETE FROM ' || TG_TABLE_NAME || ' instead.';
END $refuse$"""


def _bump(owners: str) -> str:
    return f"""
  INSERT INTO {SCHEMA}.head AS h (user_id, version, xid)
  SELECT t.user_id, 1, pg_current_xact_id() FROM ({owners}) AS t (user_id)
  GROUP BY t.user_id ORDER BY t.user_id  -- one order for all, so that writers do not deadlock
  ON CONFLICT (user_id) DO UPDATE SET version = h.version + 1, xid = excluded.xid;"""


def _once(rows: str) -> str:
    return f"SELECT t.user_id, t.row_key, bool_and(t.deleted) AS deleted FROM ({rows}) AS t GROUP BY 1, 2"


def _mark(table: SyncedTable, rows: str) -> str:
    # The version is looked up row by row, never joined: a join's plan for many rows would read every head for one.
    return f"""
  INSERT INTO {SCHEMA}.change AS c (user_id, table_name, row_key, version, deleted)
  SELECT r.user_id, '{table.name}', r.row_key,
    (SELECT h.version FROM {SCHEMA}.head AS h WHERE h.user_id = r.user_id), r.deleted
  FROM ({rows}) AS r
  ON CONFLICT (user_id, table_name, row_key) DO UPDATE SET version = excluded.version, deleted = excluded.deleted;"""


def _digests(table: SyncedTable) -> dict[str, str]:
    """Give what tells the table's triggers from others, and what of its rows travels; by what `captured` has it under.

    They are apart there because nodes of 0.10.0, which know of the first alone, are to find it as they would write it.
    """
    triggers = "\n".join([_REFUSE_TRUNCATE, *capture_sql(table)])
    rows = "\n".join([table.owner, *table.key, *(f"{each.name} {each.mapping.wire}" for each in table.columns)])
    texts = {table_sql(table): triggers, _rows_of(table): rows}
    return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in texts.items()}


def _rows_of(table: SyncedTable) -> str:
    return f"rows of {table_sql(table)}"


async def _run(conn: AsyncConnection, statement: str) -> None:
    await conn.exec_driver_sql(statement.replace("%", "%%"))


_LOCK_TIMEOUT = sa.text("SELECT set_config('lock_timeout', :ms, true)")


async def _lock(conn: AsyncConnection, tables: Sequence[SyncedTable]) -> None:
    """Lock the tables against writes, all of them or none, as soon as nobody writes to any.

    Who waits for one while it has others holds up all who write to those, and is waited for in a circle by who has
    written to one and goes on to the next. So where a table is not free soon, all are let go of for a moment.
    Waits as long as the transaction's `lock_timeout` says, 0 without end, and raises then as Postgres does.
    """
    patience_ms = await conn.scalar(sa.text("SELECT setting::int FROM pg_settings WHERE name = 'lock_timeout'"))
    ends_at = monotonic() + patience_ms / 1000 if patience_ms else inf
    while True:
        try:
            async with conn.begin_nested():
                await conn.execute(_LOCK_TIMEOUT, {"ms": str(min(_GIVE_WAY_MS, patience_ms or _GIVE_WAY_MS))})
                await _run(conn, f"LOCK TABLE {', '.join(map(table_sql, tables))} IN SHARE ROW EXCLUSIVE MODE")
                await conn.execute(_LOCK_TIMEOUT, {"ms": str(patience_ms)})
                return
        except sa.exc.OperationalError as error:
            if not isinstance(error.orig, psycopg.errors.LockNotAvailable) or monotonic() >= ends_at:
                raise


async def capture_pending(conn: AsyncConnection, catalog: Catalog) -> list[str]:
    """Name the synced tables whose triggers are not at work, or not noted, as they are declared (schema.name)."""
    return [table_sql(each.table) for each in await _pending(conn, catalog, await _installed(conn))]


class _Pending(NamedTuple):
    """A table that is not captured and noted as it is declared."""

    table: SyncedTable
    digests: dict[str, str]
    to_install: bool  # else it is captured, and it was only never noted what of its rows travels


async def _pending(conn: AsyncConnection, catalog: Catalog, installed: dict[str, str]) -> list[_Pending]:
    pending = []
    for table in catalog:
        digests, triggers, rows = _digests(table), table_sql(table), _rows_of(table)
        captured = installed.get(triggers) == digests[triggers] and await _at_work(conn, table)
        if not captured or installed.get(rows) != digests[rows]:
            pending.append(_Pending(table, digests, to_install=not captured or rows in installed))
    return pending


_NOTE = sa.text(
    f"INSERT INTO {SCHEMA}.captured VALUES (:name, :digest) "
    "ON CONFLICT (table_name) DO UPDATE SET digest = excluded.digest"
)


async def install_capture(conn: AsyncConnection, catalog: Catalog) -> list[str]:
    """Install the triggers of every synced table that has not got them as declared; give those tables' names.

    Each that gets them is locked against writes until the transaction ends, so that no change slips by between. Rows
    that were there before are part of every snapshot; replicas that exist are rebuilt, for the declaration is new to
    them.
    What a client has is not: so where a table joins, or other columns of it travel, the cursors of who has rows in it
    become too old. Where triggers were dropped or disabled, nobody knows what went by: every cursor does.
    Where only what travels was never noted, as by 0.10.0, nobody knows that it was anything else: it is noted.
    Raises `UnsupportedDeclaration` for a table that cannot be captured as it is in the database.
    """
    installed = await _installed(conn)
    pending = await _pending(conn, catalog, installed)
    for table, _, _ in pending:
        await check_fitness(conn, table, table_sql(table))
    to_install = [each for each in pending if each.to_install]
    if to_install:
        await _lock(conn, [each.table for each in to_install])
        await _run(conn, _REFUSE_TRUNCATE)
    for table, digests, _ in to_install:
        joins, noted = table_sql(table) not in installed, installed.get(_rows_of(table))
        gap = not joins and not await _at_work(conn, table)
        for statement in capture_sql(table):
            await _run(conn, statement)
        if gap or joins or noted not in {None, digests[_rows_of(table)]}:
            await _run(conn, _start_over_sql(table, everybody=gap))
    for _, digests, _ in pending:
        for name, digest in digests.items():
            await conn.execute(_NOTE, {"name": name, "digest": digest})
    return sorted(table_sql(table) for table, _, _ in pending)


async def _installed(conn: AsyncConnection) -> dict[str, str]:
    found = await conn.execute(sa.text(f"SELECT table_name, digest FROM {SCHEMA}.captured"))
    return {row.table_name: row.digest for row in found}


_COUNT_AT_WORK = sa.text(
    "SELECT count(*) FROM pg_trigger"
    " WHERE tgrelid = to_regclass(:table) AND tgname LIKE 'tidepool\\_%' AND tgenabled = 'A'"
)


async def _at_work(conn: AsyncConnection, table: SyncedTable) -> bool:
    triggers = await conn.scalar(_COUNT_AT_WORK, {"table": table_sql(table)})
    return bool(triggers == len(_TRIGGERS))


def _start_over_sql(table: SyncedTable, *, everybody: bool) -> str:
    others = f" UNION SELECT user_id FROM {SCHEMA}.head" if everybody else ""
    return f"""
  INSERT INTO {SCHEMA}.head AS h (user_id, version, xid, floor)
  SELECT t.user_id, 1, pg_current_xact_id(), 1
  FROM (SELECT DISTINCT {owner_sql(table)} FROM {table_sql(table)}{others}) AS t (user_id)
  ORDER BY t.user_id
  ON CONFLICT (user_id) DO UPDATE SET version = h.version + 1, xid = excluded.xid, floor = h.version + 1"""
