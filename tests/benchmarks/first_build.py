"""The first build of a large replica, beside what SQLite itself takes for the same rows."""

from __future__ import annotations

import asyncio
import sqlite3  # noqa: TID251 - what anybody has, to compare with
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import apsw
import sqlalchemy as sa

from primary.declaration import Catalog, ReadIndex, synced
from primary.feed import Row
from primary.gallery.tables import catalog as gallery
from primary.migrate import migrate
from primary.postgres_feed import PostgresFeed
from replica.apply import insert_sql
from replica.build import _PRAGMAS
from replica.library import connect
from replica.location import Location
from replica.rendering import json_members
from replica.schema import Schema
from replica.store import Store
from tests.benchmarks.bare import rows_of
from tests.benchmarks.bench import Bench, left_uncollected, primary_of
from tests.benchmarks.data import load_gallery, user_name
from tests.benchmarks.figures import Figure, at_least, fact, ratio, shown, spread

TITLE = "First build of 100,000 rows"

ROWS = 100_000
RATE_MIN = 200_000


def _small_catalog() -> Catalog:
    """Declare a table of seven columns: what an image was when it was only a prompt and a picture."""
    metadata = sa.MetaData()
    sa.Table(
        "image",
        metadata,
        sa.Column("user_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.text("gen_random_uuid()")),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("image_url", sa.Text, nullable=False),
        sa.Column("model", sa.Text),
        sa.Column("seed", sa.BigInteger),
        sa.Column("steps", sa.Integer),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
        schema="small",
        info=synced(owner="user_id", indexes=[ReadIndex("newest", ["created_at", "id"], rendered=True)]),
    )
    return Catalog.of(metadata)


async def measure(bench: Bench) -> list[Figure]:
    """Measure the gallery's image and a table of seven columns."""
    wide = await bench.migrated("wide")
    await load_gallery(wide, users=1, rows_each=ROWS)
    figures = await _measure(bench, wide, gallery)

    small = _small_catalog()
    url = await bench.migrated("small")
    async with primary_of(url) as primary:
        async with primary.transaction() as connection:
            await connection.execute(sa.text("CREATE SCHEMA small"))
            await connection.run_sync(small["image"].table.metadata.create_all)
        await migrate(primary, small)
    await load_gallery(url, users=1, rows_each=ROWS, table="small.image")
    return figures + await _measure(bench, url, small)


async def _measure(bench: Bench, url: str, catalog: Catalog) -> list[Figure]:
    table = catalog["image"]
    user = user_name(0)
    folder = bench.folder / f"build-{len(table.columns)}"
    folder.mkdir()
    built_s: list[float] = []
    whole_s: list[float] = []
    pythons_s: list[float] = []
    bare_s: list[float] = []
    indexed_s: list[float] = []
    page_s: list[float] = []
    async with primary_of(url) as primary:
        feed = PostgresFeed(primary, catalog)
        rows = await rows_of(feed, user)
        with left_uncollected():  # of the rows held here, for both
            for number in range(bench.rounds + 1):
                pythons, _ = _bare(folder / "bare.db", Schema(catalog), rows, _pythons)
                bare, indexed = _bare(folder / "bare.db", Schema(catalog), rows, _ours)
                store = Store(folder / f"data-{number}", catalog, feed)
                await store.open()
                began = time.perf_counter()
                result = await store.sync(user)
                built = time.perf_counter() - began
                assert result.applied == ROWS
                reading = time.perf_counter()
                await store.read(user, _first_page(catalog))
                page = time.perf_counter() - reading
                await finished(store, user)
                whole = time.perf_counter() - began
                await store.close()
                if number:  # the first is to warm up
                    pythons_s.append(pythons)
                    bare_s.append(bare)
                    indexed_s.append(indexed)
                    page_s.append(page)
                    built_s.append(built)
                    whole_s.append(whole)
    name = f"{len(table.columns)} columns"
    rates = [ROWS / built for built in built_s]
    python_rates, bare_rates = ([ROWS / bare for bare in each] for each in (pythons_s, bare_s))
    return [
        at_least(f"{name}: until it can be read", median(rates), RATE_MIN, " rows/s", spread(rates)),
        at_least(
            f"{name}: of bare executemany",
            ratio(rates, python_rates),
            0.6,
            detail=f"of Python's sqlite3, {spread(python_rates)} rows/s, without an index; of apsw's, "
            f"{spread(bare_rates)} rows/s, {shown(ratio(rates, bare_rates))} ×, and {shown(ratio(indexed_s, built_s))} "
            f"× with the indexes that the build makes",
        ),
        fact(f"{name}: a first page of 20 right after", f"{shown(median(page_s) * 1e3)} ms"),
        fact(f"{name}: until every index is made", f"{shown(ROWS / median(whole_s))} rows/s"),
    ]


def _first_page(catalog: Catalog) -> Callable[[apsw.Connection], object]:
    """Give the read of the newest 20 images."""
    sql = f"SELECT {json_members(catalog['image'])} FROM image ORDER BY created_at DESC, id DESC LIMIT 20"
    return lambda connection: connection.execute(sql).fetchall()


async def finished(store: Store, user: str) -> None:
    """Wait until the indexes are made that a large replica is given after it can be read."""
    while (await store.read(user, store.schema.unfinished)).value:
        await asyncio.sleep(0.01)


def _pythons(path: Path) -> Any:
    return sqlite3.connect(path, isolation_level=None)


def _ours(path: Path) -> Any:
    return connect(Location(path).uri("rwc"))


def _bare(path: Path, schema: Schema, rows: Sequence[Row], opened: Callable[[Path], Any]) -> tuple[float, float]:
    """Insert the rows into the same table with the same pragmas; give the seconds, without any index and with them."""
    table = schema.catalog["image"]
    (create,) = (sql for sql in schema.tables if sql.startswith('CREATE TABLE "image" '))
    with closing(opened(path)) as connection:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
        began = time.perf_counter()
        connection.execute("BEGIN")
        connection.execute(create)
        connection.executemany(insert_sql(table), rows)
        connection.execute("COMMIT")
        elapsed = time.perf_counter() - began
        for statement in [*schema.keys, *schema.first]:
            if ' ON "image" ' in statement:
                connection.execute(statement)
        indexed = time.perf_counter() - began
    path.unlink()
    return elapsed, indexed
