"""One write transaction on a lent connection: SQLAlchemy writes the SQL, once for each statement; psycopg runs it.

An engine of SQLAlchemy's, its connections and results take longer than all else that this process does for a write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Protocol

import psycopg
import sqlalchemy as sa
from psycopg.pq import TransactionStatus
from psycopg.rows import namedtuple_row
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg
from sqlalchemy.engine.interfaces import Compiled

from primary.lent import Lent, Statement, together

COMPILED_MAX = 256  # statements: more than there are, so long as each is made once

BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED"
"""Who waited for a lock then sees what came meanwhile. A database, or a role, may have another default."""

_DIALECT = PGDialect_psycopg()  # type: ignore[no-untyped-call]


BoundStatement = tuple[sa.Executable | str, Mapping[str, Any]]
"""A statement, of SQLAlchemy's or as psycopg takes it, and its values."""


class Behind(Protocol):
    """What is asked in the round trip of a commit, after it."""

    async def ask(self) -> None:
        """Execute it, on the connection of the transaction, and leave no transaction open."""
        ...

    async def answered(self) -> None:
        """Take the answers; all of it was executed."""
        ...


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
    """A transaction: it begins with ``first``, in one round trip with what is executed first.

    After a commit there can be another, which begins in the same way.
    """

    __slots__ = ("_committed", "_first", "_lent")

    def __init__(self, lent: Lent, first: Statement) -> None:
        self._lent = lent
        self._first = first
        self._committed = False  # and nothing was executed since

    @property
    def is_open(self) -> bool:
        """Whether something was executed since the last commit."""
        # After a commit the connection may be gone: what was asked behind it did not survive. The commit does.
        return not self._committed and self._lent.info.transaction_status is not TransactionStatus.IDLE

    async def execute(
        self, *statements: BoundStatement, commit: bool = False, behind: Behind | None = None
    ) -> list[Result]:
        """Run statements in one round trip, and commit if told. Where one of them fails, nothing is committed.

        What is asked ``behind`` a commit may fail: that stands, then, and no answer is taken.
        What is made anew at each call is written as SQL at each call; of values that psycopg knows no form for (JSON),
        the caller gives one.
        """
        cursors = [self._lent.cursor(row_factory=namedtuple_row) for _ in statements]
        ran = list(zip(cursors, map(as_psycopg_takes_it, statements), strict=True))
        begins = not self.is_open
        self._committed = False
        if len(ran) == 1 and not begins and not commit:  # which costs less by itself
            await _run(*ran[0])
        else:
            committed = self._lent.cursor()
            try:
                async with together(self._lent):
                    if begins:
                        await self._lent.execute(BEGIN)
                        await _run(self._lent.cursor(), self._first)
                    for one in ran:
                        await _run(*one)
                    if commit:
                        await committed.execute("COMMIT")
                        if behind is not None:
                            await behind.ask()
            except psycopg.Error:
                if committed.statusmessage != "COMMIT":
                    raise
                await self.roll_back()
            else:
                if behind is not None:
                    await behind.answered()
            self._committed = commit
        return [
            Result(await cursor.fetchall() if cursor.rownumber is not None else (), cursor.rowcount)
            for cursor in cursors
        ]

    async def roll_back(self) -> None:
        """Leave nothing behind, where the connection still is."""
        with suppress(psycopg.Error):
            await self._lent.rollback()


async def _run(cursor: psycopg.AsyncCursor[Any], statement: Statement) -> None:
    sql, values = statement
    await cursor.execute(sql.encode(), values)


def as_psycopg_takes_it(asked: BoundStatement) -> Statement:
    """Give a statement's SQL and values to be run on a lent connection."""
    statement, values = asked
    if isinstance(statement, str):
        return statement, values
    compiled = _compiled(statement)
    return str(compiled), compiled.construct_params({**values}) or {}


@lru_cache(maxsize=COMPILED_MAX)
def _compiled(statement: sa.Executable) -> Compiled:
    assert isinstance(statement, sa.ClauseElement)
    return statement.compile(dialect=_DIALECT)
