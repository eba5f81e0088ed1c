"""Applying many changes at once.

SQLite ends each statement with work that does not depend on how much it changed: what the full-text index has gathered
is written out. So many changes are first laid out as they come, in temporary tables without any index, and are then
applied by one statement of each kind. Rows go in in the order of the table's first read index, and marks in that of
their key: in the order of an index each page of it is visited once, and the first read index may carry whole rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from primary.declaration import SyncedTable
from primary.feed import Change
from replica.rendering import quoted

# What a `Change` begins with; names with a dot are ours alone, for no column's name can have one.
_MARK = (".key", ".version", ".deleted")


class Staging:
    """Changes that are laid out. ``rows`` is how many there are."""

    def __init__(self) -> None:
        self.rows = 0
        self._tables: dict[str, SyncedTable] = {}  # by name, in the order in which they came

    def add(self, connection: apsw.Connection, table: SyncedTable, changes: Sequence[Change]) -> None:
        """Lay out more changes of a table, of which none was of a row that was touched by those that are there."""
        names = [*_MARK, *_names(table)]
        if table.name not in self._tables:
            self._tables[table.name] = table
            connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS {_staged(table)} ({', '.join(map(quoted, names))})")
        connection.executemany(f"INSERT INTO {_staged(table)} VALUES ({', '.join('?' * len(names))})", changes)
        self.rows += len(changes)

    def bytes_of(self, connection: apsw.Connection) -> int:
        """Give how much memory they take."""
        size, pages, free = (
            connection.execute(f"PRAGMA temp.{told}").get for told in ("page_size", "page_count", "freelist_count")
        )
        taken: int = size * (pages - free)
        return taken

    def apply(self, connection: apsw.Connection) -> None:
        """Take each touched row out, put those that live in, and mark them all, within the caller's transaction."""
        for table in self._tables.values():
            _apply(connection, table)
        self._tables.clear()
        self.rows = 0


def _apply(connection: apsw.Connection, table: SyncedTable) -> None:
    own, staged = f"main.{quoted(table.name)}", _staged(table)
    key, version, deleted = map(quoted, _MARK)
    columns, keys = (", ".join(map(quoted, each)) for each in (_names(table), table.key))
    # A table without a key has at most one row, and it is this one.
    touched = f"WHERE ({keys}) IN (SELECT {keys} FROM {staged})" if keys else ""
    first = ", ".join(map(quoted, table.indexes[0].columns)) if table.indexes else keys
    ordered = f" ORDER BY {first}" if first else ""
    connection.execute(f"DELETE FROM {own} {touched}")
    connection.execute(f"INSERT INTO {own} ({columns}) SELECT {columns} FROM {staged} WHERE NOT {deleted}{ordered}")
    marks = f"SELECT '{table.name}', {key}, {version}, {deleted} FROM {staged} ORDER BY {key}"
    connection.execute(f"INSERT OR REPLACE INTO main._change (table_name, row_key, version, deleted) {marks}")
    connection.execute(f"DELETE FROM {staged}")


def _names(table: SyncedTable) -> list[str]:
    return [column.name for column in table.columns]


def _staged(table: SyncedTable) -> str:
    return f"temp.{quoted(f'{table.name}.staged')}"
