"""One write transaction on a lent connection: SQLAlchemy writes the SQL, once for each statement; psycopg runs it.

An engine of SQLAlchemy's, its connections and results take longer than all else that this process does for a write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import Compiled

from primary.lent import Lent, Statement, together

COMPILED_MAX = 256  # statements: more than there are, so long as each is made once

_BEGIN: Statement = ("BEGIN", {})
_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


class Result:
    """What a statement gave: rows whose values are attributes, and how many rows it touched."""

    __slots__ = ("rowcount", "rows")

    def __init__(self, rows: Sequence[Any], rowcount: int) -> None:
        self.rows = rows
        self.rowcount = rowcount

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def one_or_none(self) -> Any:
        """Give the one row, None where there is none."""
        if not self.rows:
            return None
        (row,) = self.rows
        return row

    def value(self) -> Any:
        """Give the first value of the one row, None where there is none."""
        row = self.one_or_none()
        return None if row is None else row[0]


class Transaction:
    """A transaction: it begins with ``first``, in one round trip with what is executed first."""

    __slots__ = ("_ahead", "_lent")

    def __init__(self, lent: Lent, first: Statement) -> None:
        self._lent = lent
        self._ahead: Sequence[Statement] = (_BEGIN, first)

    async def execute(self, statement: sa.Executable | str, values: Mapping[str, Any]) -> Result:
        """Run one statement, given by SQLAlchemy or as psycopg takes it.

        What is made anew at each call is written as SQL at each call; of values that psycopg knows no form for (JSON),
        the caller gives one.
        """
        if isinstance(statement, str):
            cursor = await self._run(statement, values)
        else:
            compiled = _compiled(statement)
            cursor = await self._run(str(compiled), compiled.construct_params({**values}) or {})
        rows = await cursor.fetchall() if cursor.description is not None else ()
        return Result(rows, cursor.rowcount)

    async def commit_after(self, sql: str, values: Mapping[str, Any]) -> Any:
        """Run a statement that gives one row, and commit. Where either fails, nothing is committed."""
        return await (await self._run(sql, values, commit=True)).fetchone()

    async def end(self) -> None:
        """Commit, unless that was done."""
        if self._lent.info.transaction_status is not TransactionStatus.IDLE:
            await self._lent.execute("COMMIT")

    async def roll_back(self) -> None:
        """Leave nothing behind, where the connection still is."""
        with suppress(psycopg.Error):
            await self._lent.rollback()

    async def _run(self, sql: str, values: Mapping[str, Any], *, commit: bool = False) -> psycopg.AsyncCursor[Any]:
        ahead, self._ahead = self._ahead, ()
        cursor = self._lent.cursor(row_factory=namedtuple_row)
        if not ahead and not commit:
            return await cursor.execute(sql.encode(), values)
        async with together(self._lent):
            for before, given in ahead:
                await self._lent.execute(before.encode(), given or None)
            await cursor.execute(sql.encode(), values)
            if commit:
                await self._lent.execute("COMMIT")
        return cursor


@lru_cache(maxsize=COMPILED_MAX)
def _compiled(statement: sa.Executable) -> Compiled:
    assert isinstance(statement, sa.ClauseElement)
    return statement.compile(dialect=_DIALECT)
