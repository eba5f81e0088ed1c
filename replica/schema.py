"""What a replica's file looks like, as it follows from the declarations.

The statements come in stages, for the order is what makes a first copy fast:

1. the tables, before the rows;
2. the keys, and of each table's read indexes the first that is declared: with them a first page is read at once,
   however large the replica. One that is to carry rendered rows has a plain one in its place until it is made;
3. the other read indexes, rendered rows, and full text: what makes reading faster or searchable. This stage may also be
   run on a file in use; `Schema.unfinished` tells what is left of it.
"""

from __future__ import annotations

import hashlib
from contextlib import closing
from itertools import chain

import apsw

from primary.declaration import Catalog, ReadIndex, SyncedTable
from primary.errors import UnsupportedDeclaration
from replica.library import VERSION, connect
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

    ``hash`` names it and the SQLite that makes it, which decides what an index of an expression holds: a file that was
    made with another one is rebuilt. ``tables`` is the first stage, ``keys`` and ``first`` are the second; where the
    third follows at once, ``first`` is not needed.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.tables = [*_OWN_TABLES, *(_create_table(table) for table in catalog)]
        self.keys = [_key(table) for table in catalog if table.key]
        self.first = [statement for table in catalog for statement in self.first_of(table)]
        self._finish = {name: statements for table in catalog for name, statements in _finishing(table)}
        self.hash = hashlib.sha256(
            "\n".join(
                [
                    VERSION,
                    str(FORMAT),
                    *self.tables,
                    *self.keys,
                    *self.first,
                    *chain.from_iterable(self._finish.values()),
                ]
            ).encode()
        ).hexdigest()

    def check(self) -> None:
        """Make it once, in memory. Raises `UnsupportedDeclaration` where SQLite refuses it: an index's condition."""
        with closing(connect(":memory:")) as connection:
            for statement in [*self.tables, *self.keys, *chain.from_iterable(self._finish.values())]:
                try:
                    connection.execute(statement)
                except apsw.Error as error:
                    made = " ".join(statement.split()[:3])  # CREATE INDEX "note.pinned"
                    raise UnsupportedDeclaration(
                        f"{made}: SQLite refuses it: {error}",
                        hint="A read index's `where` is SQL of SQLite's, on the columns of the row but its owner.",
                    ) from error

    def first_of(self, table: SyncedTable) -> list[str]:
        """Give the statements of the second stage that make a table's first read index."""
        return [_first(table)] if table.indexes else []

    def without_indexes(self, table: SyncedTable) -> list[str]:
        """Give the statements that take a table's read indexes and its full text away, whatever there is of them."""
        return [
            *(_without_full_text(table) if table.full_text else []),
            *(f"DROP INDEX IF EXISTS {quoted(_index_name(table, index))}" for index in table.indexes),
            *(f"DROP INDEX IF EXISTS {quoted(_stand_in(table, index))}" for index in table.indexes if index.rendered),
        ]

    def unfinished(self, connection: apsw.Connection) -> list[str]:
        """Give the statements of the last stage that the file has not seen."""
        present = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        return [statement for name, each in self._finish.items() if name not in present for statement in each]


def fts_name(table: SyncedTable) -> str:
    """Give the name of a table's full-text index."""
    return f"{table.name}_fts"


def copied(table: SyncedTable) -> tuple[str, list[str]]:
    """Give what makes a table in a file of its owner's own: the table itself, and what follows its rows.

    No index carries rendered rows there: that is for pages of this program, and takes as much room as the rows.
    """
    indexes = [_index(table, index, _index_name(table, index)) for index in table.indexes]
    keys = [_key(table)] if table.key else []
    return _create_table(table), [*keys, *indexes, *(_full_text(table) if table.full_text else [])]


def _create_table(table: SyncedTable) -> str:
    columns = ", ".join(
        f"{quoted(column.name)} {column.mapping.storage}{'' if column.nullable else ' NOT NULL'}"
        for column in table.columns
    )
    # No primary key: a unique index made after the rows is the same promise and makes a first copy a third faster.
    return f"CREATE TABLE {quoted(table.name)} ({columns}) STRICT"


def _key(table: SyncedTable) -> str:
    columns = ", ".join(quoted(name) for name in table.key)
    return f"CREATE UNIQUE INDEX {quoted(f'{table.name}.key')} ON {quoted(table.name)} ({columns})"


def _first(table: SyncedTable) -> str:
    index = table.indexes[0]
    return _index(table, index, _stand_in(table, index) if index.rendered else _index_name(table, index))


def _finishing(table: SyncedTable) -> list[tuple[str, list[str]]]:
    """Give what the last stage makes for a table, each with the name whose presence tells that it is made.

    Names with a dot are ours alone: no table's name can have one.
    """
    made = [(_index_name(table, index), _finished(table, index)) for index in table.indexes]
    if table.full_text:
        # The triggers come last: as long as there are none, nothing is in the index and nothing need be taken out.
        made.append((f"{fts_name(table)}.delete", _full_text(table)))
    return made


def _finished(table: SyncedTable, index: ReadIndex) -> list[str]:
    name = _index_name(table, index)
    if not index.rendered:
        return [_index(table, index, name)]
    return [
        f"DROP INDEX IF EXISTS {quoted(_stand_in(table, index))}",
        _index(table, index, name, f", ({json_members(table)})"),
    ]


def _index(table: SyncedTable, index: ReadIndex, name: str, rest: str = "") -> str:
    columns = ", ".join(quoted(name) for name in index.columns)
    where = f" WHERE {index.where}" if index.where else ""
    return f"CREATE INDEX {quoted(name)} ON {quoted(table.name)} ({columns}{rest}){where}"


def _index_name(table: SyncedTable, index: ReadIndex) -> str:
    return f"{table.name}.{index.name}"


def _stand_in(table: SyncedTable, index: ReadIndex) -> str:
    return f"{_index_name(table, index)}.plain"


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


def _without_full_text(table: SyncedTable) -> list[str]:
    fts = fts_name(table)
    triggers = (f'DROP TRIGGER IF EXISTS "{fts}.{event}"' for event in ("insert", "update", "delete"))
    return [*triggers, f"DROP TABLE IF EXISTS {fts}"]
