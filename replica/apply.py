"""Applying changes to a replica: one transaction, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import apsw

from primary.declaration import SyncedTable
from primary.feed import GONE, VALUES, Batch, Change, Pull
from replica import stages
from replica.errors import Doubt
from replica.faults import Passing
from replica.library import execute_all
from replica.rendering import quoted
from replica.schema import Schema
from replica.staging import Staging
from replica.state import State
from replica.writer import Writer, narrow, widen

STAGED_ROWS_MIN = 50  # changes of one table; fewer cost less by statements of their own than by a table to stage in
STAGED_ROWS_MAX = 10_000  # are laid out before they are applied: what is laid out takes memory, and more gain nothing
STAGED_BYTES_MAX = 64 << 20  # nor may they take more memory, and as much again while they are sorted; rows can be long
_PART_ROWS = 100  # after so many it is looked at how much there is

Committed = Callable[[State, list[str] | None], None]
"""Told of a commit: where the file stands, and what is left of its last stage; None where that is as it was."""


async def apply(
    writer: Writer, schema: Schema, since: State, pull: Pull, passing: Passing, committed: Committed
) -> int:
    """Bring the file from ``since`` to the pull's cursor. Gives the number of changes.

    ``committed`` is called in the writer's thread, after the commit; what it raises is raised. Where more rows come
    than there are, the last stage of the schema is left for after it (see `replica.stages`).
    All of it is one hop to that thread, which waits for the rows too: of a small change the hops are what takes long.
    Raises `Doubt` when the file is not at ``since``. Whatever is raised before the commit, the file is as it was.
    """
    state = State.at(since.user, pull.cursor, pull.position, since.base_version, since.schema_hash)
    try:
        applied = await writer.run(partial(_apply, schema, since, state, pull, passing, committed))
    except BaseException:
        pull.stop()
        await writer.run(_roll_back)
        raise
    if pull.whole is None or applied >= STAGED_ROWS_MIN:  # what is streamed is laid out, however few it turns out to be
        await writer.run(narrow)
    return applied


def _apply(
    schema: Schema,
    since: State,
    state: State,
    pull: Pull,
    passing: Passing,
    committed: Committed,
    connection: apsw.Connection,
) -> int:
    _begin(since, passing, connection)
    outgrown = stages.outgrown(connection, schema.catalog, pull.coming)
    for table in outgrown:
        execute_all(connection, schema.without_indexes(table))
    applied = 0
    staging = Staging()
    for batch in pull.batches():
        if pull.whole is not None and len(batch.changes) < STAGED_ROWS_MIN:
            _apply_few(schema.catalog[batch.table], batch.changes, connection)
        else:
            _stage(schema, staging, batch, connection)
        applied += len(batch.changes)
    staging.apply(connection)
    for table in outgrown:
        execute_all(connection, schema.first_of(table))
    passing("apply.rows")
    state.write(connection)
    passing("apply.stated")
    unfinished = schema.unfinished(connection) if outgrown else None
    connection.execute("COMMIT")
    committed(state, unfinished)
    return applied


def _begin(since: State, passing: Passing, connection: apsw.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if (found := State.read(connection)) != since:
            raise Doubt(f"the file is at {found.cursor} and not at {since.cursor}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    passing("apply.begun")


def _roll_back(connection: apsw.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")
    narrow(connection)


def _stage(schema: Schema, staging: Staging, batch: Batch, connection: apsw.Connection) -> None:
    if not staging.rows:
        widen(connection)
    for start in range(0, len(batch.changes), _PART_ROWS):
        staging.add(connection, schema.catalog[batch.table], batch.changes[start : start + _PART_ROWS])
        if staging.rows >= STAGED_ROWS_MAX or staging.bytes_of(connection) >= STAGED_BYTES_MAX:
            staging.apply(connection)


def _apply_few(table: SyncedTable, changes: Sequence[Change], connection: apsw.Connection) -> None:
    """Take each touched row out, and put those that live in: the same for an insert, an edit and a deletion."""
    key = [VALUES + place for place in table.key_places]
    connection.executemany(_delete_sql(table), ([change[place] for place in key] for change in changes))
    connection.executemany(insert_sql(table), (change[VALUES:] for change in changes if not change[GONE]))
    connection.executemany(
        "INSERT OR REPLACE INTO _change (table_name, row_key, version, deleted) VALUES (?, ?, ?, ?)",
        ((table.name, *change[:VALUES]) for change in changes),
    )


def insert_sql(table: SyncedTable) -> str:
    """Give the statement that inserts one row of the feed."""
    return f"INSERT INTO {quoted(table.name)} VALUES ({', '.join('?' * len(table.columns))})"


def _delete_sql(table: SyncedTable) -> str:
    return f"DELETE FROM {quoted(table.name)} WHERE {match_sql(table)}"


def match_sql(table: SyncedTable) -> str:
    """Give the condition that finds a row by its key; a table without one has at most one row."""
    return " AND ".join(f"{quoted(name)} = ?" for name in table.key) or "TRUE"
