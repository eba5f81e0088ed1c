"""The export as an SQLite file: the user's tables, with their keys, read indexes and full-text search.

Values are as in a replica: a timestamp is ISO 8601 text of fixed width, a numeric and an array (JSON) are text, a
boolean is 0 or 1, bytes are a BLOB, NaN is the text 'NaN'. Two tables say what it is: ``_export`` whose rows these are
and as of when, ``_export_table`` which tables there are. Nothing in it needs more than a plain SQLite of 3.37 or newer,
with FTS5 for the search. Rows are copied into a file that never had others, so there is nothing to be vacuumed.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from primary.declaration import SyncedTable
from replica.apart import SOURCE, own_database
from replica.export.manifest import FORMAT, Manifest, columns_of, to_json
from replica.library import execute_all
from replica.rendering import quoted
from replica.schema import copied

_OWN_TABLES = [
    """CREATE TABLE _export (
  format INTEGER NOT NULL,
  user TEXT NOT NULL,
  version TEXT NOT NULL,
  exported_at TEXT NOT NULL,
  rows INTEGER NOT NULL
) STRICT""",
    # ``columns`` as in the manifests of the other formats: JSON, with each column's type in Postgres.
    "CREATE TABLE _export_table (name TEXT NOT NULL PRIMARY KEY, rows INTEGER NOT NULL, columns TEXT NOT NULL) STRICT",
]


def write(connection: apsw.Connection, manifest: Manifest, folder: Path) -> Path:
    """Write the rows of a replica; see `replica.export.formats.Write`."""
    later: list[str] = []
    for table in manifest.catalog:
        create, after = copied(table)
        connection.execute(create)
        connection.execute(_copy_sql(table))
        later += after
    _tell(connection, manifest)
    connection.execute("COMMIT")  # the replica is let go here
    connection.execute("BEGIN")
    execute_all(connection, later)
    connection.execute("COMMIT")
    return own_database(folder)


def _copy_sql(table: SyncedTable) -> str:
    # Of all columns, between tables of the same declaration: SQLite then copies rows without taking them apart.
    return f"INSERT INTO main.{quoted(table.name)} SELECT * FROM {SOURCE}.{quoted(table.name)}"


def _tell(connection: apsw.Connection, manifest: Manifest) -> None:
    execute_all(connection, _OWN_TABLES)
    connection.execute(
        "INSERT INTO _export VALUES (?, ?, ?, ?, ?)",
        [FORMAT, manifest.user, manifest.version, manifest.exported_at, manifest.total],
    )
    connection.executemany(
        "INSERT INTO _export_table VALUES (?, ?, ?)",
        [(table.name, manifest.rows[table.name], to_json(columns_of(table)).decode()) for table in manifest.catalog],
    )
