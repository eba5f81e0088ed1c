"""A connection of the pool, as it is lent: what can be said in one round trip is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import psycopg

Statement = tuple[str, Mapping[str, Any]]
"""SQL as psycopg takes it, with ``%(name)s`` for a value, and the values."""

_BEGIN: Statement = ("BEGIN", {})


@asynccontextmanager
async def together(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """Have all that is executed in the block sent at once, and answered at its end. Raises the first error of them."""
    try:
        async with connection.pipeline():
            yield
    except psycopg.errors.PipelineAborted as error:
        # What was not done because of an error before it: psycopg may tell of this in the place of that.
        if isinstance(error.__context__, psycopg.Error):
            raise error.__context__ from None
        raise


class Lent(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection of the pool, in autocommit mode.

    Who has it on loan cannot close it: the lender takes it back, broken or not. SQLAlchemy closes what it is done with.
    To have that return it (`close_returns`) would lose a place of the pool for ever with each connection that breaks,
    for psycopg does nothing on closing one that is closed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.cursor_factory = _Cursor
        self._ahead: Sequence[Statement] = ()

    async def begin(self, first: Statement | None = None) -> None:
        """Begin a transaction; with ``first``, together with the first statement that is executed, and after that one.

        Then nothing else may come first than `execute`; where that never comes, `forget` what was to be sent.
        """
        if first is None:
            await self.execute(_BEGIN[0])
        else:
            self._ahead = (_BEGIN, first)

    def forget(self) -> None:
        """Send nothing ahead of what is executed next."""
        self._ahead = ()

    async def commit_after(self, sql: str, values: Mapping[str, Any]) -> tuple[Any, ...]:
        """Run a statement that gives one row, and commit. Where either fails, nothing is committed."""
        async with together(self):
            found = await self.execute(sql.encode(), values)
            await self.execute("COMMIT")
        row = await found.fetchone()
        assert row is not None
        return row

    def chunks(self, sql: str, values: Mapping[str, Any], size: int) -> AsyncGenerator[list[tuple[Any, ...]]]:
        """Stream what a statement gives, ``size`` rows at a time, in binary.

        Whoever stops early has to break the connection off: the rest of the answer is on its way.
        """
        return _Cursor(self).chunks(sql, values, size)

    async def close(self) -> None:
        """Close it, if it is the pool that asks for it."""
        if getattr(self, "_pool", None) is None:
            await super().close()

    def take_ahead(self) -> Sequence[Statement]:
        """Give what is to be sent ahead, once."""
        ahead, self._ahead = self._ahead, ()
        return ahead


class _Cursor(psycopg.AsyncCursor[tuple[Any, ...]]):
    """A cursor that sends ahead what its connection was told to."""

    async def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        connection = self.connection
        ahead = connection.take_ahead() if isinstance(connection, Lent) else ()
        if not ahead:
            return await super().execute(query, params, **options)
        async with together(connection):
            for sql, values in ahead:
                await connection.execute(sql.encode(), values or None)
            await super().execute(query, params, **options)
        return self

    async def chunks(self, query: Any, params: Any, size: int) -> AsyncGenerator[list[tuple[Any, ...]]]:
        """Do as `stream` does, but give the rows of a chunk together.

        `stream` loads and gives each row by itself, which takes longer than all else that is done for it. The names of
        psycopg's that this takes are not for everyone: `pyproject.toml` says of which releases it has them.
        """
        async with self._conn.lock:
            await self._conn.wait(self._stream_send_gen(query, params, binary=True, size=size))
            first = True
            while (result := await self._conn.wait(self._stream_fetchone_gen(first))) is not None:
                yield self._tx.load_rows(0, result.ntuples, self._make_row)
                first = False
