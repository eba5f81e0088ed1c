"""How single values are written as text: as the API writes them, and where that would lose something, exactly."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import apsw

from primary.declaration import SyncedColumn
from replica.rendering import json_value

_CHAIN_MAX = 100  # in brackets together: of the 1,600 columns that Postgres takes neither these nor they are too many


def knows_zeros(connection: apsw.Connection) -> None:
    """Have a connection know what `exact_json` needs."""
    connection.create_scalar_function("_zero", _zero, 1, deterministic=True)


def exact_json(column: SyncedColumn, name: str) -> str:
    """Give the SQL of one value as JSON; ``name`` is the SQL of the value."""
    if column.mapping.json != "real":
        return json_value(column, name)
    # SQLite itself writes no sign before a zero.
    return f"CASE {name} WHEN 0 THEN _zero({name}) ELSE {json_value(column, name)} END"


def chained(operator: str, parts: Sequence[str]) -> str:
    """Join the SQL of parts, in brackets of some each: SQLite takes an expression that is up to 1,000 deep."""
    lots = (parts[start : start + _CHAIN_MAX] for start in range(0, len(parts), _CHAIN_MAX))
    return operator.join(f"({operator.join(lot)})" for lot in lots)


def _zero(*values: Any) -> str:
    return "-0.0" if math.copysign(1, *values) < 0 else "0.0"
