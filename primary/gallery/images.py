"""Writes of single images and the saving of many: each within a `Write`, answered with the images as they are then.

async with writing(primary, "ada") as write:
    saved = await create(write, NewImage(prompt="a pool", image_url="https://…"))
saved.image.id, saved.created
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC
from typing import Any, NoReturn
from uuid import UUID, uuid4

import msgspec

from primary.errors import InvalidValue
from primary.gallery import statements
from primary.gallery.errors import IdTaken, NotFound, RowVersionConflict, refused
from primary.gallery.image import Image
from primary.gallery.records import ImagePatch, NewImage
from primary.patience import patience
from primary.postgres import Primary
from primary.transaction import BoundStatement, Result, as_psycopg_takes_it
from primary.write import Write


@dataclass(frozen=True, slots=True)
class Saved:
    """An image that is stored. ``created`` is False where it was already, by the id that the client made."""

    image: Image
    created: bool


@dataclass(frozen=True, slots=True)
class SavedBatch:
    """Images that are stored, in the order of the request. ``created`` counts those that were not already."""

    images: list[Image]
    created: int


@dataclass(frozen=True, slots=True)
class Many:
    """Images to be saved by one statement, and ``rows``, which is what it reads of them. From any thread."""

    records: Sequence[NewImage]
    rows: str

    @classmethod
    def of(cls, records: Sequence[NewImage]) -> Many:
        """Make the rows."""
        return cls(records, statements.as_rows([_row(record, place) for place, record in enumerate(records)]))


async def create(write: Write, record: NewImage) -> Saved:
    """Save one image. Raises `IdTaken` where its id is of an image which was never edited and yet differs."""
    try:
        saved = await create_many(write, [record])
    except IdTaken as error:
        raise IdTaken(error.id) from None  # there is no batch to have a place in
    return Saved(saved.images[0], saved.created == 1)


async def create_many(write: Write, records: Sequence[NewImage]) -> SavedBatch:
    """Save images, in one statement; those without a time keep the order of the request.

    No id may be given twice. Raises `IdTaken` for the first that is of an image which was never edited and
    yet differs.
    """
    rows = [_row(record, place) for place, record in enumerate(records)]
    stored: dict[str, Image] = {}
    created = 0
    # More than once only if one that stood in the way was deleted before it could be read.
    while missing := [row for row in rows if row["id"] not in stored]:
        insert = statements.INSERT_RETURNING, {"user": write.user, "rows": statements.as_rows(missing)}
        # Of one alone, what is refused has changed nothing; of more, some may have been stored.
        (made,) = await write.finish(insert) if len(rows) == 1 else [await write.execute(*insert)]
        new = {row.id: image_of(row) for row in made}
        created += len(new)
        stored |= new
        if len(new) < len(missing):
            stored |= await _in_the_way(write, [row for row in missing if row["id"] not in new])
    return SavedBatch([stored[row["id"]] for row in rows], created)


async def import_many(primary: Primary, user: str, images: Many) -> tuple[int, int]:
    """Save the images whose id is not there yet, in one statement; give how many were saved and skipped.

    It is a transaction by itself, which takes no turn: who uses the gallery meanwhile need not wait for it.
    Raises `InvalidRecord` where the database refuses a value, and as `Primary.transaction` does.
    """
    sql, values = as_psycopg_takes_it((statements.INSERT, {"user": user, "rows": images.rows}))
    try:
        async with primary.connection() as lent, patience(primary.answer_timeout_s):
            inserted = (await lent.execute(sql.encode(), values)).rowcount
    except InvalidValue as error:
        raise refused(error) from error
    return inserted, len(images.records) - inserted


async def patch(write: Write, image_id: UUID, changes: ImagePatch, *, row_version: int | None = None) -> Image:
    """Change what is given of an image; with ``row_version``, only if the image is still at it.

    Raises `NotFound` and `RowVersionConflict`.
    """
    given = changes.given()
    update = statements.update(tuple(given), conditional=row_version is not None)
    asked = {"user": write.user, "image": image_id, "row_version": row_version}
    changed, *now = await write.finish((update, asked | statements.as_given(given)), *_now(asked))
    row = changed.one_or_none()
    if row is None:
        _refuse(now)
    return image_of(row)


async def delete(write: Write, image_id: UUID, *, row_version: int | None = None) -> None:
    """Delete an image and all that hangs on it; with ``row_version``, only if the image is still at it.

    Raises `NotFound` and `RowVersionConflict`.
    """
    asked = {"user": write.user, "image": image_id, "row_version": row_version}
    gone, *now = await write.finish((statements.DELETE[row_version is not None], asked), *_now(asked))
    if gone.rowcount == 0:
        _refuse(now)


def image_of(row: Any) -> Image:
    """Give the image of a row that has an image's values, and maybe others."""
    values = {name: value for name, value in row._asdict().items() if name in Image.__struct_fields__}
    return Image(**values | {"meta": msgspec.Raw(values["meta"].encode())})


def _now(asked: dict[str, Any]) -> list[BoundStatement]:
    """Give what has to be looked at to say why there was no image to change; without a row version, nothing."""
    return [] if asked["row_version"] is None else [(statements.CURRENT, asked)]


def _refuse(now: list[Result]) -> NoReturn:
    row = now[0].one_or_none() if now else None
    raise NotFound if row is None else RowVersionConflict(image_of(row))


async def _in_the_way(write: Write, rows: list[dict[str, Any]]) -> dict[str, Image]:
    """Read the images that have the ids of ``rows``. Raises `IdTaken` for one that a retry cannot mean."""
    found = {}
    asked = {"user": write.user, "rows": statements.as_rows(rows)}
    for row in await write.execute(statements.STORED, asked):
        if not row.same and row.row_version == 1:
            raise IdTaken(UUID(row.id), row.n)
        found[row.id] = image_of(row)
    return found


def _row(record: NewImage, place: int) -> dict[str, Any]:
    """Give a record as the statements read it, with an id in any case, to know its row again by."""
    row = record.given()
    row["id"] = str(row["id"] if "id" in row else uuid4())
    row["n"] = place
    if "created_at" in row:  # Postgres reads no zone that is 16 hours or more from UTC, and RFC 3339 has those up to 24
        row["created_at"] = row["created_at"].astimezone(UTC)
    return row
