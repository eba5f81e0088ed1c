"""The writing connection gives back what a large change took, and stops when nobody waits."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import apsw
import pytest

from replica.library import connect
from replica.location import Location
from replica.writer import WRITE_PRAGMAS, Writer, narrow, widen


async def test_after_a_large_change_the_connection_holds_as_much_memory_as_before(tmp_path: Path) -> None:
    def held(connection: apsw.Connection) -> tuple[int, int]:
        return (
            connection.execute("PRAGMA cache_size").get,
            connection.execute("PRAGMA temp.page_count").get,
        )

    def change(connection: apsw.Connection) -> None:
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


async def test_what_is_under_way_is_broken_off_when_its_caller_leaves(tmp_path: Path) -> None:
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def change(connection: apsw.Connection) -> None:
        connection.create_scalar_function("begun", lambda *_: str(loop.call_soon_threadsafe(begun.set)), 0)
        connection.execute("BEGIN")
        connection.execute(
            "CREATE TABLE numbers AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000000) "
            "SELECT CASE WHEN i = 1000 THEN begun() END FROM n"
        )

    def put_right(connection: apsw.Connection) -> int:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        tables: int = connection.execute("SELECT count(*) FROM sqlite_master").get
        return tables

    writer = await Writer.open(Location(tmp_path / "a.db").uri("rwc"), *WRITE_PRAGMAS)
    try:
        changing = asyncio.create_task(writer.run(change))
        await begun.wait()
        changing.cancel()
        async with asyncio.timeout(2):
            assert await writer.run(put_right) == 0
    finally:
        await writer.close()


@pytest.mark.parametrize("when", ["it opens", "it closes"])
async def test_whoever_is_cancelled_waits_until_the_thread_is_at_work_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """It would end after the event loop, and say so with a traceback."""
    at_work, go_on = threading.Event(), threading.Event()
    ending: asyncio.Task[Writer] | asyncio.Task[None]

    def wait(*_: object) -> None:
        at_work.set()
        go_on.wait(20)

    def slowly(uri: str) -> apsw.Connection:
        wait()
        return connect(uri)

    uri = Location(tmp_path / "a.db").uri("rwc")
    if when == "it opens":
        monkeypatch.setattr("replica.writer.connect", slowly)
        ending = asyncio.create_task(Writer.open(uri))
    else:
        writer = await Writer.open(uri)
        working = asyncio.create_task(writer.run(wait))
        await asyncio.sleep(0)
        ending = asyncio.create_task(writer.close())
        working.cancel()
    assert await asyncio.to_thread(at_work.wait, 20)
    for _ in range(3):
        ending.cancel()
        await asyncio.wait([ending], timeout=0.01)
        assert not ending.done()
    go_on.set()
    await asyncio.wait([ending])
    assert ending.cancelled()
