"""One image with all there is to tell of it: what it was, what was done with it, and where it is shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import apsw

from primary.gallery.tables import catalog
from replica.gallery.images import one
from replica.gallery.page_cursor import PageCursor
from replica.gallery.page_size import filled
from replica.rendering import json_members

SHOWN_MAX = 20
"""So many edits and events of an image are told with it, the latest; the rest by pages of their own."""

ALBUMS_MAX = 100
"""So many albums of an image are told with it, by title; nobody keeps one in more."""

HISTORY, EVENTS = b"edits".hex(), b"event".hex()
"""What page cursors of an image's edits and events are of."""


@dataclass(frozen=True, slots=True)
class Entries:
    """Some edits or events: their JSON objects, joined by commas, and where the next page begins, if there is one."""

    entries: bytes
    next: PageCursor | None


def _entries_sql(table: str, moment: str, after: str) -> str:
    return f"""
SELECT CAST('{{' || {json_members(catalog[table], "entry")} || '}}' AS BLOB), entry.{moment}, entry.id
FROM {table} AS entry WHERE entry.image_id = :image{after}
ORDER BY entry.{moment} DESC, entry.id DESC LIMIT :limit"""


_KINDS = {HISTORY: ("image_edit", "edited_at"), EVENTS: ("image_event", "occurred_at")}
_FIRST = {of: _entries_sql(table, moment, "") for of, (table, moment) in _KINDS.items()}
_NEXT = {
    of: _entries_sql(table, moment, f" AND (entry.{moment}, entry.id) < (:at, :id)")
    for of, (table, moment) in _KINDS.items()
}
_ALBUMS = """
SELECT CAST(ifnull(group_concat(told), '') AS BLOB) FROM (
  SELECT '{"id":' || json_quote(album.id) || ',"title":' || json_quote(album.title) || ',"position":' || held.position
    || ',"caption":' || json_quote(held.caption) || ',"added_at":' || json_quote(held.added_at) || '}' AS told
  FROM album_image AS held CROSS JOIN album ON album.id = held.album_id
  WHERE held.image_id = :image ORDER BY album.title, album.id LIMIT :limit)"""


def detail(connection: apsw.Connection, image_id: str, include: Sequence[str]) -> bytes | None:
    """Give an image as everywhere, and what is to be included of `PARTS`: JSON members, without the braces.

    None if there is no such image.
    """
    found = one(connection, image_id)
    if found is None:
        return None
    image, edited = found
    if include == ("history",) and not edited:  # as most are, and most are read
        return image + _NEVER_EDITED
    return b",".join([image, *(b'"%b":%b' % (name.encode(), PARTS[name](connection, image_id)) for name in include)])


_NEVER_EDITED = b',"history":{"entries":[],"next_cursor":null}'


def _history(connection: apsw.Connection, image_id: str) -> bytes:
    return b"{%b}" % told(entries(connection, HISTORY, image_id, SHOWN_MAX))


def _events(connection: apsw.Connection, image_id: str) -> bytes:
    return b"{%b}" % told(entries(connection, EVENTS, image_id, SHOWN_MAX))


def _albums(connection: apsw.Connection, image_id: str) -> bytes:
    albums = connection.execute(_ALBUMS, {"image": image_id, "limit": ALBUMS_MAX}).get
    return b"[%b]" % albums


PARTS: dict[str, Callable[[apsw.Connection, str], bytes]] = {
    "history": _history,
    "events": _events,
    "albums": _albums,
}
"""What can be told of an image besides what is told everywhere, each as JSON."""


def entries(
    connection: apsw.Connection, of: str, image_id: str, limit: int, after: PageCursor | None = None
) -> Entries:
    """Give the latest edits or events of an image, or those that come after a cursor, at most ``limit``."""
    asked: dict[str, Any] = {"image": image_id, "limit": limit + 1}
    if after is not None:
        asked |= {"at": after.created_at, "id": after.id}
    with closing(connection.execute((_FIRST if after is None else _NEXT)[of], asked)) as cursor:
        rows, more = filled(connection, cursor, limit)
    return Entries(b",".join([row[0] for row in rows]), PageCursor(*rows[-1][1:], of) if more else None)


def page(connection: apsw.Connection, of: str, image_id: str, limit: int, after: PageCursor | None) -> bytes | None:
    """Give the same as the members of a JSON object; None if there is no such image."""
    if one(connection, image_id) is None:
        return None
    return told(entries(connection, of, image_id, limit, after))


def told(some: Entries) -> bytes:
    """Give entries as the members of a JSON object."""
    cursor = b'"%b"' % str(some.next).encode() if some.next is not None else b"null"
    return b'"entries":[%b],"next_cursor":%b' % (some.entries, cursor)
