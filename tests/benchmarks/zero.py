"""The live benchmark beside Rocicorp Zero, by its own benchmark, the two in turn on the same machine.

Zero is a folder with bench.mjs, query-server.mjs and the like. It is given as ``--zero-dir``, with its npm packages
installed. Our bars were set where Zero had certain figures: as ratios they can be judged on any machine.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import psycopg

from primary.declaration import Catalog
from primary.gallery.tables import catalog as gallery
from primary.postgres_feed import PostgresFeed
from replica.store import Store
from tests.benchmarks.bench import ROWS_EACH, USERS, Bench, primary_of
from tests.benchmarks.data import load_gallery, user_name
from tests.benchmarks.figures import Figure, at_most, beside, fact, ratio, shown
from tests.benchmarks.lags import (
    CHANGES,
    EVENTS,
    GAP_S,
    WATCHERS,
    Connection,
    fan_out,
    many_rows,
    one_row,
    percentile,
)
from tests.benchmarks.live import LISTENERS, held
from tests.benchmarks.narrow import CHOSEN, INSERT, narrow, narrow_database
from tests.benchmarks.process import serving
from tests.benchmarks.zero_cache import Zero, missing, zero_running

TITLE = "Beside Rocicorp Zero: from a commit to those who listen"

# Each the bar of `live` by the middle of what Zero had where that was set.
_P50 = 10 / 11
_P99 = 25 / 23
_THROUGH_P50 = 5 / 11
_FAN_OUT = 15 / 54
_MANY = {1_000: 60 / 400, 20_000: 400 / 7_300}
_IDLE = 120 / 520
_EACH = 300 / (6 * 1024)
_FIRST = (100_000 / 200_000) / 0.69  # the bar is of `first-build`; theirs with its index
_ROWS = USERS * ROWS_EACH  # what Zero copies at its start; ours are of one user


async def measure(bench: Bench) -> list[Figure]:
    """Measure what the servers hold while they are new, then both in turn, in several rounds."""
    if bench.zero_dir is None:
        return [fact("skipped", "", "give Zero's folder with --zero-dir")]
    if (lack := await missing(bench.zero_dir)) is not None:
        return [fact("skipped", "", lack)]
    folder = bench.folder / "zero"
    folder.mkdir()
    url, with_narrow = await bench.gallery(), await narrow_database(bench, "zero_narrow")
    figures = await _first_copies(bench, bench.zero_dir, with_narrow)
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
        await psycopg.AsyncConnection.connect(with_narrow, autocommit=True) as narrows,
        zero_running(bench.zero_dir, folder / "theirs") as zero,
    ):
        figures += await _memory(bench, zero, url, connection)
        async with (
            serving(folder / "ours", url) as target,
            serving(folder / "narrow", with_narrow, {CHOSEN: "1"}) as narrow_target,
        ):
            tables = {"image": (target.url, connection), "images": (narrow_target.url, narrows)}
            rounds = [
                await _commits(bench, zero, target.url, connection) | await _many_rows(zero, tables)
                for _ in range(bench.rounds)
            ]
    return _figures(rounds) + figures


async def _first_copies(bench: Bench, zero_dir: Path, with_narrow: str) -> list[Figure]:
    """Start Zero anew, and copy as many rows of a user's of ours, in each round."""
    folder = bench.folder / "zero"
    url = await bench.migrated("zero_first")
    await load_gallery(url, users=1, rows_each=_ROWS)
    async with await psycopg.AsyncConnection.connect(with_narrow, autocommit=True) as connection:
        await connection.execute(INSERT.encode(), {"user": user_name(0), "rows": _ROWS})
        await connection.execute("VACUUM ANALYZE")
    theirs, narrows, galleries = [], [], []
    for number in range(bench.rounds):
        async with zero_running(zero_dir, folder / f"first-{number}") as zero:
            theirs.append(zero.first_copy_ms())
        narrows.append(await _first_copy(folder / f"narrow-{number}", with_narrow, narrow))
        galleries.append(await _first_copy(folder / f"gallery-{number}", url, gallery))
    return [
        at_most(
            f"first copy of {_ROWS:,} rows, {what}", ratio(ours, theirs), _FIRST, detail=beside(ours, theirs, " ms")
        )
        for what, ours in (("its table", narrows), ("gallery", galleries))
    ]


async def _first_copy(folder: Path, url: str, catalog: Catalog) -> float:
    async with primary_of(url) as primary:
        store = Store(folder, catalog, PostgresFeed(primary, catalog))
        await store.open()
        try:
            began = time.perf_counter()
            result = await store.sync(user_name(0))
            taken = time.perf_counter() - began
        finally:
            await store.close()
    assert result.applied == _ROWS
    return taken * 1e3


Round = dict[str, tuple[float, float]]
"""By figure: ours and theirs, in ms."""


async def _commits(bench: Bench, zero: Zero, target: str, connection: Connection) -> Round:
    """Measure how soon a commit is with one and with many: theirs and, once that has nothing left to do, ours."""
    times, of_each = (100, 60) if bench.quick else (200, 150)
    p50, p99 = _lag(await zero.bench("latency", times, round(GAP_S * 1e3)))
    found: Round = {}
    for what, path in (("announced", EVENTS), ("told", CHANGES)):
        by_psql, by_us = await one_row(target, connection, times, path)
        acknowledged = [lag.after_ack for lag in by_psql]
        found |= {
            f"{what} p50": (percentile(acknowledged, 50), p50),
            f"{what} p99": (percentile(acknowledged, 99), p99),
            f"{what} through": (percentile([lag.after_start for lag in by_us], 50), p50),
            f"{what} answered": (percentile([lag.after_ack for lag in by_us], 50), p50),
        }
    theirs, _ = _lag(await zero.bench("fanout", WATCHERS, of_each))
    last = [lag.after_ack for lag in await fan_out(target, connection, of_each)]
    found["fan out"] = (percentile(last, 50), theirs)
    return found


async def _many_rows(zero: Zero, tables: Mapping[str, tuple[str, Connection]]) -> Round:
    """Measure many rows in one commit: of theirs and, by the server of each table, of ours."""
    found: Round = {}
    for rows in _MANY:
        visible = _number(r"the watched user .* all visible (\d+) ms", await zero.bench("burst", rows))
        for table, (target, connection) in tables.items():
            for what, path in (("announced", EVENTS), ("told", CHANGES)):
                lags = await many_rows(target, connection, rows, path, 3, table)
                found[f"{what} {rows} {table}"] = (median(lag.after_ack for lag in lags), visible)
    return found


def _figures(rounds: Sequence[Round]) -> list[Figure]:
    def figure(what: str, key: str, bar: float | None = None, more: str = "") -> Figure:
        ours, theirs = zip(*(each[key] for each in rounds), strict=True)
        told = beside(ours, theirs, " ms") + more
        if bar is None:
            return fact(what, f"{shown(ratio(ours, theirs))} ×", told)
        return at_most(what, ratio(ours, theirs), bar, detail=told)

    figures = [
        figure("commit by psql to event, p50", "announced p50", _P50),
        figure("… with the row in it", "told p50"),
        figure("… p99", "announced p99", _P99),
        figure("… with the row in it", "told p99"),
        figure("write through the server to event, p50", "announced through", _THROUGH_P50, ", of its commit"),
        figure("… with the row in it", "told through", more=", of its commit"),
        figure("… after its answer", "announced answered", more=", of its commit"),
        figure(f"{WATCHERS} clients of one user, the last one, p50", "fan out", _FAN_OUT),
    ]
    for rows, bar in _MANY.items():
        for table, name in (("images", "its table"), ("image", "gallery")):
            figures += [
                figure(f"{rows:,} rows in one commit, {name}, announced", f"announced {rows} {table}", bar),
                figure("… their contents with a client", f"told {rows} {table}"),
            ]
    return figures


async def _memory(bench: Bench, zero: Zero, url: str, connection: Connection) -> list[Figure]:
    """Look at what both hold without a client, and with clients who are each another user of 1,000 rows."""
    said = await zero.bench("mem", zero.pid, LISTENERS)
    idle, full = (_number(rf"^{clients} clients: .* PSS sum (\d+) MiB", said) for clients in (0, LISTENERS))
    each = max(full - idle, 1) / LISTENERS * 1024  # MiB in whole numbers; its heaps may have had the room
    ours = await held(bench.folder / "zero" / "memory", url, connection)
    return [
        at_most(
            "memory of an idle node",
            ours.idle_mib / idle,
            _IDLE,
            detail=beside([ours.idle_mib], [idle], " MiB") + ", shared pages counted once",
        ),
        at_most(
            "… and of each user of 1,000 rows who listens",
            ours.moved_kib / each,
            _EACH,
            detail=beside([ours.moved_kib], [each], " KiB") + f"; of {LISTENERS}, each replica of ours written to",
        ),
    ]


def _lag(said: str) -> tuple[float, float]:
    """Read p50 and p99 from a commit's acknowledgement until its row is visible."""
    p50, p99 = (_number(rf"commit ack -> visible: .*\b{name}=([\d.]+)", said) for name in ("p50", "p99"))
    return p50, p99


def _number(pattern: str, said: str) -> float:
    """Read a number out of what bench.mjs writes; refuse a measurement without it."""
    if (found := re.search(pattern, said, re.MULTILINE)) is None:
        raise RuntimeError(f"bench.mjs did not measure it: {said[-500:]}")
    return float(found[1])
