"""Building a replica from a snapshot: into a file of its own, which takes its place only when it is whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import apsw

from primary.declaration import SyncedTable
from primary.feed import Batch, Pull, Row
from replica.apply import insert_sql
from replica.errors import ReplicaError
from replica.faults import Passing
from replica.location import Location
from replica.pouring import pour
from replica.rendering import quoted
from replica.schema import Schema
from replica.state import State
from replica.writer import Writer

FINISH_ROWS_MAX = 10_000  # up to so many rows the last stage takes a few ms and is done at once; else after publishing

# The file is nobody's until it is renamed: no journal, and nothing waits for the disk before the end.
_PRAGMAS = ("page_size=8192", "journal_mode=OFF", "synchronous=OFF", "cache_size=-65536")


async def build(path: Path, schema: Schema, user: str, pull: Pull, passing: Passing) -> int:
    """Write a snapshot into a new file at ``path``, durable and ready to be renamed. Gives the number of rows.

    Whatever fails, the caller removes the file. The feed is read while the batch before is being written.
    """
    writer = await Writer.open(Location(path).uri("rwc"), *_PRAGMAS)
    try:
        await writer.run(lambda connection: _execute_all(connection, ["BEGIN", *schema.tables]))
        passing("build.created")
        counts = {table.name: 0 for table in schema.catalog}

        async def write(batch: Batch) -> None:
            counts[batch.table] += len(batch.rows)
            await writer.run(partial(_insert, schema.catalog[batch.table], batch.rows))

        await pour(pull, write)
        passing("build.rows")
        rows = sum(counts.values())
        state = State.at(user, pull.cursor, pull.position, pull.cursor.version, schema.hash)
        await writer.run(lambda connection: _complete(connection, schema, state, counts, passing))
    finally:
        await writer.close()
    await asyncio.to_thread(_make_durable, path)
    passing("build.durable")
    return rows


def _insert(table: SyncedTable, rows: Sequence[Row], connection: apsw.Connection) -> None:
    connection.executemany(insert_sql(table), rows)


def _complete(
    connection: apsw.Connection, schema: Schema, state: State, counts: dict[str, int], passing: Passing
) -> None:
    _execute_all(connection, schema.keys)
    passing("build.indexed")
    for table, expected in counts.items():
        found = connection.execute(f"SELECT count(*) FROM {quoted(table)}").get
        if found != expected:
            raise ReplicaError(f"{table}: {expected} rows were written and {found} are there")
    at_once = sum(counts.values()) <= FINISH_ROWS_MAX
    _execute_all(connection, schema.unfinished(connection) if at_once else schema.first)
    state.write(connection)
    connection.execute("COMMIT")
    passing("build.finished")
    connection.execute("PRAGMA journal_mode=WAL")  # is kept in the file


def _execute_all(connection: apsw.Connection, statements: Sequence[str]) -> None:
    for statement in statements:
        connection.execute(statement)


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
