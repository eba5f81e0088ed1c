"""Reads of images, each a function of the user's own replica that gives JSON, ready to be sent.

    page = newest(connection, limit=20)
    page = newest(connection, limit=20, after=page.next)

SQLite puts the JSON together, from rows that its index carries rendered already: a page of twenty is one value
in Python, not twenty rows of twenty-five.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import apsw

from replica.gallery.members import JOIN_TOLD, MEMBERS, braced, joined
from replica.gallery.page_cursor import PageCursor
from replica.gallery.page_size import within_bytes


@dataclass(frozen=True, slots=True)
class Page:
    """Some images in order: their JSON objects, joined by commas, and where the next page begins, if there is one."""

    images: bytes
    next: PageCursor | None


_FROM = f"image {JOIN_TOLD}"
_ORDER = "ORDER BY image.created_at DESC, image.id DESC"
_AFTER = "WHERE (image.created_at, image.id) < (:created_at, :id)"


def _page_sql(condition: str) -> str:
    return f"""
SELECT {joined("members")}
FROM (SELECT {MEMBERS} AS members FROM {_FROM} {condition} {_ORDER} LIMIT :limit)"""


def _end_sql(condition: str) -> str:
    """Give the SQL of a page's last position, and of the one after it (source: the index alone)."""
    return f"SELECT image.created_at, image.id FROM image {condition} {_ORDER} LIMIT 2 OFFSET :limit - 1"


_FIRST_PAGE, _FIRST_END = _page_sql(""), _end_sql("")
_NEXT_PAGE, _NEXT_END = _page_sql(_AFTER), _end_sql(_AFTER)
_EDITED = "EXISTS (SELECT 1 FROM image_edit WHERE image_edit.image_id = image.id)"
_ONE = f"SELECT CAST({MEMBERS} AS BLOB), {_EDITED} FROM {_FROM} WHERE image.id = ?"


def newest(connection: apsw.Connection, limit: int, after: PageCursor | None = None) -> Page:
    """Give the newest images, or those that come after a cursor, at most ``limit``."""
    return within_bytes(connection, limit, partial(_newest, connection, after))


def _newest(connection: apsw.Connection, after: PageCursor | None, limit: int) -> Page:
    if after is None:
        page, end = _FIRST_PAGE, _FIRST_END
        asked: dict[str, Any] = {"limit": limit}
    else:
        page, end = _NEXT_PAGE, _NEXT_END
        asked = {"limit": limit, "created_at": after.created_at, "id": after.id}
    images = connection.execute(page, asked).get
    last = list(connection.execute(end, asked))
    return Page(braced(images) if images is not None else b"", PageCursor(*last[0]) if len(last) == 2 else None)


def one(connection: apsw.Connection, image_id: str) -> tuple[bytes, bool] | None:
    """Give the members of an image's JSON object, without its braces, and whether it was ever edited.

    None if there is no such image.
    """
    row = connection.execute(_ONE, (image_id,)).fetchone()
    return (row[0], bool(row[1])) if row is not None else None
