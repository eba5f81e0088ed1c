"""What an image of a list must be, as SQL: which table tells it, and how the tables hang together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    """A table that a walk can start from, its driver: its name there, and when the image was made, and its id."""

    source: str
    created_at: str
    id: str


TABLES = {
    "image": Table("image", "image.created_at", "image.id"),
    "activity": Table("image_activity AS activity", "activity.image_created_at", "activity.image_id"),
    "place": Table("album_image AS place", "place.image_created_at", "place.image_id"),
    "held": Table("album_image AS held", "held.image_created_at", "held.image_id"),
}
_JOINS = {
    "image": "CROSS JOIN image ON image.id = {id}",
    "activity": "CROSS JOIN image_activity AS activity ON activity.image_id = {id}",
    "any activity": "LEFT JOIN image_activity AS activity ON activity.image_id = {id}",
    "place": "CROSS JOIN album_image AS place ON place.album_id = :album AND place.image_id = {id}",
    "held": "CROSS JOIN album_image AS held ON held.image_id = {id}",  # in each album that it is in
}

_TITLED = (
    "there.album_id IN (SELECT named.id FROM album AS named "
    "WHERE named.rowid IN (SELECT album_fts.rowid FROM album_fts WHERE album_fts MATCH :titles))"
)
IN_TITLED = f"EXISTS (SELECT 1 FROM album_image AS there WHERE there.image_id = image.id AND {_TITLED})"
"""Whether an image is in an album whose title matches ``:titles``."""

TITLED_ROWS_SQL = (
    "SELECT DISTINCT image.rowid FROM album_image AS there CROSS JOIN image ON image.id = there.image_id "
    f"WHERE {_TITLED} LIMIT :limit"
)
"""Gives the rows of images in albums whose titles match ``:titles``, up to ``:limit``."""

_MATCHING = "image.rowid IN (SELECT image_fts.rowid FROM image_fts WHERE image_fts MATCH :match)"


@dataclass(frozen=True, slots=True)
class Condition:
    """What an image must be: the table that tells it, if it is not the driver whichever that is, and the SQL.

    ``~`` stands before a column by which an index could be used; elsewhere than in the driver it becomes a plus, by
    which SQLite does not use it. ``{id}`` and ``{created_at}`` are the driver's.
    """

    sql: str
    table: str | None = None


CONDITIONS = {
    "album": Condition("place.album_id = :album", "place"),
    "favorite": Condition("~activity.is_favorite", "activity"),
    "not favorite": Condition("activity.is_favorite IS NOT TRUE", "any activity"),
    "min_rating": Condition("~activity.rating >= :min_rating", "activity"),
    "source": Condition("~image.source = :source", "image"),
    "model": Condition("~image.model = :model", "image"),
    "created_from": Condition("~{created_at} >= :created_from"),
    "created_to": Condition("~{created_at} < :created_to"),
    # What was found by a search: these rows; or, to look at all of them, what is found while it is looked at.
    "rows": Condition("~image.rowid IN (SELECT row.value FROM json_each(:rows) AS row)", "image"),
    "matching": Condition(f"+{_MATCHING}", "image"),
    "matching or titled": Condition(f"(+{_MATCHING} OR {IN_TITLED})", "image"),
}

INDEXED = ("album", "favorite", "min_rating", "model", "source")
"""The conditions that have an index in the order of created_at, those that leave the fewest images first."""


def table_of(condition: str) -> str:
    """Name the table from which a walk by a condition starts."""
    return CONDITIONS[condition].table or "image"


def unless(told: str, id_: str) -> str:
    """Give the condition that what is told of the image ``other`` is not so, or nothing is told of it."""
    return f"NOT EXISTS (SELECT 1 FROM image_activity AS other WHERE other.image_id = {id_} AND {told})"


def tables_of(driver: str, conditions: frozenset[str], more: frozenset[str]) -> frozenset[str]:
    """Name the tables that are joined to a driver for conditions, and for ``more``."""
    needed = {table for name in conditions if (table := CONDITIONS[name].table) is not None} | more
    if "activity" in needed or driver == "activity":
        needed.discard("any activity")
    return frozenset(needed - {driver})


def from_where(
    driver: str,
    conditions: frozenset[str],
    tables: frozenset[str],
    more: list[str],
    usable: frozenset[str],
    last: str = "",
) -> str:
    """Give the FROM and WHERE of what starts from a driver, with the conditions of ``usable`` by an index.

    ``last`` is joined after all that the conditions need.
    """
    source = TABLES[driver]
    where = [
        CONDITIONS[name]
        .sql.replace("{id}", source.id)
        .replace("{created_at}", source.created_at)
        .replace("~", "" if name in usable else "+")
        for name in sorted(conditions)
        if name != "album" or driver == "place"  # else it is in the join
    ]
    joined = sorted(tables_of(driver, conditions, tables))
    joins = "".join(f" {_JOINS[name].replace('{id}', source.id)}" for name in joined) + last
    condition_sql = " AND ".join([*where, *more])
    return f"FROM {source.source}{joins}" + (f" WHERE {condition_sql}" if condition_sql else "")
