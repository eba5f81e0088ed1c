"""The feed from Postgres (source: the marks that `primary.capture` keeps)."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import psycopg

from primary.capture import SCHEMA, quoted, table_sql
from primary.cursor import Cursor
from primary.declaration import Catalog, SyncedTable
from primary.errors import MigrationsPending
from primary.feed import Batch, Change, Kind, Reason, Row
from primary.line import Connection
from primary.patience import patience
from primary.postgres import EPOCH_SQL, Primary, give_up

BATCH_ROWS = 1_000  # enough that the cost of a batch vanishes
CHUNK_ROWS = 500  # libpq hands over so many at once: twice as fast as 5,000, for they stay in the processor's cache
CHANGES_ROWS = 2_000  # a batch of changes is larger, for what a replica does at its end is dear: a sixth less for all
PIPELINED_ROWS_MAX = 2_000  # so many changes are asked for at once, in one round trip; more are streamed

# One statement, so one snapshot: where the user stands, and which tables have news for it.
_STAND = f"""
SELECT {EPOCH_SQL} AS epoch, coalesce(h.version, 0) AS version, coalesce(h.floor, 0) AS floor, news.tables, news.total,
  (pg_current_wal_insert_lsn() - '0/0')::bigint AS position
FROM (SELECT %(user)s::text AS user_id) AS asked
LEFT JOIN {SCHEMA}.head AS h ON h.user_id = asked.user_id COLLATE "C"
CROSS JOIN LATERAL (
  SELECT array_agg(t.table_name) AS tables, coalesce(sum(t.total), 0)::bigint AS total
  FROM (SELECT c.table_name, count(*) AS total FROM {SCHEMA}.change AS c
        WHERE c.user_id = asked.user_id COLLATE "C" AND c.version > %(since)s AND h.version > %(since)s
        GROUP BY c.table_name) AS t) AS news"""

_BEGIN = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

# A snapshot's rows come as they lie in the table, which is about as they were made: a replica in that order finds what
# is newest close together. (An index gives them by key, in none; and a scan may join another one half way.)
_AS_THEY_LIE = "SELECT set_config('enable_indexscan', 'off', true), set_config('synchronize_seqscans', 'off', true)"


@dataclass(frozen=True, slots=True)
class _Stand:
    cursor: Cursor
    floor: int
    tables: frozenset[str]
    total: int
    position: int

    def kind(self, since: Cursor | None, position: int) -> tuple[Kind, Reason | None]:
        """Decide what a replica at ``since`` needs to get here; ``position`` is where the log was when it got there."""
        if since is None:
            return Kind.SNAPSHOT, Reason.NEW
        if since.epoch != self.cursor.epoch:
            return Kind.SNAPSHOT, Reason.EPOCH
        if position > self.position:
            # The same timeline, and less of it: a base backup that was started as it is, or a crash that lost commits
            # which did not wait for the disk.
            return Kind.SNAPSHOT, Reason.OLDER
        if since.version > self.cursor.version:
            return Kind.SNAPSHOT, Reason.AHEAD
        if since.version < self.floor:
            return Kind.SNAPSHOT, Reason.FLOOR
        return (Kind.UNCHANGED if since == self.cursor else Kind.CHANGES), None


class PostgresFeed:
    """Implements `primary.feed.Feed` on a `Primary`.

    When nothing changed a pull is one round trip; a small change is two.
    """

    def __init__(self, primary: Primary, catalog: Catalog) -> None:
        self._primary = primary
        self._catalog = catalog

    @asynccontextmanager
    async def pull(self, user: str, since: Cursor | None, position: int = 0) -> AsyncIterator[PostgresPull]:
        """See `Feed.pull`. Raises also `MigrationsPending` where tables or columns are missing."""
        async with self._primary.connection() as connection:
            try:
                pull = PostgresPull(connection, self._catalog, user, since, position, self._primary.answer_timeout_s)
                async with pull.opened():
                    yield pull
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
                raise MigrationsPending from error


class PostgresPull:
    """Implements `primary.feed.Pull`: one answer, read from one snapshot."""

    def __init__(
        self,
        connection: Connection,
        catalog: Catalog,
        user: str,
        since: Cursor | None,
        position: int,
        answer_timeout_s: float,
    ) -> None:
        self._connection = connection
        self._answer_timeout_s = answer_timeout_s
        self._catalog = catalog
        self._asked = {"user": user, "since": since.version if since else -1}
        self._since = since
        self._since_position = position
        self._fetched: dict[str, list[tuple[Any, ...]]] = {}
        self._holds = False
        self._stand: _Stand
        self.cursor: Cursor
        self.position: int
        self.kind: Kind
        self.reason: Reason | None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Find out what there is to read, and hold its snapshot for as long as the block runs."""
        async with patience(self._answer_timeout_s):
            if self._since is not None:
                self._settle(await self._stand_of(await self._ask(_STAND)))
            if not (self._since is not None and (self.kind is Kind.UNCHANGED or await self._read_at_once())):
                await self._hold()
        try:
            yield
            if self._holds and not self._connection.closed:
                async with patience(self._answer_timeout_s):
                    await self._connection.execute("ROLLBACK")
        except BaseException:
            give_up(self._connection)
            raise

    async def _read_at_once(self) -> bool:
        """Read all there is in one round trip, if it is little; tell whether that is done."""
        if self.kind is not Kind.CHANGES or self._stand.total > PIPELINED_ROWS_MAX:
            return False
        names = [name for name in self._stand.tables if name in self._catalog]
        async with self._connection.pipeline():
            await self._connection.execute(_BEGIN)
            asked = await self._ask(_STAND)
            found = {name: await self._ask(_changes_sql(self._catalog[name])) for name in names}
            await self._connection.execute("ROLLBACK")
        # Only what the transaction's own snapshot says counts: the first look may have been of another state.
        kind = self._settle(await self._stand_of(asked))
        self._fetched = {name: await cursor.fetchall() for name, cursor in found.items()}
        return kind is Kind.CHANGES and self._stand.tables <= self._fetched.keys() | self._foreign()

    async def _hold(self) -> None:
        """Take a snapshot and hold it, to stream from."""
        self._fetched = {}
        async with self._connection.pipeline():
            await self._connection.execute(_BEGIN)
            asked = await self._ask(_STAND)
            if self._since is None or self.kind is Kind.SNAPSHOT:
                await self._connection.execute(_AS_THEY_LIE)
        self._holds = True
        self._settle(await self._stand_of(asked))

    def _foreign(self) -> frozenset[str]:
        """Give the tables that have news and are none of the catalog's."""
        return frozenset(name for name in self._stand.tables if name not in self._catalog)

    async def batches(self) -> AsyncGenerator[Batch]:
        """See `Pull.batches`."""
        if self.kind is Kind.UNCHANGED:
            return
        for table in self._catalog:
            if self.kind is Kind.SNAPSHOT:
                async with aclosing(self._stream(_snapshot_sql(table), BATCH_ROWS)) as stream:
                    async for rows in stream:
                        yield Batch(table.name, rows=_adapted(table, rows, 0))
            elif table.name in self._fetched:
                if rows := self._fetched[table.name]:
                    yield Batch(table.name, changes=_changes(table, rows))
            elif table.name in self._stand.tables:
                async with aclosing(self._stream(_changes_sql(table), CHANGES_ROWS)) as stream:
                    async for rows in stream:
                        yield Batch(table.name, changes=_changes(table, rows))

    def _settle(self, stand: _Stand) -> Kind:
        self._stand = stand
        self.cursor, self.position = stand.cursor, stand.position
        self.kind, self.reason = stand.kind(self._since, self._since_position)
        return self.kind

    async def _ask(self, sql: str) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        # Never prepared: a plan for any version there may be is a bad one for the few that are new.
        return await self._connection.execute(sql, self._asked, prepare=False, binary=True)

    async def _stand_of(self, found: psycopg.AsyncCursor[tuple[Any, ...]]) -> _Stand:
        epoch, version, floor, tables, total, position = cast("tuple[Any, ...]", await found.fetchone())
        return _Stand(Cursor(epoch, version), floor, frozenset(tables or ()), total, position)

    async def _stream(self, sql: str, batch_rows: int) -> AsyncGenerator[list[tuple[Any, ...]]]:
        async with self._connection.cursor(binary=True) as cursor, patience(self._answer_timeout_s) as waiting:
            received = cast(
                "AsyncGenerator[tuple[Any, ...]]", cursor.stream(sql, self._asked, binary=True, size=CHUNK_ROWS)
            )
            rows: list[tuple[Any, ...]] = []
            try:
                async for row in received:
                    rows.append(row)
                    if len(rows) == batch_rows:
                        waiting.end()  # the time that the caller takes is not Postgres's
                        yield rows
                        rows = []
                        waiting.begin()
                waiting.end()
                if rows:
                    yield rows
            except BaseException:
                # At once, so that closing what is received does not wait for all that is still on its way.
                give_up(self._connection)
                raise
            finally:
                # Never left to the loop, which would do it later: it then reads from a connection that has been freed,
                # and takes rows away from whichever got its memory. That pull would end too soon, and not know.
                await received.aclose()


def _values(table: SyncedTable, alias: str) -> list[str]:
    return [column.mapping.wire.replace("{}", f"{alias}.{quoted(column.name)}") for column in table.columns]


def _snapshot_sql(table: SyncedTable) -> str:
    return (
        f"SELECT {', '.join(_values(table, 'r'))} FROM {table_sql(table)} AS r WHERE r.{quoted(table.owner)} = %(user)s"
    )


def _changes_sql(table: SyncedTable) -> str:
    """Give each touched row's key and version, whether it lives, and its values (source: the marks, then the table)."""
    matches = " AND ".join(
        [f"r.{quoted(table.owner)} = %(user)s"]
        + [
            f"r.{quoted(name)} = " + table.column(name).mapping.from_key.replace("{}", f"c.row_key[{place}]")
            for place, name in enumerate(table.key, start=1)
        ]
    )
    values = "".join(f", v{place}" for place, _ in enumerate(table.columns))
    named = "".join(f", {value} AS v{place}" for place, value in enumerate(_values(table, "r")))
    # OFFSET 0 fences the planner in: first the marks, by user and version, then one look at the key of each. Left to
    # itself it may read all that the user owns, when its statistics are old or its plan is another pull's.
    return (
        f"SELECT c.row_key, c.version, coalesce(r.lives, false){values} "
        f"FROM (SELECT * FROM {SCHEMA}.change WHERE user_id = %(user)s AND version > %(since)s OFFSET 0) AS c "
        f"LEFT JOIN LATERAL (SELECT true AS lives{named} FROM {table_sql(table)} AS r WHERE {matches} OFFSET 0) AS r "
        f"ON true WHERE c.table_name = '{table.name}'"
    )


def _adapted(table: SyncedTable, rows: list[tuple[Any, ...]], offset: int) -> Sequence[Row]:
    """Turn received values into stored ones, in the few columns that differ."""
    adapters = [
        (place, column.mapping.adapt)
        for place, column in enumerate(table.columns, start=offset)
        if column.mapping.adapt is not None
    ]
    if not adapters:
        return rows
    adapted = []
    for row in rows:
        values = list(row)
        for place, adapt in adapters:
            values[place] = adapt(values[place])
        adapted.append(values)
    return adapted


def _changes(table: SyncedTable, rows: list[tuple[Any, ...]]) -> list[Change]:
    return [Change(tuple(row[0]), row[1], row[3:] if row[2] else None) for row in _adapted(table, rows, 3)]
