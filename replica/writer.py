"""The one connection that writes to a replica's file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable
from typing import TypeVar

import aiosqlite

T = TypeVar("T")

_CACHE = "cache_size=-2048"  # 2 MiB for each open replica
_LARGE_CACHE = "cache_size=-32768"  # 32 MiB while much is written: a page that changes often is written out once

WRITE_PRAGMAS = (
    "synchronous=NORMAL",
    _CACHE,
    "journal_size_limit=4194304",  # 4 MiB: a log that one big transaction made long does not stay long
    "wal_autocheckpoint=512",  # pages: 4 MiB
    "temp_store=MEMORY",
)


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
            await writer.run(lambda connection: _set(connection, pragmas))
        except BaseException:
            await writer.close()
            raise
        return writer

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run ``work`` on the connection, in its thread.

        Cancelling the caller breaks off the statement that is under way, as an error of ``work``; what is run next
        waits until that is over.
        """
        try:
            result: T = await self._execute(work, self._conn)  # type: ignore[no-untyped-call]
        except asyncio.CancelledError:
            self._conn.interrupt()
            raise
        return result


def _set(connection: sqlite3.Connection, pragmas: Iterable[str]) -> None:
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").fetchall()  # one left unread would keep an interruption in force


def widen(connection: sqlite3.Connection) -> None:
    """Give a connection with `WRITE_PRAGMAS` the memory that much writing wants."""
    connection.execute(f"PRAGMA {_LARGE_CACHE}")


def narrow(connection: sqlite3.Connection) -> None:
    """Take the memory back, and what its temporary tables hold; outside a transaction."""
    connection.execute(f"PRAGMA {_CACHE}")
    for store in ("FILE", "MEMORY"):  # a change of place is what drops temporary tables and frees their memory
        connection.execute(f"PRAGMA temp_store={store}")
