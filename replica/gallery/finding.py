"""How what is searched for is met: images are taken as the list has them, some at a time, and sifted.

A list is walked in its own order, and of each lot of images it is asked which of them match. That fills a page soon
where many match, and what is found first is what comes first. Where matches turn out to lie far apart, all of them are
looked up, and if these are few, they are gathered and sorted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count, islice
from typing import Any

import apsw

from replica.errors import Unfinished
from replica.gallery.conditions import IN_TITLED, TITLED_ROWS_SQL
from replica.gallery.keys import Column, Walk, driver_of, walk_sql
from replica.gallery.matches import SET_MAX, Matches, rows_json
from replica.gallery.search import has_prefix
from replica.gallery.stretches import Stretch

FIRST, FIRST_OF_PREFIX, LOT_MAX = 64, 256, 2_048
"""So many images are sifted at first, at 0.2 to 1 µs each, and at once."""

AHEAD_MAX = 8_000
"""With more images to go until the page is full, if they go on as they began, all matches are looked up: 2 to 4 ms."""

AS_DEAR_ELSEWHERE = 4
"""An image costs as much as so many where the walk is along another table and each is looked up."""

PER_IMAGE = 4
"""And at first at least so many for each that is wanted."""

OTHERS_MAX = 64
"""So few images may lie out of the order of their rows."""

AS_DEAR = 8
"""Gathering and sorting one match costs as much as sifting so many images."""

_TITLES = "SELECT count(*) FROM (SELECT 1 FROM album_fts WHERE album_fts MATCH :titles LIMIT 1)"
_SEARCHABLE = "SELECT count(*) FROM sqlite_master WHERE name IN ('image_fts.delete', 'album_fts.delete')"
_OTHERS = (
    "SELECT image.rowid FROM (SELECT held.created_at, held.id FROM image AS held "
    "WHERE held.rowid IN (SELECT row.value FROM json_each(:rows) AS row) ORDER BY 1, 2 LIMIT 1) AS oldest "
    "CROSS JOIN image ON (image.created_at, image.id) > (oldest.created_at, oldest.id) "
    "WHERE +image.rowid < :row LIMIT :limit"
)
_ROW, _TITLED = Column("image.rowid", "image"), Column(IN_TITLED, "image")


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of images: if ``settled`` those of a page, in no order, else all that can be in the list."""

    rows: list[int]
    settled: bool


@dataclass(slots=True)
class _Walked:
    """A walk as far as it was read; it is read once, however often it is sifted."""

    cursor: apsw.Cursor
    images: list[tuple[Any, ...]] = field(default_factory=list)

    def lot(self, begin: int, size: int) -> list[tuple[Any, ...]]:
        if (more := begin + size - len(self.images)) > 0:
            self.images += islice(self.cursor, more)
        return self.images[begin : begin + size]


class Finder:
    """Finds what a search is for, within one read; to be closed before that ends.

    Raises `Unfinished` while the full-text index of a large replica is being made.
    """

    def __init__(self, connection: apsw.Connection, titles: str) -> None:
        if connection.execute(_SEARCHABLE).get < 2:
            raise Unfinished("the replica's full-text index is being made")
        self._connection = connection
        self._titles = {"titles": titles}
        self._matches = Matches(connection)
        self._walked: dict[str, _Walked] = {}
        self._titled = bool(connection.execute(_TITLES, self._titles).get)

    def close(self) -> None:
        """End the walks."""
        for walked in self._walked.values():
            walked.cursor.close()

    def asks_titles(self, stretch: Stretch) -> bool:
        """Tell whether any image of a stretch can be there for the title of an album."""
        return stretch.titled and self._titled

    def found(self, stretch: Stretch, walk: Walk, values: dict[str, Any]) -> Found:
        """Give the first ``values["limit"]`` images of a stretch that is walked so, or all that come into question."""
        titled = self.asks_titles(stretch)
        if not (stretch.match or titled):
            return Found([], settled=True)
        sql, wanted = walk_sql(walk, (_ROW, _TITLED) if titled else (_ROW,)), values["limit"]
        walked = self._walked.get(sql)
        if walked is None:
            walked = self._walked[sql] = _Walked(self._connection.execute(sql, values | self._titles))
        ahead_max = AHEAD_MAX if driver_of(walk) == "image" else AHEAD_MAX // AS_DEAR_ELSEWHERE
        rows: list[int] = []
        met, size = 0, max(FIRST_OF_PREFIX if has_prefix(stretch.match) else FIRST, PER_IMAGE * wanted)
        for number in count():
            lot = walked.lot(met, size)
            rows += self._sifted(stretch, lot, titled)
            if len(rows) >= wanted or len(lot) < size:
                return Found(rows[:wanted], settled=True)
            met += size
            ahead = int(met * (wanted - len(rows)) / (len(rows) + 0.5))
            if ahead > ahead_max and (few := self.few(stretch)) is not None and len(few) * AS_DEAR < ahead:
                return Found([*few], settled=False)
            if number == 1 and walk.is_newest and not titled and (latest := self._latest(stretch, wanted)) is not None:
                return Found(latest, settled=True)
            size = min(max(ahead + ahead // 8, FIRST), 4 * met, LOT_MAX)

        raise AssertionError("it counts for ever")

    def _latest(self, stretch: Stretch, wanted: int) -> list[int] | None:
        """Give the newest images of a stretch by the order of their rows, if that can be told from it.

        Rows of a first copy lie about in the order in which they were made, and FTS5 gives the last ones first. What
        else is newer than the oldest of these has a smaller row; where few have, they are asked for too.
        """
        less = self._matches.known(stretch.less) if stretch.less else frozenset[int]()
        if less is None or self._matches.known(stretch.match) is not None:
            return None
        rows = [row for row in self._matches.latest(stretch.match, wanted + len(less)) if row not in less][:wanted]
        if len(rows) < wanted:
            return rows
        asked = {"rows": rows_json(rows), "row": min(rows), "limit": OTHERS_MAX + 1}
        others = [row for (row,) in self._connection.execute(_OTHERS, asked)]
        if len(others) > OTHERS_MAX:
            return None
        return [*rows, *(self._matches.among(stretch.match, others) - less)]

    def few(self, stretch: Stretch) -> set[int] | None:
        """Give the rows of all images that a stretch's search finds; None where these are too many."""
        rows: set[int] = set()
        if stretch.match:
            matching = self._matches.all(stretch.match)
            if matching is None:
                return None
            rows.update(matching)
        if self.asks_titles(stretch):
            titled = list(self._connection.execute(TITLED_ROWS_SQL, self._titles | {"limit": SET_MAX + 1}))
            if len(titled) > SET_MAX:
                return None
            rows.update([row for (row,) in titled])
        return rows - self._matches.among(stretch.less, rows) if stretch.less else rows

    def _sifted(self, stretch: Stretch, lot: list[tuple[Any, ...]], titled: bool) -> list[int]:
        rows = [image[0] for image in lot]
        found = self._matches.among(stretch.match, rows) if stretch.match else set()
        if titled:
            found.update([image[0] for image in lot if image[1]])
        if stretch.less:
            found -= self._matches.among(stretch.less, found)
        return [row for row in rows if row in found]
