"""Reads of a user whose replica is being synced ten times a second, beside the same reads without."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

import httpx
import psycopg

from tests.benchmarks.bench import USERS, Bench
from tests.benchmarks.data import insert_image, user_name
from tests.benchmarks.figures import Figure, at_most, fact, ratio, shown
from tests.benchmarks.load import Asked, Load, Rate, check, told
from tests.benchmarks.process import serving
from tests.support.server import client_of

TITLE = "Reads while the user's replica syncs"

SYNCS_EACH_S = 10
_USER = user_name(USERS - 1)  # its rows grow; nobody else measures with it


async def measure(bench: Bench) -> list[Figure]:
    """Measure a page of 20 with and without syncs, in turn."""
    database = await bench.gallery()
    page = (Asked("/api/images?limit=20", _USER),)
    seconds = bench.seconds * 2
    without: list[Rate] = []
    within: list[Rate] = []
    syncs_s: list[float] = []
    async with (
        serving(bench.folder / "syncing", database) as target,
        client_of(target.url, _USER) as client,
        await psycopg.AsyncConnection.connect(database, autocommit=True) as connection,
    ):
        await check(target.url, page, 200, "created_at")
        load = Load(target, bench.folder)
        await load.run(page, 1)
        for _ in range(bench.rounds):
            without.append(await load.run(page, seconds))
            async with _syncing(connection, client, syncs_s):
                within.append(await load.run(page, seconds))
    each_s = len(syncs_s) / (seconds * bench.rounds)
    return [
        at_most(
            "p99 with syncs, of p99 without",
            ratio((one.p99_ms for one in within), (one.p99_ms for one in without)),
            2,
            detail=f"with: {told(within)}; without: {told(without)}",
        ),
        fact("rate with syncs, of rate without", f"{ratio((r.rate for r in within), (r.rate for r in without)):.2f} ×"),
        fact("a sync under this load", f"{shown(median(syncs_s) * 1e3)} ms", f"{shown(each_s)} a second, 1 row each"),
    ]


@asynccontextmanager
async def _syncing(
    connection: psycopg.AsyncConnection[tuple[object, ...]], client: httpx.AsyncClient, syncs_s: list[float]
) -> AsyncIterator[None]:
    """Insert a row and have it synced, ten times a second, for as long as the block runs."""

    async def go_on() -> None:
        due = time.perf_counter()
        while True:
            await insert_image(connection, _USER)
            began = time.perf_counter()
            answer = await client.post("/api/sync")
            answer.raise_for_status()
            assert not answer.json()["rebuilt"]
            syncs_s.append(time.perf_counter() - began)
            due = max(due + 1 / SYNCS_EACH_S, time.perf_counter())
            await asyncio.sleep(due - time.perf_counter())

    task = asyncio.create_task(go_on())
    try:
        yield
        if task.done():
            task.result()  # raises what ended it
    finally:
        task.cancel()
        await asyncio.wait([task])
