"""When the last stage of a replica's schema is made: with its rows, or after them.

To put a row into every index, and its texts into the full-text index, takes several times as long as to put it into its
table. Nobody needs those to read what is new. So of many rows the last stage is made when they can be read already: of
a first copy, and likewise where more rows come than were there, for which it is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping

import apsw

from primary.declaration import Catalog, SyncedTable
from replica.rendering import quoted

FINISH_ROWS_MAX = 10_000  # of up to so many rows the last stage takes a few ms and is made with them


def outgrown(connection: apsw.Connection, catalog: Catalog, coming: Mapping[str, int]) -> list[SyncedTable]:
    """Give the tables of which many rows come, and not fewer than are there."""
    many = [catalog[name] for name, rows in coming.items() if rows > FINISH_ROWS_MAX]
    return [table for table in many if _count(connection, table, coming[table.name] + 1) <= coming[table.name]]


def _count(connection: apsw.Connection, table: SyncedTable, most: int) -> int:
    rows: int = connection.execute(f"SELECT count(*) FROM (SELECT 1 FROM {quoted(table.name)} LIMIT {most})").get
    return rows
