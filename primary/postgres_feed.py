"""The feed from Postgres (source: the marks that `primary.capture` keeps)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import psycopg

from primary.ahead import Ahead
from primary.cursor import Cursor
from primary.declaration import Catalog, SyncedTable
from primary.errors import MigrationsPending
from primary.feed import VALUES, Batch, Kind, Pull, Reason, Row
from primary.feed_sql import (
    AS_THEY_LIE,
    BEGIN,
    BY_INDEX,
    COMING,
    HELD,
    PIPELINED_ROWS_MAX,
    STAND,
    changes_sql,
    snapshot_sql,
)
from primary.lent import Lent, together
from primary.patience import Stopped, patience
from primary.postgres import Primary, give_up
from primary.stream import Stream
from primary.touched import Statements
from primary.transaction import Behind

BATCH_ROWS = 500  # so many come at once: twice as fast as 5,000, for they stay in the processor's cache


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

    When nothing changed a pull is one round trip; a small change is two, or one where a write through this process
    made it (`primary.touched`), or none, where that looked itself (`primary.ahead`).
    """

    def __init__(self, primary: Primary, catalog: Catalog) -> None:
        self._primary = primary
        self._catalog = catalog
        self._ahead = Ahead()
        primary.look_behind(self._look)

    def ahead(self, user: str, since: Cursor, position: int, at_least: Cursor) -> Pull | None:
        """See `Feed.ahead`."""
        return self._ahead.take(user, since, position, at_least)

    @asynccontextmanager
    async def pull(self, user: str, since: Cursor | None, position: int = 0) -> AsyncIterator[PostgresPull]:
        """See `Feed.pull`. Raises also `MigrationsPending` where tables or columns are missing."""
        async with self._primary.connection() as connection:
            try:
                self._ahead.forget(user)
                pull = PostgresPull(connection, self._catalog, user, since, position, self._primary.answer_timeout_s)
                async with pull.opened(self._primary.touched.take(user)):
                    yield pull
                self._ahead.stood(user, pull.cursor)
            except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
                raise MigrationsPending from error

    def _look(self, connection: Lent, user: str, statements: Statements) -> Behind | None:
        tables = self._primary.touched.by(statements)
        since = self._ahead.since(user) if tables else None
        if since is None:
            return None
        pull = PostgresPull(connection, self._catalog, user, since, 0, self._primary.answer_timeout_s)
        return _Look(pull, tables, partial(self._ahead.keep, user, since, pull))


@dataclass(frozen=True, slots=True)
class _Look:
    """Implements `primary.transaction.Behind`: a pull that is asked in the round trip of a write."""

    pull: PostgresPull
    tables: frozenset[str]
    keep: Callable[[], None]

    async def ask(self) -> None:
        """See `Behind.ask`."""
        await self.pull.ask_at_once(self.tables)

    async def answered(self) -> None:
        """See `Behind.answered`."""
        if await self.pull.take_at_once() and self.pull.whole:
            self.keep()


class PostgresPull:
    """Implements `primary.feed.Pull`: one answer, read from one snapshot."""

    def __init__(
        self,
        connection: Lent,
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
        self._stream: Stream | None = None  # where a snapshot is held, to stream from
        self._standing: psycopg.AsyncCursor[tuple[Any, ...]]
        self._found: dict[str, psycopg.AsyncCursor[tuple[Any, ...]]]
        self._stand: _Stand
        self.cursor: Cursor
        self.position: int
        self.kind: Kind
        self.reason: Reason | None
        self.whole: Sequence[Batch] | None = None
        self.coming: Mapping[str, int] = {}

    @asynccontextmanager
    async def opened(self, touched: frozenset[str]) -> AsyncIterator[None]:
        """Find out what there is to read, and hold its snapshot for as long as the block runs, or until it is read.

        ``touched`` are the tables in which there may be news: a guess.
        """
        async with patience(self._answer_timeout_s):
            if self._since is None or not (
                await self._read_at_once(touched) or (self._is_small and await self._read_at_once(self._stand.tables))
            ):
                await self._hold()
        stream = self._stream
        try:
            yield
            if stream is not None:
                if stream.under_way:  # it was left half way
                    self.stop()
                    give_up(self._connection)
                else:
                    async with patience(self._answer_timeout_s):
                        await self._connection.execute("ROLLBACK")
        except BaseException as error:
            self.stop()
            try:
                if stream is not None and stream.under_way and isinstance(error, TimeoutError) and await stream.ended():
                    raise Stopped from error
            finally:
                give_up(self._connection)
            raise
        finally:
            if stream is not None:
                stream.close()

    async def _read_at_once(self, tables: frozenset[str]) -> bool:
        """Find out where the user stands and read these tables' changes, in one round trip; tell if that was all."""
        async with together(self._connection):
            await self.ask_at_once(tables)
        return await self.take_at_once()

    async def ask_at_once(self, tables: frozenset[str]) -> None:
        """Ask where the user stands and for these tables' changes, in a transaction of its own."""
        names = [table.name for table in self._catalog if table.name in tables]
        await self._connection.execute(BEGIN)
        await self._connection.execute(BY_INDEX)
        self._standing = await self._ask(STAND)
        few = {name: changes_sql(self._catalog[name], PIPELINED_ROWS_MAX) for name in names}
        self._found = {name: await self._ask(sql) for name, sql in few.items()}
        await self._connection.execute("ROLLBACK")

    async def take_at_once(self) -> bool:
        """Take what was asked for; tell if that was all there is."""
        # Only what the transaction's own snapshot says counts: an earlier look may have been of another state.
        self._settle(await self._stand_of(self._standing))
        if self.kind is Kind.UNCHANGED:
            return True
        if not self._is_small or self._known() - self._found.keys():
            return False
        rows = {name: await cursor.fetchall() for name, cursor in self._found.items()}
        self.whole = [
            Batch(name, changes=_adapted(self._catalog[name], each, VALUES)) for name, each in rows.items() if each
        ]
        return True

    async def _hold(self) -> None:
        """Take a snapshot and hold it, to stream from."""
        async with together(self._connection):
            await self._connection.execute(BEGIN)
            await self._connection.execute(HELD)
            asked = await self._ask(STAND, prepare=False)  # else it would have to be planned as it is above
            if self._since is None or self.kind is Kind.SNAPSHOT:
                await self._connection.execute(AS_THEY_LIE)
        self._settle(await self._stand_of(asked))
        if self.kind is Kind.CHANGES:  # a snapshot is of every table, and to look at all marks takes long
            found = await (await self._ask(COMING, prepare=False)).fetchall()
            self.coming = {name: count for name, count in found if name in self._catalog}
        self._stream = Stream(self._connection, self._answer_timeout_s)

    def _known(self) -> frozenset[str]:
        """Give the catalog's tables that have news; there may be others, which are nobody's here."""
        return frozenset(table.name for table in self._catalog if table.name in self._stand.tables)

    def batches(self) -> Iterator[Batch]:
        """See `Pull.batches`."""
        if self.whole is not None:
            yield from self.whole
        elif self._stream is not None and self.kind is not Kind.UNCHANGED:
            for table in self._catalog:
                if self.kind is Kind.SNAPSHOT:
                    for rows in self._stream.rows(snapshot_sql(table), self._asked, BATCH_ROWS):
                        yield Batch(table.name, rows=_adapted(table, rows, 0))
                elif table.name in self.coming:
                    for rows in self._stream.rows(changes_sql(table), self._asked, BATCH_ROWS):
                        yield Batch(table.name, changes=_adapted(table, rows, VALUES))

    def stop(self) -> None:
        """See `Pull.stop`."""
        if self._stream is not None:
            self._stream.cut()

    def _settle(self, stand: _Stand) -> None:
        self._stand = stand
        self.cursor, self.position = stand.cursor, stand.position
        self.kind, self.reason = stand.kind(self._since, self._since_position)

    @property
    def _is_small(self) -> bool:
        return self.kind is Kind.CHANGES and self._stand.total <= PIPELINED_ROWS_MAX

    async def _ask(self, sql: str, *, prepare: bool | None = None) -> psycopg.AsyncCursor[tuple[Any, ...]]:
        return await self._connection.execute(sql, self._asked, prepare=prepare, binary=True)

    async def _stand_of(self, found: psycopg.AsyncCursor[tuple[Any, ...]]) -> _Stand:
        epoch, version, floor, tables, total, position = cast("tuple[Any, ...]", await found.fetchone())
        return _Stand(Cursor(epoch, version), floor, frozenset(tables or ()), total, position)


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
