"""Reads of images, each a function of the user's own replica that gives JSON, ready to be sent.

    page = newest(connection, limit=20)
    page = newest(connection, limit=20, after=page.next)

SQLite puts the JSON together, from rows that its index carries rendered already: a page of twenty is one value
in Python, not twenty rows of twenty-five.
"""

from __future__ import annotations

import re
import sqlite3
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from primary.declaration import SyncedTable
from primary.gallery.tables import catalog
from replica.rendering import json_members

_KEY = re.compile(
    r"(?:[0-9]{4,6}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}Z(?: BC)?|-?infinity)"
    r"\t[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
)
"""A position in the order of pages: created_at, a tab, the id."""


class InvalidPageCursor(ValueError):
    """The text is not a cursor that a page was answered with."""


@dataclass(frozen=True, slots=True)
class PageCursor:
    """A place in the order of pages: right after the image ``id`` that was made at ``created_at``.

    It names values, not a count: pages stay whole while images arrive, change and go.

    >>> cursor = PageCursor("2025-03-01T08:00:00.000000Z", "00000000-0000-4000-8000-000000000001")
    >>> PageCursor.parse(str(cursor)) == cursor
    True

    Only text that it would print itself is a cursor:

    >>> for bad in ("", "42", "é", str(cursor) + "=", str(cursor) + "A", str(cursor)[:-1]):
    ...     try:
    ...         PageCursor.parse(bad)
    ...     except InvalidPageCursor:
    ...         pass
    ...     else:
    ...         print("took", bad)
    """

    created_at: str
    id: str

    @classmethod
    def parse(cls, text: str) -> PageCursor:
        """Read a cursor from its text. Raises `InvalidPageCursor` for any text that `str` does not produce."""
        try:
            key = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
        except ValueError:
            raise InvalidPageCursor from None
        if not _KEY.fullmatch(key) or str(cursor := cls(*key.split("\t"))) != text:
            raise InvalidPageCursor
        return cursor

    def __str__(self) -> str:
        return urlsafe_b64encode(f"{self.created_at}\t{self.id}".encode()).decode().rstrip("=")


@dataclass(frozen=True, slots=True)
class Page:
    """Some images in order: their JSON objects, joined by commas, and where the next page begins, if there is one."""

    images: bytes
    next: PageCursor | None


def _default_json(table: SyncedTable, name: str) -> str:
    default = table.table.c[name].server_default
    return str(default.arg) if isinstance(default, sa.DefaultClause) else "null"


def _activity_members() -> str:
    """Give the SQL of the members that an image takes from its activity: the defaults where there is no row."""
    activity = catalog["image_activity"]
    own = replace(activity, columns=tuple(c for c in activity.columns if c.name not in activity.key))
    defaults = "".join(f',"{column.name}":{_default_json(activity, column.name)}' for column in own.columns)
    return f"CASE WHEN activity.image_id IS NULL THEN '{defaults}' ELSE ',' || {json_members(own, 'activity')} END"


_MEMBERS = f"{json_members(catalog['image'], 'image')} || {_activity_members()}"

_FROM = "image LEFT JOIN image_activity AS activity ON activity.image_id = image.id"


_ORDER = "ORDER BY image.created_at DESC, image.id DESC"
_AFTER = "WHERE (image.created_at, image.id) < (:created_at, :id)"


def _page_sql(condition: str) -> str:
    return f"""
SELECT CAST(ifnull(group_concat('{{' || members || '}}', ','), '') AS BLOB)
FROM (SELECT {_MEMBERS} AS members FROM {_FROM} {condition} {_ORDER} LIMIT :limit)"""


def _end_sql(condition: str) -> str:
    """Give the SQL of a page's last position, and of the one after it (source: the index alone)."""
    return f"SELECT image.created_at, image.id FROM image {condition} {_ORDER} LIMIT 2 OFFSET :limit - 1"


_FIRST_PAGE, _FIRST_END = _page_sql(""), _end_sql("")
_NEXT_PAGE, _NEXT_END = _page_sql(_AFTER), _end_sql(_AFTER)
_ONE = f"SELECT CAST({_MEMBERS} AS BLOB) FROM {_FROM} WHERE image.id = ?"


def newest(connection: sqlite3.Connection, limit: int, after: PageCursor | None = None) -> Page:
    """Give the newest images, or those that come after a cursor, at most ``limit``."""
    if after is None:
        page, end = _FIRST_PAGE, _FIRST_END
        asked: dict[str, Any] = {"limit": limit}
    else:
        page, end = _NEXT_PAGE, _NEXT_END
        asked = {"limit": limit, "created_at": after.created_at, "id": after.id}
    (images,) = connection.execute(page, asked).fetchone()
    last = connection.execute(end, asked).fetchall()
    return Page(images, PageCursor(*last[0]) if len(last) == 2 else None)


def one(connection: sqlite3.Connection, image_id: str) -> bytes | None:
    """Give the members of an image's JSON object, without its braces; None if there is no such image."""
    row = connection.execute(_ONE, (image_id,)).fetchone()
    return row[0] if row is not None else None
