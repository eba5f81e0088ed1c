"""Pages of a list of images: any filters, in any order.

    page = browse(connection, Listing(Filters(favorite=True), sort="rating"), limit=20)

A list is read in stretches, one after the other: first the images that were rated, by their rating, then those that
were not. Each page follows from values in the one before, so that it stays right while images arrive, change and go.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from replica.gallery.finding import FEW, few, found_by
from replica.gallery.images import Page, newest
from replica.gallery.keys import INDEXED, RATINGS_MAX, Walk, counting_sql, streams_for, walk_sql
from replica.gallery.listing import Listing
from replica.gallery.members import JOIN_TOLD, MEMBERS
from replica.gallery.page_cursor import PageCursor
from replica.gallery.stretches import Asked, Stretch

GATHER_MAX = 1_000
"""So few images are gathered and sorted, rather than met along an order in which they may be far apart: 1 ms."""

# The rendered index has the image's text ready: it is found there by created_at and id. (By id alone SQLite would take
# the key, and make the text anew; and a range of one keeps it from doing so.)
_LOOKED_UP = "CROSS JOIN image ON image.created_at = at.created_at AND image.id >= at.id AND image.id <= at.id"


def browse(
    connection: sqlite3.Connection,
    listing: Listing,
    limit: int,
    after: PageCursor | None = None,
    *,
    placed: bool = False,
) -> Page:
    """Give the first images of a list, or those that come after a cursor of it, at most ``limit``.

    With ``placed`` each image of an album's list also has its ``position``, ``caption`` and ``added_at`` there. Raises
    `ReplicaUnavailable` while the full-text index of a large replica is being made.
    """
    if listing.is_plain:
        return newest(connection, limit, after)
    reader = _Reader(connection, Asked.of(listing), listing.order == "desc", placed)
    begin = after.stretch if after is not None else 0
    rows: list[Any] = []
    stretch_of: list[int] = []
    for number, stretch in enumerate(reader.asked.stretches[begin:], begin):
        place = after if number == begin else None
        rows += reader.read(stretch, limit + 1 - len(rows), place)
        stretch_of += [number] * (len(rows) - len(stretch_of))
        if len(rows) > limit:
            _, value, created_at, id_ = rows[limit - 1]
            cursor = PageCursor(created_at, id_, listing.name, stretch_of[limit - 1], value)
            return Page(b",".join([row[0] for row in rows[:limit]]), cursor)
    return Page(b",".join([row[0] for row in rows]), None)


@lru_cache(maxsize=2_000)
def page_sql(walk: Walk, placed: bool) -> str:
    """Give the statement of a stretch's images, each with where it stands in it."""
    extra, join = "", ""
    if placed:
        extra = (
            """ || ',"position":' || held.position || ',"caption":' || json_quote(held.caption)"""
            """ || ',"added_at":' || json_quote(held.added_at)"""
        )
        join = " CROSS JOIN album_image AS held ON held.album_id = :album AND held.image_id = at.id"
    return (
        f"SELECT CAST('{{' || {MEMBERS}{extra} || '}}' AS BLOB), at.value, at.created_at, at.id "
        f"FROM ({walk_sql(walk)}) AS at {_LOOKED_UP}{join} {JOIN_TOLD}"
    )


@dataclass(slots=True)
class _Reader:
    """Reads the stretches of one list."""

    connection: sqlite3.Connection
    asked: Asked
    descending: bool
    placed: bool

    def read(self, stretch: Stretch, limit: int, after: PageCursor | None) -> list[Any]:
        """Give the images of a stretch: their JSON, and their values in the order."""
        values = self.asked.values | {"limit": limit}
        conditions = self.asked.conditions
        if stretch.found and self.asked.search is not None:
            values |= {"match": stretch.match, "titles": self.asked.search.titles}
            conditions |= found_by(self.connection, stretch.found, values)
        walk = self._walk(stretch, conditions, values, after)
        if walk.streams:
            values |= _ratings(values["min_rating"], walk.streams)
        if after is not None:
            values |= {"value": after.value, "created_at": after.created_at, "id": after.id}
        return self.connection.execute(page_sql(walk, self.placed), values).fetchall()

    def _walk(
        self, stretch: Stretch, conditions: frozenset[str], values: dict[str, Any], after: PageCursor | None
    ) -> Walk:
        """Choose the index along which a stretch is walked."""
        by, gather = self._gathered(stretch, conditions, values)
        if not gather and not stretch.value:
            by = next((name for name in INDEXED if name in conditions), "")
        return Walk(
            conditions=conditions,
            by=by,
            value=stretch.value,
            without=stretch.without,
            descending=self.descending,
            after=after is not None,
            gather=gather,
            streams=streams_for(values["min_rating"]) if by == "min_rating" and not gather else 0,
        )

    def _gathered(self, stretch: Stretch, conditions: frozenset[str], values: dict[str, Any]) -> tuple[str, bool]:
        """Tell by which condition so few images are left that they can as well be gathered and sorted."""
        indexed = [name for name in INDEXED if name in conditions]
        in_order = not stretch.value and not stretch.without
        if not stretch.found and len(indexed) <= (in_order or stretch.value == "position"):
            return "", False  # the one condition's own index has the order
        for name in indexed:
            if few(self.connection, counting_sql(name), values, GATHER_MAX):
                return name, True
        found = next((name for name in conditions if name.endswith(FEW)), "")
        return found, bool(found)


def _ratings(min_rating: int, streams: int) -> dict[str, int | None]:
    """Give the ratings whose lists are merged, as parameters; some lists may stay empty."""
    ratings = range(min_rating, RATINGS_MAX)
    return {f"rating_{n}": ratings[n] if n < len(ratings) else None for n in range(streams)}
