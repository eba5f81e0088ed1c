"""What a write takes without us: the floor under a figure, on whatever machine it is measured."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import psycopg

from primary.declaration import Catalog
from primary.feed import Row
from primary.postgres_feed import PostgresFeed
from replica.apply import insert_sql
from replica.library import configure, connect
from replica.location import Location
from replica.schema import Schema
from replica.writer import WRITE_PRAGMAS
from tests.benchmarks.data import insert_image


async def commit_all(url: str, user: str, times: int, gap_s: float) -> list[float]:
    """Write an image and commit, flushed, in one round trip of one connection, again and again; give the seconds."""
    taken = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for _ in range(times):
            await asyncio.sleep(gap_s)
            began = time.perf_counter()
            async with connection.pipeline(), connection.transaction():
                await insert_image(connection, user)
            taken.append(time.perf_counter() - began)
    return taken


def insert_all(path: Path, catalog: Catalog, table: str, rows: Sequence[Row], *, indexed: bool = True) -> float:
    """Insert rows from memory into a new file with a replica's tables, indexes and full text; give the seconds.

    Where it is not ``indexed`` before, it is once the rows are there, which is the quickest way to have them all.
    """
    schema = Schema(catalog)
    configure()  # as a store does, whether or not one was opened in this process
    with closing(connect(Location(path).uri("rwc"))) as connection:
        for pragma in ("page_size=8192", "journal_mode=WAL", *WRITE_PRAGMAS):
            connection.execute(f"PRAGMA {pragma}")
        for statement in schema.tables:
            connection.execute(statement)
        rest = [*schema.keys, *schema.unfinished(connection)]
        if indexed:
            for statement in rest:
                connection.execute(statement)
        began = time.perf_counter()
        connection.execute("BEGIN")
        connection.executemany(insert_sql(schema.catalog[table]), rows)
        if not indexed:
            for statement in rest:
                connection.execute(statement)
        connection.execute("COMMIT")
        elapsed = time.perf_counter() - began
    path.unlink()
    return elapsed


async def rows_of(feed: PostgresFeed, user: str) -> list[Row]:
    """Hold all rows of a user's in memory, as a replica stores them."""
    async with feed.pull(user, None) as pull:
        return await asyncio.to_thread(lambda: [row for batch in pull.batches() for row in batch.rows])
