"""Applying changes to a replica: one transaction, or nothing."""

from __future__ import annotations

import json
import sqlite3
from contextlib import aclosing
from functools import partial

from primary.declaration import SyncedTable
from primary.feed import Batch, Pull
from replica.build import insert_sql
from replica.errors import Doubt
from replica.faults import Passing
from replica.rendering import quoted
from replica.schema import Schema
from replica.state import State
from replica.writer import Writer


async def apply(writer: Writer, schema: Schema, since: State, pull: Pull, passing: Passing) -> tuple[State, int]:
    """Bring the file from ``since`` to the pull's cursor. Gives its new state and the number of changes.

    Raises `Doubt` when the file is not at ``since``. Whatever is raised, the file is as it was.
    """
    await writer.run(lambda connection: _begin(connection, since))
    try:
        passing("apply.begun")
        applied = 0
        async with aclosing(pull.batches()) as batches:
            async for batch in batches:
                await writer.run(partial(_apply_batch, schema, batch))
                applied += len(batch.changes)
        passing("apply.rows")
        state = State.at(since.user, pull.cursor, pull.position, since.base_version, since.schema_hash)
        await writer.run(lambda connection: _commit(connection, state, passing))
    except BaseException:
        await writer.run(_roll_back)
        raise
    return state, applied


def _begin(connection: sqlite3.Connection, since: State) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if (found := State.read(connection)) != since:
            raise Doubt(f"the file is at {found.cursor} and not at {since.cursor}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise


def _commit(connection: sqlite3.Connection, state: State, passing: Passing) -> None:
    state.write(connection)
    passing("apply.stated")
    connection.execute("COMMIT")


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _apply_batch(schema: Schema, batch: Batch, connection: sqlite3.Connection) -> None:
    """Take each touched row out, and put those that live in: the same for an insert, an edit and a deletion."""
    table = schema.catalog[batch.table]
    connection.executemany(_delete_sql(table), (stored_key(table, change.key) for change in batch.changes))
    connection.executemany(insert_sql(table), (change.row for change in batch.changes if change.row is not None))
    connection.executemany(
        "INSERT OR REPLACE INTO _change (table_name, row_key, version, deleted) VALUES (?, ?, ?, ?)",
        (
            (table.name, json.dumps(change.key, ensure_ascii=False), change.version, change.row is None)
            for change in batch.changes
        ),
    )


def _delete_sql(table: SyncedTable) -> str:
    return f"DELETE FROM {quoted(table.name)} WHERE {match_sql(table)}"


def match_sql(table: SyncedTable) -> str:
    """Give the condition that finds a row by its key; a table without one has at most one row."""
    return " AND ".join(f"{quoted(name)} = ?" for name in table.key) or "TRUE"


def stored_key(table: SyncedTable, key: tuple[str, ...]) -> tuple[object, ...]:
    """Turn a key's canonical texts into the values that the replica stores."""
    return tuple(table.column(name).mapping.stored_key(text) for name, text in zip(table.key, key, strict=True))
