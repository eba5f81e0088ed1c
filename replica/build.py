"""Building a replica from a snapshot: into a file of its own, which takes its place only when it is whole."""

from __future__ import annotations

import asyncio
import os
from functools import partial
from pathlib import Path

import apsw

from primary.feed import Pull
from replica import stages
from replica.apply import insert_sql
from replica.errors import ReplicaError
from replica.faults import Passing
from replica.library import execute_all
from replica.location import Location
from replica.rendering import quoted
from replica.schema import Schema
from replica.state import State
from replica.writer import Writer

# The file is nobody's until it is renamed: no journal, and nothing waits for the disk before the end.
_PRAGMAS = ("page_size=8192", "journal_mode=OFF", "synchronous=OFF", "cache_size=-65536")


async def build(path: Path, schema: Schema, user: str, pull: Pull, passing: Passing) -> int:
    """Write a snapshot into a new file at ``path``, durable and ready to be renamed. Gives the number of rows.

    Whatever fails, the caller removes the file. All is done in the writer's thread, which waits for the rows too.
    """
    writer = await Writer.open(Location(path).uri("rwc"), *_PRAGMAS)
    try:
        rows = await writer.run(partial(_fill, schema, user, pull, passing))
    except BaseException:
        pull.stop()
        raise
    finally:
        await writer.close()
    await asyncio.to_thread(_make_durable, path)
    passing("build.durable")
    return rows


def _fill(schema: Schema, user: str, pull: Pull, passing: Passing, connection: apsw.Connection) -> int:
    execute_all(connection, ["BEGIN", *schema.tables])
    passing("build.created")
    counts = {table.name: 0 for table in schema.catalog}
    for batch in pull.batches():
        connection.executemany(insert_sql(schema.catalog[batch.table]), batch.rows)
        counts[batch.table] += len(batch.rows)
    passing("build.rows")
    state = State.at(user, pull.cursor, pull.position, pull.cursor.version, schema.hash)
    _complete(connection, schema, state, counts, passing)
    return sum(counts.values())


def _complete(
    connection: apsw.Connection, schema: Schema, state: State, counts: dict[str, int], passing: Passing
) -> None:
    execute_all(connection, schema.keys)
    passing("build.indexed")
    for table, expected in counts.items():
        found = connection.execute(f"SELECT count(*) FROM {quoted(table)}").get
        if found != expected:
            raise ReplicaError(f"{table}: {expected} rows were written and {found} are there")
    at_once = sum(counts.values()) <= stages.FINISH_ROWS_MAX
    execute_all(connection, schema.unfinished(connection) if at_once else schema.first)
    state.write(connection)
    connection.execute("COMMIT")
    passing("build.finished")
    connection.execute("PRAGMA journal_mode=WAL")  # is kept in the file


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
