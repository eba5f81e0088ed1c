"""Reads of albums: a page of them, and one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass

import apsw

from primary.gallery.tables import catalog
from replica.gallery.page_cursor import PageCursor
from replica.gallery.page_size import filled
from replica.rendering import json_members

ALBUMS = b"album".hex()
"""What page cursors of albums are of."""

# A count is read from the album's own index entries; a cover that was not chosen is the first image of the album.
_MEMBERS = f"""{json_members(catalog["album"], "album")} || ',"image_count":' || (
  SELECT count(*) FROM album_image WHERE album_image.album_id = album.id
) || ',"cover":' || ifnull((
  SELECT '{{"image_id":' || json_quote(image.id) || ',"image_url":' || json_quote(image.image_url) || ',"alt_text":'
    || json_quote(image.alt_text) || '}}'
  FROM image WHERE image.id = ifnull(album.cover_image_id, (
    SELECT first.image_id FROM album_image AS first WHERE first.album_id = album.id
    ORDER BY first.position, first.image_created_at, first.image_id LIMIT 1))
), 'null')"""


def _page_sql(condition: str) -> str:
    return f"""
SELECT CAST('{{' || {_MEMBERS} || '}}' AS BLOB), album.created_at, album.id FROM album {condition}
ORDER BY album.created_at DESC, album.id DESC LIMIT :limit"""


_FIRST = _page_sql("")
_NEXT = _page_sql("WHERE (album.created_at, album.id) < (:created_at, :id)")
_ONE = f"SELECT CAST({_MEMBERS} AS BLOB) FROM album WHERE album.id = ?"
_EXISTS = "SELECT 1 FROM album WHERE album.id = ?"


@dataclass(frozen=True, slots=True)
class AlbumPage:
    """Some albums in order: their JSON objects, joined by commas, and where the next page begins, if there is one."""

    albums: bytes
    next: PageCursor | None


def albums(connection: apsw.Connection, limit: int, after: PageCursor | None = None) -> AlbumPage:
    """Give the newest albums, or those that come after a cursor, at most ``limit``."""
    values: dict[str, int | str] = {"limit": limit + 1}
    if after is not None:
        values |= {"created_at": after.created_at, "id": after.id}
    with closing(connection.execute(_FIRST if after is None else _NEXT, values)) as cursor:
        rows, more = filled(connection, cursor, limit)
    return AlbumPage(b",".join([row[0] for row in rows]), PageCursor(*rows[-1][1:], ALBUMS) if more else None)


def album(connection: apsw.Connection, album_id: str) -> bytes | None:
    """Give the members of an album's JSON object, without its braces; None if there is no such album."""
    row = connection.execute(_ONE, (album_id,)).fetchone()
    return row[0] if row is not None else None


def is_there(connection: apsw.Connection, album_id: str) -> bool:
    """Tell whether there is such an album."""
    return connection.execute(_EXISTS, (album_id,)).fetchone() is not None
