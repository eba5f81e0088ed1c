"""How soon a change reaches those who listen, what that costs, and what listening costs who writes.

The other server's figures are of its own runs, on a machine of the same size; `zero` measures it in turn with us.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, stdev

import psutil
import psycopg

from primary.gallery.tables import catalog
from primary.postgres_feed import PostgresFeed
from tests.benchmarks.bare import commit_all, insert_all, rows_of
from tests.benchmarks.bench import Bench, left_uncollected, primary_of
from tests.benchmarks.data import insert_image, user_name
from tests.benchmarks.figures import Figure, at_least, at_most, fact, shown, spread
from tests.benchmarks.lags import (
    CHANGES,
    EVENTS,
    GAP_S,
    WATCHERS,
    Connection,
    delete_all,
    fan_out,
    insert_many,
    listening,
    many_rows,
    one_row,
    percentile,
    received,
)
from tests.benchmarks.process import serving, tree_cpu_s
from tests.support.raw import connected

TITLE = "Live: from a commit to those who listen"

FOLLOWED = 1_000
LISTENERS = 100  # of few, each would seem to hold what all share: the threads that write, say
WRITERS = 8
_FEW_EACH = """
INSERT INTO image (user_id, prompt, image_url)
SELECT 'followed-' || n, 'amber basalt cedar dune', 'https://images.example/amber.png'
FROM generate_series(0, %s) AS n, generate_series(1, 10)"""


async def measure(bench: Bench) -> list[Figure]:
    """Measure it all, each on a server that does nothing else."""
    url = await bench.gallery()
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        async with serving(bench.folder / "live", url) as target:
            figures = [
                *await _one_row(bench, target.url, url, connection),
                await _fan_out(bench, target.url, connection),
                *await _many_rows(bench, target.url, url, connection),
            ]
        figures += await _memory(bench, url, connection)
        figures += await _idle(bench, url)
        figures += await _writing(bench, url, connection)
    return figures


# ------------------------------------------------------------- how soon


async def _one_row(bench: Bench, target: str, url: str, connection: Connection) -> list[Figure]:
    """Write a row, and wait until it is announced; then, until it is with the client."""
    times = 100 if bench.quick else 300
    (by_psql, by_us), (told_by_psql, told_by_us) = [
        await one_row(target, connection, times, path) for path in (EVENTS, CHANGES)
    ]
    bare = percentile(await commit_all(url, "bare", times, GAP_S), 50) * 1e3
    itself = percentile([lag.after_start - lag.after_ack for lag in by_us], 50)
    acknowledged = [lag.after_ack for lag in by_psql]
    through = [lag.after_start for lag in by_us]
    p50 = percentile(through, 50)
    return [
        at_most("commit by psql to event, p50", percentile(acknowledged, 50), 10, " ms", "Zero: 9.5–12.8 ms"),
        at_most("… p99", percentile(acknowledged, 99), 25, " ms", "Zero: 17–29 ms"),
        fact("… with the row in it", _both([lag.after_ack for lag in told_by_psql])),
        at_most(
            "write through the server to event, p50",
            p50,
            5,
            " ms",
            f"from the start of the request; p99 {shown(percentile(through, 99))} ms; the write itself takes "
            f"{shown(itself)} ms; {shown(p50 / bare)} × a bare INSERT and COMMIT ({shown(bare)} ms)",
        ),
        fact("… with the row in it", _both([lag.after_start for lag in told_by_us])),
        fact("… after its answer", _both([lag.after_ack for lag in by_us]), "negative: before it"),
    ]


def _both(lags: list[float]) -> str:
    return f"{shown(percentile(lags, 50))} ms, p99 {shown(percentile(lags, 99))} ms"


async def _fan_out(bench: Bench, target: str, connection: Connection) -> Figure:
    last = [lag.after_ack for lag in await fan_out(target, connection, 60 if bench.quick else 150)]
    told = f"p99 {shown(percentile(last, 99))} ms; Zero: 43–65 ms, p99 120–147 ms"
    return at_most(f"{WATCHERS} clients of one user, the last one, p50", percentile(last, 50), 15, " ms", told)


async def _many_rows(bench: Bench, target: str, url: str, connection: Connection) -> list[Figure]:
    """Write many rows in one commit, and wait until they are announced; then, until they are all with the client."""
    figures = []
    for rows, bar_ms, peer in ((1_000, 60, "293–518 ms"), (20_000, 400, "5.5–9.1 s")):
        announced, told = [
            [lag.after_ack for lag in await many_rows(target, connection, rows, path, bench.rounds)]
            for path in (EVENTS, CHANGES)
        ]
        bare, after = await _bare(bench, url, connection, rows)
        detail = (
            f"{spread(announced)}; {shown(median(announced) / bare)} × of bare executemany ({shown(bare)} ms), "
            f"{shown(median(announced) / after)} × with the indexes made after ({shown(after)} ms); "
            f"their contents with a client: {spread(told)}; Zero: {peer}"
        )
        figures.append(at_most(f"{rows:,} rows in one commit, announced", median(announced), bar_ms, " ms", detail))
    return figures


async def _bare(bench: Bench, url: str, connection: Connection, rows: int) -> tuple[float, float]:
    """Give the ms that SQLite takes for the same rows from memory, with the same indexes before and made after."""
    await insert_many(connection, "bare-many", rows)
    async with primary_of(url) as primary:
        there = await rows_of(PostgresFeed(primary, catalog), "bare-many")
    await delete_all(connection, "bare-many")
    assert len(there) == rows
    path = bench.folder / "bare.db"
    before, after = [
        median(insert_all(path, catalog, "image", there, indexed=indexed) for _ in range(bench.rounds)) * 1e3
        for indexed in (True, False)
    ]
    return before, after


# ------------------------------------------------------------- what it holds


@dataclass(frozen=True, slots=True)
class Held:
    """What a node holds idle, in MiB, and in KiB for each user: who has begun to listen, and who had a change."""

    idle_mib: float
    subscribed_kib: float
    moved_kib: float
    threads: int


async def held(folder: Path, url: str, connection: Connection) -> Held:
    """Let `LISTENERS` users with 1,000 rows listen, then let each have a change."""
    users = [user_name(number) for number in range(LISTENERS)]
    async with serving(folder, url) as target, AsyncExitStack() as stack:
        async with connected(target.url, users[0]) as asking:
            await asking.ask("GET", "/health/ready")
        idle = target.usage()
        streams = [await stack.enter_async_context(listening(target.url, user, EVENTS)) for user in users]
        await asyncio.sleep(0.5)
        subscribed = target.usage()
        for user in users:
            await insert_image(connection, user)
        await asyncio.gather(*(received(stream) for stream in streams))
        await asyncio.sleep(1)
        moved = target.usage()

    def each_kib(rss_mib: float) -> float:
        return (rss_mib - idle.rss_mib) / LISTENERS * 1024

    return Held(idle.rss_mib, each_kib(subscribed.rss_mib), each_kib(moved.rss_mib), moved.threads)


async def _memory(bench: Bench, url: str, connection: Connection) -> list[Figure]:
    node = await held(bench.folder / "memory", url, connection)
    return [
        at_most("memory of an idle node", node.idle_mib, 120, " MiB", "resident; Zero: 520 MiB"),
        at_most(
            "… and of each user of 1,000 rows who listens",
            node.moved_kib,
            300,
            " KiB",
            f"of {LISTENERS}, each replica written to; {shown(node.subscribed_kib)} KiB before that; "
            f"{node.threads} threads; Zero: 5–7 MiB",
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
            before = target.cpu_s(), tree_cpu_s(postgres)
            await asyncio.sleep(seconds)
            ours, theirs = (
                (after - was) / seconds * 1e3
                for after, was in zip((target.cpu_s(), tree_cpu_s(postgres)), before, strict=True)
            )
            told = f"{shown(ours)} ms/s of the server, {shown(theirs)} ms/s of Postgres"
            figures.append(fact(f"processor time while nothing moves, {what}", told))

        await watched("nobody followed")
        async with connected(target.url, user_name(0)) as asking:
            await asking.ask("GET", "/api/images?limit=1")
            await watched("a reader followed")
        async with listening(target.url, user_name(0)):
            await watched("a stream open")
    return figures


async def _writing(bench: Bench, url: str, connection: Connection) -> list[Figure]:
    """Compare what writers achieve while a thousand users are followed who do not move, and while the node is stopped.

    In turn, by the second: what a machine gives changes more from minute to minute than following costs.
    """
    followed, turns = (200, 10) if bench.quick else (FOLLOWED, 30)
    await connection.execute(_FEW_EACH, (followed - 1,))
    following: list[float] = []
    nobody: list[float] = []
    async with (
        serving(bench.folder / "writing", url, replica_open_max=2 * followed) as target,
        _all_listening(target.url, followed),
    ):
        for rates in (nobody, following, following, nobody) * (turns // 2):  # each first as often as the other
            with target.stopped() if rates is nobody else nullcontext():
                rates.append(await _rate(url, 1, lambda n: f"writer-{n}"))
        moving = [await _rate(url, 1, lambda n: f"followed-{n}") for _ in range(bench.rounds)]
    compared = [one / other for one, other in zip(following, nobody, strict=True)]
    return [
        at_least(
            f"commits a second of {WRITERS} writers with {followed:,} users followed, of those with the node stopped",
            mean(compared),
            0.9,
            detail=f"± {shown(stdev(compared) / turns**0.5)}; {spread(following, '/s')}, from one second to the next "
            f"{stdev(following) / mean(following):.0%} more or less; by some who are followed: {spread(moving, '/s')}",
        )
    ]


@asynccontextmanager
async def _all_listening(url: str, count: int) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for number in range(count):
            await stack.enter_async_context(listening(url, f"followed-{number}", EVENTS))
        with left_uncollected():  # in this process, which writes
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


def _postmaster(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        return psutil.Process(connection.info.backend_pid).ppid()
