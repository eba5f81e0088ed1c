"""Applying many changes of one table at once.

SQLite ends each statement with work that does not depend on how much it changed: what the full-text index has gathered
is written out. So a large batch is first laid out as it is, in a temporary table without any index, and is then applied
by one statement of each kind. Those run without the interpreter: the next batch is fetched meanwhile.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from json.encoder import encode_basestring

from primary.declaration import SyncedTable
from primary.feed import Change, Key
from replica.filling import fill
from replica.rendering import quoted

_MARK = (".key", ".version", ".deleted")  # names with a dot are ours alone: no column's name can have one


def key_text(key: Key) -> str:
    """Write a key as `_change` has it, as a JSON array of texts: json.dumps would take four times as long."""
    return f"[{', '.join(map(encode_basestring, key))}]"


def apply_staged(connection: sqlite3.Connection, table: SyncedTable, changes: Sequence[Change]) -> None:
    """Take each touched row out, put those that live in, and mark them all, within the caller's transaction."""
    names = [column.name for column in table.columns]
    own, staged = f"main.{quoted(table.name)}", f"temp.{quoted(f'{table.name}.staged')}"
    key, version, deleted = map(quoted, _MARK)
    columns, keys = (", ".join(map(quoted, each)) for each in (names, table.key))
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {staged} ({key}, {version}, {deleted}, {columns})")
    fill(connection, staged, [*_MARK, *names], [_staged_row(table, change) for change in changes])
    # A table without a key has at most one row, and it is this one.
    touched = f"WHERE ({keys}) IN (SELECT {keys} FROM {staged})" if keys else ""
    connection.execute(f"DELETE FROM {own} {touched}")
    connection.execute(f"INSERT INTO {own} ({columns}) SELECT {columns} FROM {staged} WHERE NOT {deleted}")
    marks = f"SELECT '{table.name}', {key}, {version}, {deleted} FROM {staged}"
    connection.execute(f"INSERT OR REPLACE INTO main._change (table_name, row_key, version, deleted) {marks}")
    connection.execute(f"DELETE FROM {staged}")


def stored_key(table: SyncedTable, key: Key) -> tuple[object, ...]:
    """Turn a key's canonical texts into the values that the replica stores."""
    return tuple(table.column(name).mapping.stored_key(text) for name, text in zip(table.key, key, strict=True))


def _staged_row(table: SyncedTable, change: Change) -> tuple[object, ...]:
    """Give a change as it is staged; of a row that is gone there is its key."""
    if change.row is not None:
        return (key_text(change.key), change.version, 0, *change.row)
    key = dict(zip(table.key, stored_key(table, change.key), strict=True))
    return (key_text(change.key), change.version, 1, *(key.get(column.name) for column in table.columns))
