"""A sync of one changed row, into a small replica and into a large one, and a sync of nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import psycopg

from primary.gallery.tables import catalog
from primary.postgres_feed import PostgresFeed
from replica.store import Store
from tests.benchmarks.bench import Bench, primary_of
from tests.benchmarks.data import insert_image
from tests.benchmarks.figures import Figure, at_most, fact, shown
from tests.benchmarks.first_build import finished
from tests.support.proxy import proxied

TITLE = "Incremental sync"

SIZES = {"small": 100, "large": 100_000}

_FILL = """
INSERT INTO image (user_id, prompt, image_url, model, seed, steps, created_at)
SELECT %s, 'amber basalt cedar dune ember fjord glacier harbor ' || n, 'https://images.example/' || n || '.png',
  'flux-1-schnell', n, 20, now() - n * interval '1 minute'
FROM generate_series(1, %s) AS n"""


async def measure(bench: Bench) -> list[Figure]:
    """Measure in turn: each user has one row inserted, is synced, and is synced again."""
    url = await bench.migrated("incremental")
    times = 50 if bench.quick else 150
    changed_s: dict[str, list[float]] = {user: [] for user in SIZES}
    unchanged_s: dict[str, list[float]] = {user: [] for user in SIZES}
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
        primary_of(url) as primary,
    ):
        for user, rows in SIZES.items():
            await connection.execute(_FILL, (user, rows))
        await connection.execute("VACUUM ANALYZE")
        store = Store(bench.folder / "incremental", catalog, PostgresFeed(primary, catalog))
        await store.open()
        try:
            for user in SIZES:
                await store.sync(user)
                await finished(store, user)
            for number in range(times + 10):
                for user in SIZES:
                    await insert_image(connection, user)
                    began = time.perf_counter()
                    changed = await store.sync(user)
                    between = time.perf_counter()
                    unchanged = await store.sync(user)
                    ended = time.perf_counter()
                    assert (changed.applied, unchanged.applied) == (1, 0)
                    if number >= 10:  # the first ones are to warm up
                        changed_s[user].append(between - began)
                        unchanged_s[user].append(ended - between)
        finally:
            await store.close()
        trips_unchanged, trips_changed = await _round_trips(bench, url, connection)
    small, large = (median(changed_s[user]) for user in SIZES)
    return [
        at_most(
            "1 row into 100,000 rows, of 1 row into 100",
            large / small,
            1.5,
            detail=f"{_ms(changed_s['large'])}; {_ms(changed_s['small'])}",
        ),
        fact("a sync when nothing changed", _ms(unchanged_s["small"]), f"of 100,000 rows: {_ms(unchanged_s['large'])}"),
        at_most("… round trips to Postgres", trips_unchanged, 1, ""),
        fact("round trips when one row changed", str(trips_changed)),
    ]


async def _round_trips(
    bench: Bench, url: str, connection: psycopg.AsyncConnection[tuple[object, ...]]
) -> tuple[int, int]:
    """Count on the wire how often the feed asks and waits: when nothing changed, and when one row did."""
    async with proxied(url) as proxy, primary_of(proxy.url) as primary:
        store = Store(bench.folder / "round-trips", catalog, PostgresFeed(primary, catalog))
        await store.open()
        try:
            for _ in range(8):  # until the driver has prepared every statement
                await insert_image(connection, "small")
                await store.sync("small")
            counts = []
            for inserted in range(2):
                for _ in range(inserted):
                    await insert_image(connection, "small")
                before = proxy.round_trips
                result = await store.sync("small")
                counts.append(proxy.round_trips - before)
                assert result.applied == inserted
        finally:
            await store.close()
    return counts[0], counts[1]


def _ms(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    return f"{shown(median(ordered) * 1e3)} ms (p99 {shown(ordered[len(ordered) * 99 // 100] * 1e3)})"
