"""What replicas must hold, found without the engine: its own SQL, its own reading of Postgres's texts.

A `Witness` stands between the feed and its connection. Before the feed ends a transaction, the witness reads in that
very transaction, so in the same snapshot, the user's version and all rows of the user. So after each sync it is known
what a replica at that version must hold, exactly, while any number of writers go on.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import apsw
import psycopg
import sqlalchemy as sa

from primary.cursor import Cursor
from primary.declaration import Catalog, SyncedTable
from primary.feed import Pull
from primary.postgres import Look, Primary
from primary.postgres_feed import PostgresFeed

Rows = dict[str, list[tuple[Any, ...]]]
"""All rows of one user by table, as a replica stores them, in an order of their own."""


class Oracle:
    """Knows what each user's rows were at each version that was ever pulled: a feed that lets no pull by unseen."""

    def __init__(self, primary: Primary, metadata: sa.MetaData) -> None:
        self._primary = primary
        self._catalog = Catalog.of(metadata)
        self._sql = _everything_sql(self._catalog)
        self._known: dict[tuple[str, int], Rows] = {}

    @property
    def states(self) -> int:
        """How many states it knows."""
        return len(self._known)

    @asynccontextmanager
    async def pull(self, user: str, since: Cursor | None, position: int = 0) -> AsyncIterator[Pull]:
        """See `Feed.pull`."""
        witness = _Witness(self._sql, user)
        feed = PostgresFeed(cast("Primary", _Witnessed(self._primary, witness)), self._catalog)
        try:
            async with feed.pull(user, since, position) as pull:
                yield pull
        finally:  # what was seen is true, whatever became of the pull
            for seen in witness.seen:
                if seen.rownumber is not None:
                    await self._learn(user, seen)

    def ahead(self, user: str, since: Cursor, position: int, at_least: Cursor) -> Pull | None:
        """Give nothing: what a write looked at was seen by no witness (see `test_ahead`)."""
        return None

    async def look(self, user: str) -> tuple[int, Rows]:
        """Read the user's version and rows now."""
        async with self._primary.connection() as connection:
            return await self._learn(user, await connection.execute(self._sql, {"user": user}))

    async def expected(self, user: str, version: int) -> Rows:
        """Give the rows that the user had at a version. Fails where no pull was ever of that version."""
        for _ in range(1_000):  # who reads beside a sync may see its version before the pull has come to its end
            if (user, version) in self._known:
                return self._known[user, version]
            await asyncio.sleep(0.005)
        raise AssertionError(f"{user} never stood at {version}")

    def held(self, connection: apsw.Connection) -> Rows:
        """Read all rows of a replica."""
        return self.as_read(
            {table.name: connection.execute(f'SELECT * FROM "{table.name}"').fetchall() for table in self._catalog}
        )

    def as_read(self, rows: Rows) -> Rows:
        """Give rows, as a replica stores them, in the order and the form in which they are compared."""
        return {
            table.name: _ordered(
                tuple(
                    _parsed(table.table.c[column.name], value) for column, value in zip(table.columns, row, strict=True)
                )
                for row in rows[table.name]
            )
            for table in self._catalog
        }

    async def _learn(self, user: str, seen: psycopg.AsyncCursor[Any]) -> tuple[int, Rows]:
        version, *found = cast("tuple[Any, ...]", await seen.fetchone())
        rows = {
            table.name: _ordered(
                tuple(
                    _parsed(column, stored(column, text))
                    for column, text in zip((table.table.c[c.name] for c in table.columns), row, strict=True)
                )
                for row in texts
            )
            for table, texts in zip(self._catalog, found, strict=True)
        }
        known = self._known.setdefault((user, version), rows)
        assert known == rows, f"{user} stood at {version} twice, with different rows"
        return version, rows


class _Witness:
    """A connection that looks before the feed ends its transaction."""

    def __init__(self, sql: str, user: str) -> None:
        self.connection: Any = None
        self.seen: list[psycopg.AsyncCursor[Any]] = []
        self._sql = sql
        self._user = user

    async def execute(self, query: Any, *args: Any, **options: Any) -> Any:
        if str(query).startswith(("ROLLBACK", "COMMIT")):
            self.seen.append(await self.connection.execute(self._sql, {"user": self._user}))
        return await self.connection.execute(query, *args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


class _Witnessed:
    """A primary that lends its connection by way of the witness, and asks nothing behind a write."""

    def __init__(self, primary: Primary, witness: _Witness) -> None:
        self._primary = primary
        self._witness = witness

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[_Witness]:
        async with self._primary.connection() as self._witness.connection:
            yield self._witness

    def look_behind(self, look: Look) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._primary, name)


def _everything_sql(catalog: Catalog) -> str:
    """One statement, and so one snapshot: the version, then each table's rows as JSON arrays of texts."""
    tables = ", ".join(_table_sql(table) for table in catalog)
    return f"SELECT coalesce((SELECT version FROM tidepool.head WHERE user_id = %(user)s), 0), {tables}"


def _table_sql(table: SyncedTable) -> str:
    texts = ", ".join(_text_sql(table.table.c[column.name]) for column in table.columns)
    rows = f"SELECT coalesce(json_agg(json_build_array({texts})), '[]')"
    return f"({rows} FROM {table.name} WHERE {table.owner} = %(user)s)"


def _text_sql(column: sa.Column[Any]) -> str:
    name = f'"{column.name}"'
    match column.type:
        case sa.ARRAY():
            return f"to_json({name})::text"
        case sa.LargeBinary():
            return f"encode({name}, 'hex')"
        case sa.Float():  # JSON would cut it otherwise
            return f"{name}::float8::text"
        case sa.DateTime(timezone=True):
            return f"({name} AT TIME ZONE 'UTC')::text"
    return f"{name}::text"


_MOMENT = re.compile(r"(\d+-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d+))?( BC)?")


def stored(column: sa.Column[Any], text: str | None) -> Any:
    """Tell what a replica holds of a value, from the text that Postgres writes (in UTC, with ISO dates)."""
    if text is None:
        return None
    match column.type:
        case sa.LargeBinary():
            return bytes.fromhex(text)
        case sa.Boolean():
            return {"true": 1, "false": 0}[text]
        case sa.Integer():
            return int(text)
        case sa.Float():
            return text if text == "NaN" else float(text)
        case sa.DateTime() if match := _MOMENT.fullmatch(text):
            day, time, fraction, era = match.groups()
            zone = "Z" if column.type.timezone else ""
            return f"{day}T{time}.{(fraction or '').ljust(6, '0')}{zone}{era or ''}"
    return text


def _parsed(column: sa.Column[Any], value: Any) -> Any:
    """Read arrays, whose JSON may be spaced in two ways; numbers keep their digits."""
    if isinstance(column.type, sa.ARRAY) and value is not None:
        return json.dumps(json.loads(value, parse_int=_digits, parse_float=_digits))
    return value


def _digits(text: str) -> list[str]:
    return ["number", text]


def _ordered(rows: Any) -> list[tuple[Any, ...]]:
    return sorted(rows, key=repr)
