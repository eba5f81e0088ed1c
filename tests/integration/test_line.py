"""A connection of one's own: what is asked over it, and what becomes of it when it breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
import uvloop

from primary.embedded import EmbeddedPostgres
from primary.errors import InvalidValue, PrimaryUnavailable
from primary.line import Line
from primary.postgres import Primary
from tests.support.databases import through
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


async def until_asleep(connection: psycopg.AsyncConnection, sessions: int) -> None:
    """Wait until so many sessions of this database are in a `_SLEEP`."""
    active = (
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = %s AND datname = current_database()"
    )
    async with asyncio.timeout(5):
        while True:
            row = await (await connection.execute(active, [_SLEEP])).fetchone()
            if row == (sessions,):
                return
            await asyncio.sleep(0.01)


async def until_it_waits(line: Line) -> None:
    async with asyncio.timeout(5):
        while line._waiting is None:
            await asyncio.sleep(0.001)


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


@pytest.mark.parametrize("runs", [asyncio.run, uvloop.run])
def test_a_connection_that_ended_while_nobody_asked_is_told_at_once_and_made_again(
    postgres: EmbeddedPostgres, runs: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    """On either event loop, and over TCP: there the end of a connection is an error of its socket, with news in it."""

    async def ended() -> None:
        async with (
            proxied(postgres.url) as proxy,
            await psycopg.AsyncConnection.connect(postgres.url, autocommit=True) as connection,
        ):
            far = Primary(proxy.url)
            line = far.line()
            try:
                for _ in range(10):
                    ((pid,),) = await line.ask(_PID, within_s=5)
                    await connection.execute("SELECT pg_terminate_backend(%s::int, 5000)", [pid])
                    while proxy.connections:
                        await asyncio.sleep(0.001)
                    async with asyncio.timeout(3):
                        with pytest.raises(PrimaryUnavailable):
                            await line.ask(_PID, within_s=30)
                        assert await line.ask(_PID, within_s=5) != [(pid,)]
            finally:
                await far.close()

    runs(ended())


async def test_who_waits_while_the_line_is_closed_is_told(line: Line) -> None:
    asking = asyncio.create_task(line.ask(_SLEEP, within_s=30))
    await until_it_waits(line)
    assert line._connection is not None
    socket = line._connection.pgconn.socket
    await line.close()
    with pytest.raises(PrimaryUnavailable):
        await asyncio.wait_for(asking, 5)
    assert not asyncio.get_running_loop().remove_reader(socket), "its number may be another's by now"
    assert await line.ask("SELECT 1", within_s=5) == [("1",)]


async def test_what_takes_too_long_is_given_up_here_and_there(line: Line, primary: Primary) -> None:
    async with another(primary) as connection:
        asking = asyncio.create_task(line.ask(_SLEEP, within_s=1))
        await until_asleep(connection, 1)
        with pytest.raises(PrimaryUnavailable, match="did not answer in time"):
            await asking
        await until_asleep(connection, 0)
    assert await line.ask("SELECT 1", within_s=5) == [("1",)]


async def test_who_leaves_ends_the_question(line: Line, primary: Primary) -> None:
    async with another(primary) as connection:
        asking = asyncio.create_task(line.ask(_SLEEP, within_s=30))
        await until_asleep(connection, 1)  # what Postgres has not begun yet cannot be cancelled there
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await until_asleep(connection, 0)
    assert await line.ask("SELECT 1", within_s=5) == [("1",)]


async def test_who_leaves_twice_leaves_no_answer_to_another_question(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    cancelling = asyncio.Event()

    async def hang(*_: object, **__: object) -> None:
        cancelling.set()
        await asyncio.Event().wait()

    asking = asyncio.create_task(line.ask("SELECT 1, pg_sleep(0.5)", within_s=30))
    await until_it_waits(line)
    with monkeypatch.context() as hanging:
        hanging.setattr(psycopg.AsyncConnection, "cancel_safe", hang)
        asking.cancel()
        await asyncio.wait_for(cancelling.wait(), 5)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert await line.ask("SELECT 2", within_s=5) == [("2",)]


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
            await until_it_waits(line)
            async with asyncio.timeout(5):
                await proxy.cut()
                with pytest.raises(PrimaryUnavailable):
                    await asking
            assert not far.reachable
        finally:
            await far.close()


async def test_a_sign_of_life_over_a_link_that_went_dead_is_not_waited_for(primary: Primary) -> None:
    async with proxied(primary.url) as proxy, through(proxy.url, connect_timeout_s=0.3) as near, asyncio.timeout(5):
        await near.ping()
        proxy.stall()
        with pytest.raises(PrimaryUnavailable):
            await near.ping()
        assert not near.reachable
        await proxy.resume()
        await near.ping()
        assert near.reachable
