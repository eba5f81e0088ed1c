"""What a replica's file looks like, as it follows from the declarations.

The statements come in three stages, for the order is what makes a first copy fast: the tables, then (after the rows)
the indexes that reading cannot do without, then what makes reading faster or searchable. The last stage may also be
run on a file in use; `Schema.unfinished` tells whether it was.
"""

from __future__ import annotations

import hashlib
import sqlite3
from itertools import chain

from primary.declaration import Catalog, ReadIndex, SyncedTable
from replica.rendering import json_members, quoted

FORMAT = 1  # to be raised when the meaning of a file changes though its statements do not

_OWN_TABLES = [
    # The file's one state: whose rows these are, and as of which cursor. See replica.state.
    """CREATE TABLE _replica (
  lock INTEGER PRIMARY KEY CHECK (lock = 1),
  user_id TEXT NOT NULL,
  epoch TEXT NOT NULL,
  version INTEGER NOT NULL,
  position INTEGER NOT NULL,
  base_version INTEGER NOT NULL,
  schema_hash TEXT NOT NULL,
  synced_at TEXT NOT NULL
) STRICT""",
    # What changed since base_version, so that the file can serve a feed; the rows before it need no mark.
    """CREATE TABLE _change (
  table_name TEXT NOT NULL,
  row_key TEXT NOT NULL,
  version INTEGER NOT NULL,
  deleted INTEGER NOT NULL,
  PRIMARY KEY (table_name, row_key)
) STRICT, WITHOUT ROWID""",
    "CREATE INDEX _change_version ON _change (version)",
]


class Schema:
    """The schema of every replica of one catalog.

    ``hash`` names it: a file that was made with another one is rebuilt.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.tables = [*_OWN_TABLES, *(_create_table(table) for table in catalog)]
        self.indexes = [statement for table in catalog for statement in _plain_indexes(table)]
        self._finish = {name: statements for table in catalog for name, statements in _finishing(table)}
        self.hash = hashlib.sha256(
            "\n".join([str(FORMAT), *self.tables, *self.indexes, *chain.from_iterable(self._finish.values())]).encode()
        ).hexdigest()

    def unfinished(self, connection: sqlite3.Connection) -> list[str]:
        """Give the statements of the last stage that the file has not seen."""
        present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        return [statement for name, each in self._finish.items() if name not in present for statement in each]


def fts_name(table: SyncedTable) -> str:
    """Give the name of a table's full-text index."""
    return f"{table.name}_fts"


def _create_table(table: SyncedTable) -> str:
    columns = ", ".join(
        f"{quoted(column.name)} {column.mapping.storage}{'' if column.nullable else ' NOT NULL'}"
        for column in table.columns
    )
    # No primary key: a unique index made after the rows is the same promise and makes a first copy a third faster.
    return f"CREATE TABLE {quoted(table.name)} ({columns}) STRICT"


def _plain_indexes(table: SyncedTable) -> list[str]:
    statements = []
    if table.key:
        columns = ", ".join(quoted(name) for name in table.key)
        statements.append(f"CREATE UNIQUE INDEX {quoted(f'{table.name}.key')} ON {quoted(table.name)} ({columns})")
    return statements + [_index(table, index, "") for index in table.indexes if not index.rendered]


def _finishing(table: SyncedTable) -> list[tuple[str, list[str]]]:
    """Give what the last stage makes for a table, each with the name whose presence tells that it is made.

    Names with a dot are ours alone: no table's name can have one.
    """
    made = [
        (f"{table.name}.{index.name}", [_index(table, index, f", ({json_members(table)})")])
        for index in table.indexes
        if index.rendered
    ]
    if table.full_text:
        # The triggers come last: as long as there are none, nothing is in the index and nothing need be taken out.
        made.append((f"{fts_name(table)}.delete", _full_text(table)))
    return made


def _index(table: SyncedTable, index: ReadIndex, rest: str) -> str:
    columns = ", ".join(quoted(name) for name in index.columns)
    return f"CREATE INDEX {quoted(f'{table.name}.{index.name}')} ON {quoted(table.name)} ({columns}{rest})"


def _full_text(table: SyncedTable) -> list[str]:
    """Give the full-text index, which reads its texts from the table (source: FTS5's external content tables)."""
    fts, name = fts_name(table), quoted(table.name)
    columns = ", ".join(quoted(column) for column in table.full_text)

    def values(row: str) -> str:
        return ", ".join([f"{row}.rowid", *(f"{row}.{quoted(column)}" for column in table.full_text)])

    add = f"INSERT INTO {fts} (rowid, {columns}) VALUES ({values('new')})"
    remove = f"INSERT INTO {fts} ({fts}, rowid, {columns}) VALUES ('delete', {values('old')})"
    return [
        f"CREATE VIRTUAL TABLE {fts} USING fts5({columns}, content={name}, tokenize='unicode61 remove_diacritics 2')",
        f"INSERT INTO {fts} ({fts}) VALUES ('rebuild')",
        f'CREATE TRIGGER "{fts}.insert" AFTER INSERT ON {name} BEGIN {add}; END',
        f'CREATE TRIGGER "{fts}.update" AFTER UPDATE ON {name} BEGIN {remove}; {add}; END',
        f'CREATE TRIGGER "{fts}.delete" AFTER DELETE ON {name} BEGIN {remove}; END',
    ]
