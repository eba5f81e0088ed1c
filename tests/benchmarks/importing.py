"""`tidepool import` of a JSON Lines file, beside what Postgres takes for the same rows if they are ready."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from statistics import median

import msgspec
import psycopg

from gateway.importing.batches import BATCH_MAX_RECORDS
from primary.gallery import statements
from primary.gallery.images import Many
from primary.gallery.records import NewImage
from primary.transaction import as_psycopg_takes_it
from tests.benchmarks.bench import Bench
from tests.benchmarks.data import COLUMNS, images
from tests.benchmarks.figures import Figure, fact, ratio, shown, spread
from tests.benchmarks.process import output_of

RECORDS = 50_000
TITLE = f"Import of {RECORDS:,} records"


async def measure(bench: Bench) -> list[Figure]:
    """Measure both in turn, each time for a user who has nothing yet."""
    url = await bench.migrated("importing")
    folder = bench.folder / "importing"
    folder.mkdir()
    file = folder / "images.jsonl"
    given = [dict(zip(COLUMNS[2:], row[2:], strict=True)) for row in images(0, RECORDS)]
    file.write_bytes(b"".join(msgspec.json.encode(record) + b"\n" for record in given))
    records = [msgspec.convert(record, NewImage) for record in given]
    ready = [Many.of(records[at : at + BATCH_MAX_RECORDS]) for at in range(0, RECORDS, BATCH_MAX_RECORDS)]
    settings = {"TIDEPOOL_DATABASE_URL": url, "TIDEPOOL_DATA_DIR": str(folder / "data")}
    command = [sys.executable, "-m", "gateway.cli", "import", str(file), "--user"]
    ours_s: list[float] = []
    bare_s: list[float] = []
    for number in range(bench.rounds + 1):
        bare = await _insert(url, f"bare {number}", ready)
        began = time.perf_counter()
        said = await output_of([*command, f"imported {number}"], settings)
        ours = time.perf_counter() - began
        assert f"{RECORDS:,} saved" in said, said
        if number:  # the first is to warm up
            bare_s.append(bare)
            ours_s.append(ours)
    rates = [RECORDS / each for each in ours_s]
    return [
        fact("from the command's start to its end", f"{shown(median(rates))} rows/s", spread(rates)),
        fact(
            "of Postgres alone",
            f"{shown(ratio(ours_s, bare_s))} ×",
            f"the same statements, one after another: {spread([RECORDS / each for each in bare_s])} rows/s",
        ),
    ]


async def _insert(url: str, user: str, batches: Sequence[Many]) -> float:
    """Insert rows that are ready, each batch in a commit of its own; give the seconds."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        began = time.perf_counter()
        for batch in batches:
            sql, values = as_psycopg_takes_it((statements.INSERT, {"user": user, "rows": batch.rows}))
            await connection.execute(sql.encode(), values)
        return time.perf_counter() - began
