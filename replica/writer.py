"""The one connection that writes to a replica's file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import aiosqlite
import apsw

from replica.ending import to_its_end
from replica.library import connect

T = TypeVar("T")

_CACHE = "cache_size=-2048"  # 2 MiB for each open replica
_LARGE_CACHE = "cache_size=-32768"  # 32 MiB while much is written: a page that changes often is written out once

SMALL_START = ("cache_size=2", "shrink_memory", "schema_version")
"""Pragmas that come before what a cache may take.

At its first page SQLite takes memory for 20 at once, if the cache may have so many: 160 KiB for each connection, for a
user who listens and never reads as well. (The first pragma already reads one, so what that took is given back.)
"""

_IN_MEMORY, _ON_DISK = "temp_store=MEMORY", "temp_store=FILE"  # where temporary tables are, and rows that are sorted

WRITE_PRAGMAS = (
    *SMALL_START,
    "synchronous=NORMAL",
    _CACHE,
    "journal_size_limit=2097152",  # 2 MiB: a log that one big transaction made long does not stay long
    "wal_autocheckpoint=0",  # never within a commit, for which who listens waits: see `Replica.checkpoint`
    _IN_MEMORY,
)


class Writer(aiosqlite.Connection):
    """An aiosqlite connection that runs a whole function in its thread: one hop for many statements.

    What aiosqlite gives is the thread, in which anything can be run in turn; the connection in it is apsw's.
    """

    @classmethod
    async def open(cls, uri: str, *pragmas: str) -> Writer:
        """Open a file for writing; the mode of its URI says whether it is made if there is none."""
        writer = cls(lambda: connect(uri), iter_chunk_size=64)  # type: ignore[arg-type,return-value]  # see above
        try:
            await to_its_end(writer._begin())
            await writer.run(lambda connection: set_up(connection, pragmas))
        except BaseException:
            await writer.close()
            raise
        return writer

    async def _begin(self) -> None:
        await self

    async def close(self) -> None:
        """Close the connection and end its thread, which may be at work still, however often the caller is cancelled.

        A thread that outlived the event loop would have nobody to tell what came of it.
        """
        await to_its_end(super().close())

    async def run(self, work: Callable[[apsw.Connection], T]) -> T:
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


def set_up(connection: apsw.Connection, pragmas: Sequence[str]) -> None:
    """Run pragmas, each to its end: one that gives a row would keep its transaction open until it was forgotten."""
    for pragma in pragmas:
        connection.execute(f"PRAGMA {pragma}").fetchall()


def widen(connection: apsw.Connection) -> None:
    """Give a connection with `WRITE_PRAGMAS` the memory that much writing wants."""
    connection.execute(f"PRAGMA {_LARGE_CACHE}")


def narrow(connection: apsw.Connection) -> None:
    """Take the memory back, and what its temporary tables hold; outside a transaction."""
    connection.execute(f"PRAGMA {_CACHE}")
    set_up(connection, (_ON_DISK, _IN_MEMORY))  # a change of place drops temporary tables, and their memory


@contextmanager
def sorting_on_disk(connection: apsw.Connection) -> Iterator[None]:
    """Have the block's transaction sort on the disk, in the folder that the library was told of.

    To make an index is to sort all rows of a table, with all that it carries: in memory that would take as much as an
    image and its texts, for each.
    """
    set_up(connection, (_ON_DISK,))
    try:
        yield
    finally:
        set_up(connection, (_IN_MEMORY,))
