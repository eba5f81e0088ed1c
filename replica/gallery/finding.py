"""How what is searched for is met: as a set where few images are found, by a look at each where many are."""

from __future__ import annotations

import sqlite3
from typing import Any

from replica.errors import ReplicaUnavailable
from replica.gallery.keys import counting_sql
from replica.gallery.stretches import Found

SET_MAX = 5_000
"""So few matches are made a set, at 0.8 µs each; of more, a look at each image in turn, at 12 µs, soon finds some."""

FEW, MANY = ", few", ", many"

_MATCHES = "SELECT count(*) FROM (SELECT 1 FROM image_fts WHERE image_fts MATCH :match LIMIT :limit)"
_TITLES = "SELECT count(*) FROM (SELECT 1 FROM album_fts WHERE album_fts MATCH :titles LIMIT :limit)"
_SEARCHABLE = "SELECT count(*) FROM sqlite_master WHERE name IN ('image_fts.delete', 'album_fts.delete')"


def found_by(connection: sqlite3.Connection, found: Found, values: dict[str, Any]) -> frozenset[str]:
    """Name the conditions by which images are found for ``:match`` in their texts, ``:titles`` in those of albums.

    Raises `ReplicaUnavailable` while the full-text index of a large replica is being made.
    """
    if connection.execute(_SEARCHABLE).fetchone()[0] < 2:
        raise ReplicaUnavailable("the replica's full-text index is being made")
    if found == "titles":
        amount = FEW if few(connection, counting_sql(f"titles{FEW}"), values, SET_MAX) else MANY
        return frozenset({f"titles{amount}", "not words"})
    in_few = few(connection, _MATCHES, values, SET_MAX)
    if found == "words" or few(connection, _TITLES, values, 0):  # of most searches no album has its title
        return frozenset({f"words{FEW if in_few else MANY}"})
    in_few = in_few and few(connection, counting_sql(f"titles{FEW}"), values, SET_MAX)
    return frozenset({f"words or titles{FEW if in_few else MANY}"})


def few(connection: sqlite3.Connection, counting: str, values: dict[str, Any], most: int) -> bool:
    """Tell whether a statement that counts up to ``:limit`` counts at most so many."""
    count: int = connection.execute(counting, values | {"limit": most + 1}).fetchone()[0]
    return count <= most
