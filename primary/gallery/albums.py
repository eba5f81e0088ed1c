"""Writes of albums by themselves; `primary.gallery.places` has those of what is in them.

made = await create(write, NewAlbum(title="Low water"))
album = await patch(write, album_id, AlbumPatch(cover_image_id=image_id), row_version=3)
await delete(write, album_id)
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import NoReturn
from uuid import UUID, uuid4

import msgspec
import sqlalchemy as sa
from msgspec import UNSET
from sqlalchemy.dialects.postgresql import insert

from primary.gallery.album_records import AlbumPatch, NewAlbum
from primary.gallery.errors import Fault, IdTaken, NotFound, RowVersionConflict
from primary.gallery.image import Album
from primary.gallery.statements import as_given, given, is_row, selected, values_of
from primary.gallery.tables import album
from primary.transaction import Result
from primary.write import Write

_CURRENT = sa.text(
    f"""
SELECT {selected(values_of("album", "album"))}, (
  SELECT count(*) FROM album_image WHERE album_image.user_id = album.user_id AND album_image.album_id = album.id
) AS image_count, (
  SELECT json_build_object('image_id', image.id, 'image_url', image.image_url, 'alt_text', image.alt_text)
  FROM image WHERE image.user_id = album.user_id AND image.id = coalesce(album.cover_image_id, (
    SELECT placed.image_id FROM album_image AS placed
    JOIN image AS i ON i.user_id = placed.user_id AND i.id = placed.image_id
    WHERE placed.user_id = album.user_id AND placed.album_id = album.id
    ORDER BY placed.position, i.created_at, placed.image_id LIMIT 1))
) AS cover
FROM album WHERE album.user_id = :user AND album.id = :album"""
)

# It stays until the write ends, whoever would delete it.
_COVER = sa.text("SELECT 1 FROM image WHERE user_id = :user AND id = :image FOR KEY SHARE")

_DELETE = {
    conditional: sa.delete(album).where(*is_row(album, "album", conditional=conditional))
    for conditional in (False, True)
}


@lru_cache(maxsize=64)
def _insert(names: tuple[str, ...]) -> sa.Executable:
    return insert(album).values(given(album, names)).on_conflict_do_nothing().returning(album.c.id)


@lru_cache(maxsize=64)
def _update(names: tuple[str, ...], *, conditional: bool) -> sa.Update:
    return sa.update(album).where(*is_row(album, "album", conditional=conditional)).values(given(album, names))


@dataclass(frozen=True, slots=True)
class SavedAlbum:
    """An album that is stored. ``created`` is False where it was already, by the id that the client made."""

    album: Album
    created: bool


async def create(write: Write, record: NewAlbum) -> SavedAlbum:
    """Make an album. Raises `IdTaken` where its id is of an album which was never edited and yet differs.

    Raises `NotFound` for a cover that is no image of the user.
    """
    values = {"user_id": write.user, "id": uuid4(), **record.given()}
    asked = {"user": write.user, "album": values["id"]}
    try:
        await _check_cover(write, record)
    except NotFound:
        # An album that is sent again is there already, though its cover was deleted since.
        current, created = await write.execute(_CURRENT, asked), False
        if not current.rows:
            raise
    else:
        made, current = await write.finish((_insert(tuple(values)), as_given(values)), (_CURRENT, asked))
        created = made.rowcount == 1
    stored = _album(current)
    if not created and stored.row_version == 1 and not _is(stored, record):
        raise IdTaken(values["id"], what="album")
    return SavedAlbum(stored, created)


async def patch(write: Write, album_id: UUID, changes: AlbumPatch, *, row_version: int | None = None) -> Album:
    """Change what is given of an album; with ``row_version``, only if the album is still at it.

    Raises `NotFound`, also for a cover that is no image of the user, and `RowVersionConflict`.
    """
    await _check_cover(write, changes)
    values = changes.given()
    update = _update(tuple(values), conditional=row_version is not None)
    asked = {"user": write.user, "album": album_id, "row_version": row_version}
    changed, current = await write.finish((update, asked | as_given(values)), (_CURRENT, asked))
    if changed.rowcount == 0:
        _refuse(current, row_version)
    return _album(current)


async def delete(write: Write, album_id: UUID, *, row_version: int | None = None) -> None:
    """Delete an album; its images stay. Raises `NotFound` and `RowVersionConflict`."""
    asked = {"user": write.user, "album": album_id, "row_version": row_version}
    gone, current = await write.finish((_DELETE[row_version is not None], asked), (_CURRENT, asked))
    if gone.rowcount == 0:
        _refuse(current, row_version)


def _album(current: Result) -> Album:
    """Give the album of `_CURRENT`. Raises `NotFound`."""
    row = current.one_or_none()
    if row is None:
        raise NotFound("album")
    return msgspec.convert(row._asdict(), Album)


def _refuse(current: Result, row_version: int | None) -> NoReturn:
    """Say why there was no album to change."""
    raise NotFound("album") if row_version is None else RowVersionConflict(_album(current))


async def _check_cover(write: Write, record: NewAlbum | AlbumPatch) -> None:
    cover = record.cover_image_id
    if isinstance(cover, UUID):
        asked = {"user": write.user, "image": cover}
        if (await write.execute(_COVER, asked)).one_or_none() is None:
            raise NotFound(faults=[Fault("cover_image_id", "there is no such image")])


def _is(stored: Album, record: NewAlbum) -> bool:
    """Whether an album is what a record asks for."""
    cover = str(record.cover_image_id) if isinstance(record.cover_image_id, UUID) else None
    description = None if record.description is UNSET else record.description
    return (stored.title, stored.description, stored.cover_image_id) == (record.title, description, cover)
