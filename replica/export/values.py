"""How single values are written as text: as the API writes them, and where that would lose something, exactly."""

from __future__ import annotations

import math
import sqlite3

from primary.declaration import SyncedColumn
from replica.rendering import json_value


def writes_texts(connection: sqlite3.Connection) -> None:
    """Have a connection give texts as the bytes that are written, and know what `exact_json` needs."""
    connection.text_factory = bytes
    connection.create_function("_zero", 1, _zero, deterministic=True)


def exact_json(column: SyncedColumn, name: str) -> str:
    """Give the SQL of one value as JSON; ``name`` is the SQL of the value."""
    if column.mapping.json != "real":
        return json_value(column, name)
    # SQLite itself writes no sign before a zero.
    return f"CASE {name} WHEN 0 THEN _zero({name}) ELSE {json_value(column, name)} END"


def _zero(value: float) -> str:
    return "-0.0" if math.copysign(1, value) < 0 else "0.0"
