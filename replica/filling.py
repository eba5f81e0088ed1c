"""Putting many rows into a table at the least cost.

What a row costs here is less SQLite's work than Python's: each statement gives the interpreter up and asks for it back,
for which the thread that fetches contends; and each NULL is looked up among the adapters of `sqlite3`, which on Python
3.11 costs as much as the rest of a row of the gallery. So a statement takes many rows, and a column that is NULL in all
of them is left to its default.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain, islice
from operator import itemgetter

from primary.declaration import SyncedTable
from primary.feed import Row
from replica.rendering import quoted

STATEMENT_ROWS = 250  # of 50 a large commit takes a sixth longer, for each waits for the interpreter once
_PARAMETERS_MAX = 32_766  # of a statement, as SQLite is made by default


def insert_sql(table: SyncedTable) -> str:
    """Give the statement that inserts one row of the feed."""
    return f"INSERT INTO {quoted(table.name)} VALUES ({', '.join('?' * len(table.columns))})"


def fill(connection: sqlite3.Connection, table: str, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Insert rows into ``table`` (SQL), their values in the order of ``columns`` (names). Columns default to NULL."""
    if not rows:
        return
    used = [place for place, _ in enumerate(columns) if any(row[place] is not None for row in rows)] or [0]
    if len(used) < len(columns):
        rows = [(row[used[0]],) for row in rows] if len(used) == 1 else [*map(itemgetter(*used), rows)]
    names = ", ".join(quoted(columns[place]) for place in used)
    marks = f"({', '.join('?' * len(used))})"
    insert = f"INSERT INTO {table} ({names}) VALUES "
    many = min(STATEMENT_ROWS, _PARAMETERS_MAX // len(used))
    whole = len(rows) - len(rows) % many
    flat = chain.from_iterable(rows)
    statement = insert + ", ".join([marks] * many)
    for _ in range(whole // many):
        connection.execute(statement, tuple(islice(flat, many * len(used))))
    if whole < len(rows):
        connection.executemany(insert + marks, rows[whole:])
