"""How single values are written as text: as the API writes them, and where that would lose something, exactly."""

from __future__ import annotations

import math
from typing import Any

import apsw

from primary.declaration import SyncedColumn
from replica.rendering import json_value


def knows_zeros(connection: apsw.Connection) -> None:
    """Have a connection know what `exact_json` needs."""
    connection.create_scalar_function("_zero", _zero, 1, deterministic=True)


def exact_json(column: SyncedColumn, name: str) -> str:
    """Give the SQL of one value as JSON; ``name`` is the SQL of the value."""
    if column.mapping.json != "real":
        return json_value(column, name)
    # SQLite itself writes no sign before a zero.
    return f"CASE {name} WHEN 0 THEN _zero({name}) ELSE {json_value(column, name)} END"


def _zero(*values: Any) -> str:
    return "-0.0" if math.copysign(1, *values) < 0 else "0.0"
