"""An export in each format, from a replica that is there, beside the plainest way to write the same rows in Python."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import time
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import apsw
import psutil
import psycopg

from primary.gallery.tables import catalog
from primary.postgres_feed import PostgresFeed
from replica.export import FORMATS, export
from replica.library import connect
from replica.location import DataDirectory, Location
from replica.schema import fts_name
from replica.store import Store
from tests.benchmarks.bench import Bench, primary_of
from tests.benchmarks.data import load_gallery, user_name
from tests.benchmarks.figures import Figure, at_most, fact, ratio, shown, spread
from tests.benchmarks.first_build import finished

TITLE = "Export of 260,000 rows"

IMAGES = 100_000
MEMORY_MAX_MIB = 64
USER = user_name(0)
# A heart for three images of ten, and each of them viewed; an edit of every image.
_MORE = (
    "INSERT INTO image_event (user_id, image_id, kind) SELECT user_id, id, 'view' FROM image WHERE seed % 10 < 3",
    "UPDATE image SET alt_text = 'a heron at low water'",
)


async def measure(bench: Bench) -> list[Figure]:
    """Measure each format in turn with what it is held against."""
    url = await bench.migrated("export")
    await load_gallery(url, users=1, rows_each=IMAGES)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for sql in _MORE:
            await connection.execute(sql.encode())
    ours: dict[str, list[float]] = {name: [] for name in FORMATS}
    others: dict[str, list[float]] = {name: [] for name in FORMATS}
    sizes: dict[str, int] = {}
    rows = 0
    beside = {"sqlite": _vacuum, "ndjson": _json_dumps, "csv": _csv_writer}
    folder = bench.folder / "export"
    async with primary_of(url) as primary:
        store = Store(folder, catalog, PostgresFeed(primary, catalog))
        await store.open()
        try:
            await store.sync(USER)
            await finished(store, USER)
            source = DataDirectory(folder).of(USER).uri("ro")
            for number in range(bench.rounds + 1):
                for name, form in FORMATS.items():
                    began = time.perf_counter()
                    whole = await export(store, USER, form)
                    mine = time.perf_counter() - began
                    sizes[name], rows = whole.size_bytes, whole.rows
                    whole.close()
                    theirs = await asyncio.to_thread(_timed, beside[name], source, folder / "other")
                    if number:  # the first is to warm up
                        ours[name].append(mine)
                        others[name].append(theirs)
            late, latest, grown = await _beside(store)
        finally:
            await store.close()
    bars = {"sqlite": 1.5, "ndjson": 1.0, "csv": 1.5}
    named = {"sqlite": "VACUUM INTO and its rebuilt search", "ndjson": "json.dumps", "csv": "csv.writer, zipped alike"}
    return [
        *(
            at_most(
                f"{name}: of {named[name]}",
                ratio(ours[name], others[name]),
                bars[name],
                detail=f"{spread(ours[name], ' s')} for {rows:,} rows, {sizes[name] >> 20} MiB; "
                f"the other {spread(others[name], ' s')}",
            )
            for name in FORMATS
        ),
        fact(
            "the event loop is late by while all three are made (p99)",
            f"{shown(late * 1e3)} ms",
            f"{shown(latest * 1e3)} at most",
        ),
        at_most("memory that making all three takes", grown, MEMORY_MAX_MIB, " MiB"),
    ]


async def _once(store: Store) -> None:
    for form in FORMATS.values():
        await asyncio.to_thread((await export(store, USER, form)).close)


async def _beside(store: Store) -> tuple[float, float, float]:
    """Make all three beside a loop that sleeps for 1 ms at a time.

    Gives how late its wake-ups were in seconds (p99, and at most), and what memory the process took for it in MiB.
    """
    late: list[float] = []
    process = psutil.Process()
    before = most = process.memory_info().rss
    task = asyncio.ensure_future(_once(store))
    while not task.done():
        most = max(most, process.memory_info().rss)
        began = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - began - 0.001)
    await task
    late.sort()
    return late[int(len(late) * 0.99)], late[-1], (most - before) / 2**20


def _timed(write: Callable[[apsw.Connection, Path], None], source: str, path: Path) -> float:
    path.unlink(missing_ok=True)
    began = time.perf_counter()
    with closing(connect(source)) as connection:
        write(connection, path)
    return time.perf_counter() - began


def _vacuum(connection: apsw.Connection, path: Path) -> None:
    """Copy as SQLite does, with the indexes that a replica has, rendered ones too; search must be made anew there."""
    connection.execute("VACUUM INTO ?", [str(path)])
    with closing(connect(Location(path).uri("rw"))) as copy:
        for table in catalog:
            if table.full_text:
                copy.execute(f"INSERT INTO {fts_name(table)} ({fts_name(table)}) VALUES ('rebuild')")


def _json_dumps(connection: apsw.Connection, path: Path) -> None:
    with path.open("w") as out:
        for table in catalog:
            names = [column.name for column in table.columns]
            for row in connection.execute(f"SELECT * FROM {table.name}"):
                out.write(json.dumps({"table": table.name, "row": dict(zip(names, row, strict=True))}))
                out.write("\n")


def _csv_writer(connection: apsw.Connection, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for table in catalog:
            with io.TextIOWrapper(archive.open(f"{table.name}.csv", "w", force_zip64=True), newline="") as out:
                writer = csv.writer(out)
                writer.writerow([column.name for column in table.columns])
                writer.writerows(connection.execute(f"SELECT * FROM {table.name}"))
