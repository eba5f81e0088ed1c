"""The proxy that other tests break Postgres with: it must itself do what they believe it does."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from tests.support.proxy import PostgresProxy


async def connect(proxy: PostgresProxy) -> psycopg.AsyncConnection:
    return await psycopg.AsyncConnection.connect(proxy.url, autocommit=True, connect_timeout=2)


async def test_it_counts_connections_and_round_trips(proxy: PostgresProxy) -> None:
    async with await connect(proxy) as connection:
        before = proxy.round_trips
        await connection.execute("SELECT 1")
        await connection.execute("SELECT repeat('x', 1000000)")
        assert proxy.round_trips == before + 2
        assert (proxy.accepted, proxy.connections) == (1, 1)


async def test_cut_resets_what_is_open_and_refuses_what_is_new_until_resumed(proxy: PostgresProxy) -> None:
    url = proxy.url
    async with await connect(proxy) as connection:
        await proxy.cut()
        with pytest.raises(psycopg.OperationalError):
            await connection.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            await connect(proxy)
    await proxy.resume()
    assert proxy.url == url
    async with await connect(proxy) as connection:
        await connection.execute("SELECT 1")


async def test_stall_holds_every_byte_until_resumed(proxy: PostgresProxy) -> None:
    async with await connect(proxy) as connection:
        proxy.stall()
        answer = asyncio.ensure_future(connection.execute("SELECT 1"))
        done, _ = await asyncio.wait([answer], timeout=0.2)
        assert not done
        await proxy.resume()
        assert await (await answer).fetchone() == (1,)


async def test_deaf_it_takes_connections_and_never_answers(proxy: PostgresProxy) -> None:
    await proxy.deafen()
    accepted = proxy.accepted
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        await connect(proxy)
    assert proxy.accepted > accepted
