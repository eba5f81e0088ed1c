"""Pages of a list of images: any filters, in any order.

    page = browse(connection, Listing(Filters(favorite=True), sort="rating"), limit=20)

A list is read in stretches, one after the other: first the images that were rated, by their rating, then those that
were not. Each page follows from values in the one before, so that it stays right while images arrive, change and go.
"""

from __future__ import annotations

from contextlib import closing
from functools import partial
from typing import Any

import apsw

from replica.gallery.finding import Finder
from replica.gallery.images import Page, newest
from replica.gallery.listing import Listing
from replica.gallery.matches import rows_json
from replica.gallery.members import braced
from replica.gallery.page_cursor import PageCursor
from replica.gallery.page_size import within_bytes
from replica.gallery.page_text import BETWEEN, end_of, page_sql
from replica.gallery.stretches import Asked, Stretch
from replica.gallery.walking import Form, walk_of

_BOUND = f"}}{BETWEEN}{{".encode()
_POSITION = "SELECT position FROM album_image WHERE album_id = :album AND image_id = :id"


def browse(
    connection: apsw.Connection,
    listing: Listing,
    limit: int,
    after: PageCursor | None = None,
    *,
    placed: bool = False,
) -> Page:
    """Give the first images of a list, or those that come after a cursor of it, at most ``limit``.

    With ``placed`` each image of an album's list also has its ``position``, ``caption`` and ``added_at`` there. Raises
    `Unfinished` while the full-text index of a large replica is being made.
    """
    if listing.is_plain:
        return newest(connection, limit, after)
    asked = Asked.of(listing)
    if asked.search is None:
        return within_bytes(connection, limit, partial(_Reader(connection, asked, placed).page, after))
    with closing(Finder(connection, asked.search.titles)) as finder:
        return within_bytes(connection, limit, partial(_Reader(connection, asked, placed, finder).page, after))


class _Reader:
    """Reads the stretches of one list, with a finder where something is searched for."""

    def __init__(self, connection: apsw.Connection, asked: Asked, placed: bool, finder: Finder | None = None) -> None:
        self._connection = connection
        self._asked = asked
        self._placed = placed
        self._finder = finder

    def page(self, after: PageCursor | None, limit: int) -> Page:
        """Give a page: one more image than it has tells that there is another."""
        parts: list[bytes] = []
        numbers: list[int] = []  # of the stretch that each image is of
        begin = after.stretch if after is not None else 0
        for number, stretch in enumerate(self._asked.stretches[begin:], begin):
            images, count = self._read(stretch, limit + 1 - len(numbers), after if number == begin else None)
            if not count:
                continue
            parts.append(images)
            numbers += [number] * count
            if len(numbers) > limit:
                text = _joined(parts).rpartition(_BOUND)[0]
                return Page(braced(text), self._end_of(text, numbers[-2]))
        return Page(braced(_joined(parts)) if parts else b"", None)

    def _end_of(self, text: bytes, number: int) -> PageCursor:
        """Give the place of a text's last image, which is of that stretch."""
        value = self._asked.stretches[number].value
        told = "" if value == "position" and not self._placed else value
        created_at, id_, place = end_of(text.rpartition(_BOUND)[2], told)
        if told != value:
            asked = {"album": self._asked.values["album"], "id": id_}
            place = self._connection.execute(_POSITION, asked).get
        return PageCursor(created_at, id_, self._asked.name, number, place)

    def _read(self, stretch: Stretch, limit: int, after: PageCursor | None) -> Any:
        values = {**self._asked.values, "limit": limit}
        if after is not None:
            values |= {"value": after.value, "created_at": after.created_at, "id": after.id}
        asked = self._asked
        form = Form(stretch.value, stretch.without, asked.conditions, asked.descending, after is not None)
        walk = walk_of(self._connection, form, values)
        if self._finder is not None:
            found = self._finder.found(stretch, walk, values)
            if not found.rows:
                return None, 0
            values["rows"] = rows_json(found.rows)
            walk = walk.of_rows(settled=found.settled)
        return self._connection.execute(page_sql(walk, self._placed), values).fetchone()


def _joined(parts: list[bytes]) -> bytes:
    return parts[0] if len(parts) == 1 else _BOUND.join(parts)
