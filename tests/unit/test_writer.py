"""The writing connection gives back what a large change took."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from replica.location import Location
from replica.writer import WRITE_PRAGMAS, Writer, narrow, widen


async def test_after_a_large_change_the_connection_holds_as_much_memory_as_before(tmp_path: Path) -> None:
    def held(connection: sqlite3.Connection) -> tuple[int, int]:
        return (
            connection.execute("PRAGMA cache_size").fetchone()[0],
            connection.execute("PRAGMA temp.page_count").fetchone()[0],
        )

    def change(connection: sqlite3.Connection) -> None:
        widen(connection)
        connection.execute("BEGIN")
        connection.execute("CREATE TEMP TABLE staged (value)")
        connection.execute("INSERT INTO staged SELECT zeroblob(1000000)")
        connection.execute("DELETE FROM staged")
        connection.execute("COMMIT")

    writer = await Writer.open(Location(tmp_path / "a.db").uri("rwc"), *WRITE_PRAGMAS)
    try:
        before = await writer.run(held)
        await writer.run(change)
        assert min(await writer.run(held)) < min(before)  # in KiB below zero
        assert (await writer.run(held))[1] > 200
        await writer.run(narrow)
        assert await writer.run(held) == before
    finally:
        await writer.close()
