"""Pages of a list of images: any filters, in any order.

    page = browse(connection, Listing(Filters(favorite=True), sort="rating"), limit=20)

A list is read in stretches, one after the other: first the images that were rated, by their rating, then those that
were not. Each page follows from values in the one before, so that it stays right while images arrive, change and go.
"""

from __future__ import annotations

import sqlite3
from functools import lru_cache
from typing import Any

from replica.gallery.finding import FEW, few, found_by
from replica.gallery.images import Page, newest
from replica.gallery.keys import INDEXED, RATINGS_MAX, Walk, counting_sql, sample_sql, streams_for, walk_sql
from replica.gallery.listing import Listing
from replica.gallery.members import JOIN_TOLD, MEMBERS
from replica.gallery.page_cursor import PageCursor
from replica.gallery.stretches import Asked, Stretch

GATHER_MAX = 1_000
"""So few images are gathered and sorted, rather than met along an order in which they may be far apart: 1 ms."""

STREAMS_CHEAP, SAMPLE = 16, 150
"""Merging so many lists costs 1 µs each; of more, a look at so many rated images, 8 µs, tells whether it is needed."""

# The rendered index has the image's text ready: it is found there by created_at and id. (By id alone SQLite would take
# the key, and make the text anew; and a range of one keeps it from doing so.)
_LOOKED_UP = "CROSS JOIN image ON image.created_at = at.created_at AND image.id >= at.id AND image.id <= at.id"

_BETWEEN = ",\n"
"""Between the images of a page: JSON has a newline nowhere else, so that the last one can be told from the others."""


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
    return _Reader(connection, Asked.of(listing), placed).page(limit, after)


@lru_cache(maxsize=2_000)
def page_sql(walk: Walk, placed: bool) -> str:
    """Give the statement of a stretch's images, joined, and of the place of each in it, one a line."""
    extra, join = "", ""
    if placed:
        extra = (
            """ || ',"position":' || held.position || ',"caption":' || json_quote(held.caption)"""
            """ || ',"added_at":' || json_quote(held.added_at)"""
        )
        join = " CROSS JOIN album_image AS held ON held.album_id = :album AND held.image_id = at.id"
    place = "at.created_at || char(9) || at.id" + (" || char(9) || at.value" if walk.value else "")
    return (
        f"SELECT CAST(group_concat('{{' || {MEMBERS}{extra} || '}}', '{_BETWEEN}') AS BLOB), "
        f"group_concat({place}, char(10)) "
        f"FROM ({walk_sql(walk)}) AS at {_LOOKED_UP}{join} {JOIN_TOLD}"
    )


class _Reader:
    """Reads the stretches of one list."""

    def __init__(self, connection: sqlite3.Connection, asked: Asked, placed: bool) -> None:
        self._connection = connection
        self._asked = asked
        self._placed = placed

    def page(self, limit: int, after: PageCursor | None) -> Page:
        """Give a page: one more image than it has tells that there is another."""
        parts: list[bytes] = []
        places: list[str] = []
        ends: list[tuple[int, int]] = []
        begin = after.stretch if after is not None else 0
        for number, stretch in enumerate(self._asked.stretches[begin:], begin):
            images, lines = self._read(stretch, limit + 1 - len(places), after if number == begin else None)
            if images is None:
                continue
            parts.append(images)
            places += lines.split("\n")
            ends.append((len(places), number))
            if len(places) > limit:
                last_of = next(number for end, number in ends if end >= limit)
                last = self._cursor(last_of, places[limit - 1])
                return Page(b",\n".join(parts).rpartition(b",\n")[0], last)
        return Page(b",\n".join(parts), None)

    def _cursor(self, stretch: int, place: str) -> PageCursor:
        created_at, id_, *values = place.split("\t")
        value = values[0] if values else None
        return PageCursor(
            created_at, id_, self._asked.name, stretch, int(value) if value and value.isdigit() else value
        )

    def _read(self, stretch: Stretch, limit: int, after: PageCursor | None) -> Any:
        values = {**self._asked.values, "limit": limit}
        if after is not None:
            values |= {"value": after.value, "created_at": after.created_at, "id": after.id}
        walk = self._walk(stretch, values, after is not None)
        return self._connection.execute(page_sql(walk, self._placed), values).fetchone()

    def _walk(self, stretch: Stretch, values: dict[str, Any], after: bool) -> Walk:
        """Choose the index along which a stretch is walked, and add to ``values`` what that takes."""
        conditions = self._asked.conditions
        if stretch.found and self._asked.search is not None:
            values |= {"match": stretch.match, "titles": self._asked.search.titles}
            conditions |= found_by(self._connection, stretch.found, values)
        by, gather = self._gathered(stretch, conditions, values)
        if not gather and not stretch.value:
            by = next((name for name in INDEXED if name in conditions), "")
        streams = 0
        if by == "min_rating" and not gather:
            streams = 0 if self._dense(conditions, values, after) else streams_for(values["min_rating"])
            values |= _ratings(values["min_rating"], streams)
        return Walk(
            conditions,
            by=by,
            value=stretch.value,
            without=stretch.without,
            descending=self._asked.descending,
            after=after,
            gather=gather,
            streams=streams,
        )

    def _dense(self, conditions: frozenset[str], values: dict[str, Any], after: bool) -> bool:
        """Tell whether those rated so high lie close among all that are rated, so that their lists need no merging."""
        if len(conditions) > 1 or streams_for(values["min_rating"]) <= STREAMS_CHEAP:
            return False
        sql = sample_sql(after, self._asked.descending)
        found: int = self._connection.execute(sql, values | {"sample": SAMPLE}).fetchone()[0]
        return bool(found >= values["limit"])

    def _gathered(self, stretch: Stretch, conditions: frozenset[str], values: dict[str, Any]) -> tuple[str, bool]:
        """Tell by which condition so few images are left that they can as well be gathered and sorted."""
        indexed = [name for name in INDEXED if name in conditions]
        in_order = not stretch.value and not stretch.without
        if not stretch.found and len(indexed) <= (in_order or stretch.value == "position"):
            return "", False  # the one condition's own index has the order
        for name in indexed:
            if few(self._connection, counting_sql(name), values, GATHER_MAX):
                return name, True
        found = next((name for name in conditions if name.endswith(FEW)), "")
        return found, bool(found)


@lru_cache(maxsize=RATINGS_MAX)
def _ratings(min_rating: int, streams: int) -> dict[str, int | None]:
    """Give the ratings whose lists are merged, as parameters; some lists may stay empty."""
    ratings = range(min_rating, RATINGS_MAX)
    return {f"rating_{n}": ratings[n] if n < len(ratings) else None for n in range(streams)}
