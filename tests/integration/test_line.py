"""A connection of one's own: what is asked over it, and what becomes of it when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from primary.errors import InvalidValue, PrimaryUnavailable
from primary.line import Line
from primary.postgres import Primary
from tests.support.proxy import proxied

_PID = "SELECT pg_backend_pid()"
_SLEEP = "SELECT pg_sleep(60)"


@pytest.fixture
async def line(primary: Primary) -> Line:
    return primary.line()  # closed with it


@asynccontextmanager
async def another(primary: Primary) -> AsyncIterator[psycopg.AsyncConnection]:
    async with await psycopg.AsyncConnection.connect(primary.url, autocommit=True) as connection:
        yield connection


async def nobody_sleeps(connection: psycopg.AsyncConnection) -> None:
    """Wait until no session of this database is in a `_SLEEP`."""
    active = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = %s AND datname = current_database()"
    )
    async with asyncio.timeout(5):
        while True:
            row = await (await connection.execute(active, [_SLEEP])).fetchone()
            if row == (0,):
                return
            await asyncio.sleep(0.01)


async def test_rows_are_texts_and_null_is_none(line: Line) -> None:
    assert await line.ask("SELECT 1, NULL, '', 'ü–🌊', true", within_s=5) == [("1", None, "", "ü–🌊", "t")]
    assert await line.ask("SELECT $1::text || $2::text", "a'b", "", within_s=5) == [("a'b",)]
    assert await line.ask("SELECT 1 WHERE false", within_s=5) == []
    rows = await line.ask("SELECT n, repeat('x', 100) FROM generate_series(1, 20000) AS n", within_s=10)
    assert [int(number or 0) for number, _ in rows] == [*range(1, 20_001)]


@pytest.mark.parametrize("prepared", [True, False])
async def test_it_is_one_connection_and_a_question_is_planned_once_unless_nothing_may_be_prepared(
    primary: Primary, prepared: bool
) -> None:
    one = Primary(primary.url, prepared_statements=prepared)
    line = one.line()
    try:
        pids = {tuple(await line.ask(_PID, within_s=5)) for _ in range(5)}
        assert len(pids) == 1
        kept = await line.ask("SELECT count(*) FROM pg_prepared_statements", within_s=5)
        assert kept == [("2" if prepared else "0",)]
    finally:
        await one.close()


async def test_an_error_is_told_and_the_next_question_is_answered(line: Line, primary: Primary) -> None:
    for _ in range(2):
        with pytest.raises(InvalidValue):
            await line.ask("SELECT 1 / $1::int", "0", within_s=5)
        assert await line.ask("SELECT 1 / $1::int", "1", within_s=5) == [("1",)]
    assert primary.reachable


async def test_a_connection_that_ended_while_nobody_asked_is_not_watched_on_and_made_again(
    line: Line, primary: Primary, monkeypatch: pytest.MonkeyPatch
) -> None:
    came = asyncio.Queue[None]()
    told = Line._came

    def noted(self: Line) -> None:
        came.put_nowait(None)
        told(self)

    monkeypatch.setattr(Line, "_came", noted)
    ((pid,),) = await line.ask(_PID, within_s=5)
    while not came.empty():
        came.get_nowait()
    async with another(primary) as connection:
        await connection.execute("SELECT pg_terminate_backend(%s::int, 5000)", [pid])
        await asyncio.wait_for(came.get(), 5)
        for _ in range(10):  # round trips, in each of which the loop would be told again
            await connection.execute("SELECT 1")
    assert came.empty()
    with pytest.raises(PrimaryUnavailable):
        await line.ask(_PID, within_s=5)
    assert await line.ask(_PID, within_s=5) != [(pid,)]


async def test_what_takes_too_long_is_given_up_here_and_there(line: Line, primary: Primary) -> None:
    async with another(primary) as connection:
        with pytest.raises(PrimaryUnavailable, match="did not answer in time"):
            await line.ask(_SLEEP, within_s=0.2)
        await nobody_sleeps(connection)
    assert await line.ask("SELECT 1", within_s=5) == [("1",)]


async def test_who_leaves_ends_the_question(line: Line, primary: Primary) -> None:
    async with another(primary) as connection:
        asking = asyncio.create_task(line.ask(_SLEEP, within_s=30))
        async with asyncio.timeout(5):
            while not line._watched or line._waiter is None:
                await asyncio.sleep(0.001)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await nobody_sleeps(connection)
    assert await line.ask("SELECT 1", within_s=5) == [("1",)]


async def test_a_dead_link_is_given_up_and_a_cut_one_at_once(primary: Primary) -> None:
    async with proxied(primary.url) as proxy:
        far = Primary(proxy.url)
        line = far.line()
        try:
            assert await line.ask("SELECT 1", within_s=5) == [("1",)]
            proxy.stall()
            async with asyncio.timeout(5):
                with pytest.raises(PrimaryUnavailable):
                    await line.ask("SELECT 1", within_s=0.2)
            await proxy.resume()
            assert await line.ask("SELECT 1", within_s=5) == [("1",)]
            asking = asyncio.create_task(line.ask(_SLEEP, within_s=30))
            async with asyncio.timeout(5):
                while line._waiter is None:
                    await asyncio.sleep(0.001)
                await proxy.cut()
                with pytest.raises(PrimaryUnavailable):
                    await asking
            assert not far.reachable
        finally:
            await far.close()
