"""The one connection that writes to a replica's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from typing import TypeVar

import aiosqlite

T = TypeVar("T")


class Writer(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function in its thread: one hop for many statements."""

    @classmethod
    async def open(cls, uri: str, *pragmas: str) -> Writer:
        """Open a file for writing; the mode of its URI says whether it is made if there is none."""

        def connect() -> sqlite3.Connection:
            return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)

        writer = cls(connect, iter_chunk_size=64)
        await writer
        try:
            await writer.run(lambda connection: [connection.execute(f"PRAGMA {pragma}") for pragma in pragmas])
        except BaseException:
            await writer.close()
            raise
        return writer

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on the connection, in its thread. Cancelling the caller does not stop it."""
        result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        return result
