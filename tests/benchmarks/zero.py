"""The live benchmark beside Rocicorp Zero, by its own benchmark, the two in turn on the same machine.

Zero is a folder with bench.mjs, query-server.mjs and the like. It is given as ``--zero-dir``, with its npm packages
installed. Our bars were set where Zero had certain figures: as ratios they can be judged on any machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median

import psycopg

from tests.benchmarks.bench import Bench
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
from tests.benchmarks.live import held
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


async def measure(bench: Bench) -> list[Figure]:
    """Measure what the servers hold while they are new, then both in turn, in several rounds."""
    if bench.zero_dir is None:
        return [fact("skipped", "", "give Zero's folder with --zero-dir")]
    if (lack := await missing(bench.zero_dir)) is not None:
        return [fact("skipped", "", lack)]
    url = await bench.gallery()
    folder = bench.folder / "zero"
    folder.mkdir()
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
        zero_running(bench.zero_dir, folder / "theirs") as zero,
    ):
        figures = await _memory(bench, zero, url, connection)
        async with serving(folder / "ours", url) as target:
            rounds = [await _round(bench, zero, target.url, connection) for _ in range(bench.rounds)]
    return _figures(rounds) + figures


Round = dict[str, tuple[float, float]]
"""By figure: ours and theirs, in ms."""


async def _round(bench: Bench, zero: Zero, target: str, connection: Connection) -> Round:
    """Measure each once: theirs and, once that has nothing left to do, ours."""
    times, of_each = (100, 60) if bench.quick else (200, 150)
    p50, p99 = _lag(await zero.bench("latency", times, round(GAP_S * 1e3)))
    by_psql, by_us = await one_row(target, connection, times)
    acknowledged = [lag.after_ack for lag in by_psql]
    found: Round = {
        "p50": (percentile(acknowledged, 50), p50),
        "p99": (percentile(acknowledged, 99), p99),
        "through": (percentile([lag.after_start for lag in by_us], 50), p50),
        "answered": (percentile([lag.after_ack for lag in by_us], 50), p50),
    }
    theirs, _ = _lag(await zero.bench("fanout", WATCHERS, of_each))
    last = [lag.after_ack for lag in await fan_out(target, connection, of_each)]
    found["fan out"] = (percentile(last, 50), theirs)
    for rows in _MANY:
        visible = _number(r"the watched user .* all visible (\d+) ms", await zero.bench("burst", rows))
        for what, path in (("announced", EVENTS), ("told", CHANGES)):
            lags = await many_rows(target, connection, rows, path, 3)
            found[f"{what} {rows}"] = (median(lag.after_ack for lag in lags), visible)
    return found


def _figures(rounds: Sequence[Round]) -> list[Figure]:
    def figure(what: str, key: str, bar: float | None = None, more: str = "") -> Figure:
        ours, theirs = zip(*(each[key] for each in rounds), strict=True)
        told = beside(ours, theirs, " ms") + more
        if bar is None:
            return fact(what, f"{shown(ratio(ours, theirs))} ×", told)
        return at_most(what, ratio(ours, theirs), bar, detail=told)

    figures = [
        figure("commit by psql to event, p50", "p50", _P50),
        figure("… p99", "p99", _P99),
        figure("write through the server to event, p50", "through", _THROUGH_P50, ", of its commit"),
        figure("… after its answer", "answered", more=", of its commit"),
        figure(f"{WATCHERS} clients of one user, the last one, p50", "fan out", _FAN_OUT),
    ]
    for rows, bar in _MANY.items():
        figures += [
            figure(f"{rows:,} rows in one commit, announced", f"announced {rows}", bar),
            figure("… their contents with a client", f"told {rows}"),
        ]
    return figures


async def _memory(bench: Bench, zero: Zero, url: str, connection: Connection) -> list[Figure]:
    """Look at what both hold without a client, and with clients who are each another user of 1,000 rows."""
    count = 20 if bench.quick else 100
    said = await zero.bench("mem", zero.pid, count)
    idle, full = (_number(rf"^{clients} clients: .* PSS sum (\d+) MiB", said) for clients in (0, count))
    each = max(full - idle, 1) / count * 1024  # MiB in whole numbers; its heaps may have had the room
    ours = await held(bench.folder / "zero" / "memory", url, connection, count)
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
            detail=beside([ours.moved_kib], [each], " KiB") + f"; of {count}, each replica of ours written to",
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
