"""Many rows in one commit by plain SQL: how long until they are all in a replica that is read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import psycopg

from primary.cursor import Cursor
from primary.declaration import Catalog
from primary.feed import GONE, VALUES, Pull, Row
from primary.gallery.tables import catalog as gallery
from primary.postgres_feed import PostgresFeed
from replica.store import Store
from tests.benchmarks.bare import insert_all
from tests.benchmarks.bench import Bench, primary_of
from tests.benchmarks.figures import Figure, at_most, fact, ratio, shown, spread
from tests.benchmarks.narrow import INSERT, narrow, narrow_database

TITLE = "Many rows in one commit, until they are read"

BARS_MS = {1_000: 60, 20_000: 400}
_BEFORE = 1_000  # rows that the user has already

_INSERT = {
    "image": """
INSERT INTO image (user_id, prompt, image_url, model, seed, steps, created_at)
SELECT %(user)s, 'a photo of a subject number ' || i || ' in the style of ' || md5(i::text) || ' highly detailed, 8k',
  'https://cdn.example.com/images/' || md5((i * 7)::text) || '.png', 'flux-dev', i * 7919, 20 + mod(i, 30),
  timestamptz '2024-01-01' + i * interval '1 second'
FROM generate_series(1, %(rows)s) AS i""",
    "images": INSERT,
}
_EDIT = "UPDATE image SET prompt = prompt || ' again' WHERE user_id = %(user)s"


async def measure(bench: Bench) -> list[Figure]:
    """Measure the gallery's image (rendered pages, full text) and the narrow table, inserts and edits."""
    url = await bench.migrated("large_commit")
    figures = await _measure(bench, url, gallery, "image")
    url = await narrow_database(bench, "large_commit_narrow")
    return figures + await _measure(bench, url, narrow, "images")


async def _measure(bench: Bench, url: str, catalog: Catalog, table: str) -> list[Figure]:
    figures = []
    marks: dict[str, float] = {}

    def passing(name: str) -> None:
        marks[name] = time.perf_counter()

    async with primary_of(url) as primary, await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        feed = PostgresFeed(primary, catalog)
        store = Store(bench.folder / f"large-{table}", catalog, feed, passing=passing)
        await store.open()

        async def once(user: str, sql: str, rows: int) -> _Taken:
            await connection.execute(sql.encode(), {"user": user, "rows": rows})
            began = time.perf_counter()
            result = await store.sync(user)
            await store.read(user, lambda replica: replica.execute(f"SELECT count(*) FROM {table}").fetchone())
            ended = time.perf_counter()
            assert result.applied >= rows, "an edit's history comes along"
            assert not result.rebuilt
            return _Taken(ended - began, marks["apply.rows"] - began, marks["apply.committed"] - marks["apply.rows"])

        try:
            for rows, bar_ms in BARS_MS.items():
                inserts, edits, bare = [], [], []
                for number in range(bench.rounds + 1):
                    user = f"user-{rows}-{number}"
                    await connection.execute(_INSERT[table].encode(), {"user": user, "rows": _BEFORE})
                    before = (await store.sync(user)).version
                    inserts.append(await once(user, _INSERT[table], rows))
                    inserted = await _inserted(feed, user, before)
                    bare.append(insert_all(bench.folder / "bare.db", catalog, table, inserted))
                    if table == "image":
                        edits.append(await once(user, _EDIT, rows + _BEFORE))
                figures.append(_figure(f"{table}: {rows:,} rows", inserts[1:], bar_ms, bare[1:]))
                if edits:
                    figures.append(_figure(f"{table}: {rows + _BEFORE:,} rows edited", edits[1:]))
        finally:
            await store.close()
    return figures


@dataclass(frozen=True, slots=True)
class _Taken:
    """Seconds: the whole, of it until all rows are pulled and in, and of it for the commit with its checkpoint."""

    whole: float
    rows: float
    commit: float


def _figure(
    what: str, taken: Sequence[_Taken], bar_ms: float | None = None, bare_s: Sequence[float] | None = None
) -> Figure:
    whole = [each.whole * 1e3 for each in taken]
    rows, commit = (median(each) * 1e3 for each in ([t.rows for t in taken], [t.commit for t in taken]))
    detail = f"{spread(whole)} ms, rows {shown(rows)}, commit {shown(commit)}"
    if bare_s:
        detail += f"; {shown(ratio([each.whole for each in taken], bare_s))} × bare executemany"
    if bar_ms is None:
        return fact(what, f"{shown(median(whole))} ms", detail)
    return at_most(what, median(whole), bar_ms, " ms", detail)


async def _inserted(feed: PostgresFeed, user: str, since: Cursor) -> list[Row]:
    """Hold the rows that came since in memory, as a replica stores them."""

    def read(pull: Pull) -> list[Row]:
        return [change[VALUES:] for batch in pull.batches() for change in batch.changes if not change[GONE]]

    async with feed.pull(user, since) as pull:
        return await asyncio.to_thread(read, pull)
