"""How what is searched for is met: as a set of rows where few are found, by a look at each image where many are."""

from __future__ import annotations

import sqlite3
from typing import Any

from replica.errors import ReplicaUnavailable
from replica.gallery.keys import TITLED_SQL
from replica.gallery.search import has_prefix
from replica.gallery.stretches import Found

SET_MAX = 5_000
"""So few matches are made a set, at 1 µs each; of more, a look at each image in turn, at 12 µs, soon finds some."""

FEW, MANY, ALL = ", few", ", many", ", all"

_ROWS = "SELECT image_fts.rowid FROM image_fts WHERE image_fts MATCH :match LIMIT :limit"
_TITLES = "SELECT count(*) FROM (SELECT 1 FROM album_fts WHERE album_fts MATCH :titles LIMIT :limit)"
_SEARCHABLE = "SELECT count(*) FROM sqlite_master WHERE name IN ('image_fts.delete', 'album_fts.delete')"


def found_by(connection: sqlite3.Connection, found: Found, values: dict[str, Any]) -> frozenset[str]:
    """Name the conditions by which images are found: by ``:match`` in their texts, by ``:titles`` in those of albums.

    Where few match, their rows are added to ``values``. Raises `ReplicaUnavailable` while the full-text index of a
    large replica is being made.
    """
    if connection.execute(_SEARCHABLE).fetchone()[0] < 2:
        raise ReplicaUnavailable("the replica's full-text index is being made")
    rows = connection.execute(_ROWS, values | {"limit": SET_MAX + 1}).fetchall()
    amount = FEW if len(rows) <= SET_MAX else ALL if has_prefix(values["match"]) else MANY
    if amount == FEW:
        values["rows"] = f"[{','.join([str(row) for (row,) in rows])}]"
    if found == "words" or (found == "words or titles" and few(connection, _TITLES, values, 0)):
        return frozenset({f"words{amount}"})
    few_titled = few(connection, TITLED_SQL, values, SET_MAX)
    if found == "titles":  # of those that are not found by their own texts
        lacking = "not in rows" if amount == FEW else f"not words{amount}"
        return frozenset({f"titles{FEW if few_titled else MANY}", lacking})
    if amount == FEW and not few_titled:
        amount = MANY
    return frozenset({f"words or titles{amount}"})


def few(connection: sqlite3.Connection, counting: str, values: dict[str, Any], most: int) -> bool:
    """Tell whether a statement that counts up to ``:limit`` counts at most so many."""
    count: int = connection.execute(counting, values | {"limit": most + 1}).fetchone()[0]
    return count <= most
