"""How soon a change reaches those who listen, what that costs, and what listening costs who writes.

Clock, writer and clients live in this process, beside the server and Postgres on the same cores: what is measured
includes what they take from each other. The other server's figures are of such runs, on a machine of the same size.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median

import psutil
import psycopg

from tests.benchmarks.bench import Bench
from tests.benchmarks.data import insert_image, user_name
from tests.benchmarks.figures import Figure, at_least, at_most, fact, ratio, shown, spread
from tests.benchmarks.process import Target, serving
from tests.support.raw import RawConnection, connected, read_told

TITLE = "Live: from a commit to those who listen"

REST_S = 0.5  # after many rows, until the disk has what they left to it
GAP_S = 0.03  # between two writes, as in the other server's runs
WATCHERS = 20
FOLLOWED = 1_000
WRITERS = 8
_STREAM = "/api/events?changes=true"
_IMAGE = json.dumps({"prompt": "a heron at low water", "image_url": "https://images.example/heron.png"}).encode()
_MANY = """
INSERT INTO image (user_id, prompt, image_url, model, seed, steps)
SELECT %s, 'burst row with a prompt of ordinary length, 8k', 'https://images.example/x.png', 'sdxl', n, 20
FROM generate_series(1, %s) AS n"""
_FEW_EACH = """
INSERT INTO image (user_id, prompt, image_url)
SELECT 'followed-' || n, 'amber basalt cedar dune', 'https://images.example/amber.png'
FROM generate_series(0, %s) AS n, generate_series(1, 10)"""

Connection = psycopg.AsyncConnection[tuple[object, ...]]


async def measure(bench: Bench) -> list[Figure]:
    """Measure it all, each on a server that does nothing else."""
    url = await bench.gallery()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        async with serving(bench.folder / "live", url) as target:
            figures = [
                *await _one_row(bench, target, connection),
                *await _fan_out(bench, target, connection),
                *await _many_rows(bench, target, connection),
            ]
        figures += await _memory(bench, url, connection)
        figures += await _idle(bench, url)
        figures += await _writing(bench, url, connection)
    return figures


# ------------------------------------------------------------- how soon


async def _one_row(bench: Bench, target: Target, connection: Connection) -> list[Figure]:
    """Write a row, by psql and through the server, and wait until it is with a client that listens."""
    user, times = user_name(0), 100 if bench.quick else 300
    async with _listening(target.url, user) as stream, connected(target.url, user) as asking:

        async def insert() -> None:
            await insert_image(connection, user)

        async def save() -> None:
            status, _ = await asking.ask("POST", "/api/images", _IMAGE)
            assert status == 201, status

        await _lags(20, insert, [stream])
        await _lags(20, save, [stream])
        by_psql = await _lags(times, insert, [stream])
        by_us = await _lags(times, save, [stream])
    acknowledged, through = [one.after_ack for one in by_psql], [one.after_start for one in by_us]
    return [
        at_most("commit by psql to event, p50", _p(acknowledged, 50), 10, " ms", "Zero: 9.5–12.8 ms"),
        at_most("… p99", _p(acknowledged, 99), 25, " ms", "Zero: 17–29 ms"),
        at_most(
            "write through the server to event, p50",
            _p(through, 50),
            5,
            " ms",
            f"from the start of the request; p99 {shown(_p(through, 99))} ms; "
            f"the write itself takes {shown(_p([one.after_start - one.after_ack for one in by_us], 50))} ms",
        ),
        fact("… after its answer", f"{shown(_p([one.after_ack for one in by_us], 50))} ms", "negative: before it"),
    ]


async def _fan_out(bench: Bench, target: Target, connection: Connection) -> list[Figure]:
    user, times = user_name(1), 60 if bench.quick else 150
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(_listening(target.url, user)) for _ in range(WATCHERS)]

        async def insert() -> None:
            await insert_image(connection, user)

        await _lags(10, insert, streams)
        last = [one.after_ack for one in await _lags(times, insert, streams)]
    told = f"p99 {shown(_p(last, 99))} ms; Zero: 43–65 ms, p99 120–147 ms"
    return [at_most(f"{WATCHERS} clients of one user, the last one, p50", _p(last, 50), 15, " ms", told)]


async def _many_rows(bench: Bench, target: Target, connection: Connection) -> list[Figure]:
    """Write many rows in one commit, and wait until they are announced; then, until they are all with the client."""
    figures = []
    for user, rows, bar_ms, peer in (("thousand", 1_000, 60, "293–518 ms"), ("many", 20_000, 400, "5.5–9.1 s")):
        announced = await _until_told(bench, target, connection, user, rows, "/api/events")
        told = await _until_told(bench, target, connection, user, rows, _STREAM)
        detail = f"{spread(announced)}; their contents with a client: {spread(told)}; Zero: {peer}"
        figures.append(at_most(f"{rows:,} rows in one commit, announced", median(announced), bar_ms, " ms", detail))
    return figures


async def _until_told(
    bench: Bench, target: Target, connection: Connection, user: str, rows: int, path: str
) -> list[float]:
    """Write many rows, in each round; give the ms from the commit until the stream has told of them to the end."""

    async def insert() -> None:
        await connection.execute(_MANY, (user, rows))

    lags = []
    async with _listening(target.url, user, path) as stream:
        for _ in range(bench.rounds):
            lags += [lag.after_ack for lag in await _lags(1, insert, [stream])]
            await connection.execute("DELETE FROM image WHERE user_id = %s", (user,))
            await _received(stream)
            await asyncio.sleep(REST_S)
    return lags


class _Lag:
    """One write: how long after its start and its acknowledgement, in ms, it was with all; and when that was."""

    def __init__(self, began: float, acknowledged: float, at: float) -> None:
        self.after_start = (at - began) * 1e3
        self.after_ack = (at - acknowledged) * 1e3
        self.at = at


async def _lags(times: int, write: Callable[[], Awaitable[None]], streams: Sequence[RawConnection]) -> list[_Lag]:
    now = time.perf_counter
    lags = []
    for _ in range(times):
        receiving = [asyncio.create_task(_received(stream)) for stream in streams]
        await asyncio.sleep(GAP_S)
        began = now()
        await write()
        acknowledged = now()
        lags.append(_Lag(began, acknowledged, max(await asyncio.gather(*receiving))))
    return lags


async def _received(stream: RawConnection) -> float:
    """Wait until a stream has told of an advance, to its end; say when that was."""
    while (event := await stream.next()).id is None:
        pass
    return event.at


@asynccontextmanager
async def _listening(url: str, user: str, path: str = _STREAM) -> AsyncIterator[RawConnection]:
    async with connected(url, user) as stream:
        await stream.listen(path)
        read_told((await stream.next()).data)
        yield stream


def _p(values: Sequence[float], percent: int) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


# ------------------------------------------------------------- what it holds


async def _memory(bench: Bench, url: str, connection: Connection) -> list[Figure]:
    """Let users with 1,000 rows listen, then let each have a change, then let all have another."""
    users = [user_name(number) for number in range(20 if bench.quick else 100)]
    async with serving(bench.folder / "memory", url) as target, AsyncExitStack() as stack:
        async with connected(target.url, users[0]) as asking:
            await asking.ask("GET", "/health/ready")
        idle = target.usage()
        streams = [await stack.enter_async_context(_listening(target.url, user, "/api/events")) for user in users]
        await asyncio.sleep(0.5)
        subscribed = target.usage()
        for user in users:
            await insert_image(connection, user)
        await asyncio.gather(*(_received(stream) for stream in streams))
        await asyncio.sleep(1)
        moved = target.usage()

    def each_kib(rss_mib: float) -> float:
        return (rss_mib - idle.rss_mib) / len(users) * 1024

    return [
        at_most("memory of an idle node", idle.rss_mib, 120, " MiB", "resident; Zero: 520 MiB"),
        at_most(
            "… and of each user of 1,000 rows who listens",
            each_kib(moved.rss_mib),
            300,
            " KiB",
            f"of {len(users)}, each replica written to; {shown(each_kib(subscribed.rss_mib))} KiB before that; "
            f"{moved.threads} threads; Zero: 5–7 MiB",
        ),
    ]


# ------------------------------------------------------------- what it costs


async def _idle(bench: Bench, url: str) -> list[Figure]:
    """Look at the processor time of the server and of Postgres while nobody writes."""
    seconds = 3 if bench.quick else 6
    figures = []
    async with serving(bench.folder / "idle", url, follow_idle_s=600) as target:
        postgres = _postmaster(url)

        async def watched(what: str) -> None:
            await asyncio.sleep(1)
            before = target.cpu_s(), _cpu_s(postgres)
            await asyncio.sleep(seconds)
            ours, theirs = (
                (after - was) / seconds * 1e3
                for after, was in zip((target.cpu_s(), _cpu_s(postgres)), before, strict=True)
            )
            told = f"{shown(ours)} ms/s of the server, {shown(theirs)} ms/s of Postgres"
            figures.append(fact(f"processor time while nothing moves, {what}", told))

        await watched("nobody followed")
        async with connected(target.url, user_name(0)) as asking:
            await asking.ask("GET", "/api/images?limit=1")
            await watched("a reader followed")
        async with _listening(target.url, user_name(0)):
            await watched("a stream open")
    return figures


async def _writing(bench: Bench, url: str, connection: Connection) -> list[Figure]:
    """Compare what writers achieve while nobody is followed, and while a thousand users are who do not move."""
    followed = 200 if bench.quick else FOLLOWED
    await connection.execute(_FEW_EACH, (followed - 1,))
    without, within, moving = [], [], []
    settings = {"follow_idle_s": 0.5, "replica_open_max": 2 * followed}
    async with serving(bench.folder / "writing", url, **settings) as target:
        async with _all_listening(target.url, followed):
            pass  # every replica is built
        for _ in range(bench.rounds):
            await asyncio.sleep(3)  # those who listened are let go
            without.append(await _rate(url, bench.seconds, lambda n: f"writer-{n}"))
            async with _all_listening(target.url, followed):
                within.append(await _rate(url, bench.seconds, lambda n: f"writer-{n}"))
                moving.append(await _rate(url, bench.seconds, lambda n: f"followed-{n}"))
    return [
        at_least(
            f"commits a second of {WRITERS} writers with {followed:,} users followed, of those with none",
            ratio(within, without),
            0.9,
            detail=f"{spread(within, '/s')}; {spread(without, '/s')}; by some who are followed: {spread(moving, '/s')}",
        )
    ]


@asynccontextmanager
async def _all_listening(url: str, count: int) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for number in range(count):
            await stack.enter_async_context(_listening(url, f"followed-{number}", "/api/events"))
        yield


async def _rate(url: str, seconds: float, user_of: Callable[[int], str]) -> float:
    ends_at = time.perf_counter() + seconds
    commits = 0

    async def write(number: int) -> None:
        nonlocal commits
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
            while time.perf_counter() < ends_at:
                await insert_image(connection, user_of(number))
                commits += 1

    await asyncio.gather(*(write(number) for number in range(WRITERS)))
    return commits / seconds


def _postmaster(url: str) -> psutil.Process:
    with psycopg.connect(url, autocommit=True) as connection:
        return psutil.Process(connection.info.backend_pid).parent()


def _cpu_s(process: psutil.Process) -> float:
    total = 0.0
    for each in (process, *process.children()):
        try:
            used = each.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += used.user + used.system
    return total
