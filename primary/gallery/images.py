"""Writes of images: each one transaction, answered with the images as they are then and the user's cursor.

    saved = await create(primary, "ada", NewImage(prompt="a pool", image_url="https://…"))
    saved.image.id, saved.created, saved.cursor

Every function raises `PrimaryUnavailable` when Postgres cannot be reached. Then nothing was written, unless
the connection broke during the commit; an image with an id can be sent again without harm.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from json import dumps
from typing import Any, NoReturn
from uuid import UUID, uuid4

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from primary.cursor import Cursor
from primary.errors import InvalidValue
from primary.gallery import statements
from primary.gallery.errors import Fault, IdTaken, InvalidRecord, NotFound, RowVersionConflict
from primary.gallery.image import Image
from primary.gallery.records import ImagePatch, NewImage
from primary.postgres import Primary


@dataclass(frozen=True, slots=True)
class Saved:
    """An image that is stored. ``created`` is False where it was already, by the id that the client made."""

    image: Image
    created: bool
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class SavedBatch:
    """Images that are stored, in the order of the request. ``created`` counts those that were not already."""

    images: list[Image]
    created: int
    cursor: Cursor


@dataclass(frozen=True, slots=True)
class Changed:
    """An image as an edit left it."""

    image: Image
    cursor: Cursor


async def create(primary: Primary, user: str, record: NewImage) -> Saved:
    """Save one image. Raises `IdTaken` where its id is of an image which was never edited and yet differs."""
    try:
        saved = await create_many(primary, user, [record])
    except IdTaken as error:
        raise IdTaken(error.id) from None  # there is no batch to have a place in
    return Saved(saved.images[0], saved.created == 1, saved.cursor)


async def create_many(primary: Primary, user: str, records: Sequence[NewImage]) -> SavedBatch:
    """Save images, all or none, in one statement; those without a time keep the order of the request.

    No id may be given twice. Raises `IdTaken` for the first that is of an image which was never edited and
    yet differs.
    """
    rows = [_row(record, place) for place, record in enumerate(records)]
    stored: dict[str, Image] = {}
    created = 0
    async with _transaction(primary) as conn:
        # More than once only if one that stood in the way was deleted before it could be read.
        while missing := [row for row in rows if row["id"] not in stored]:
            asked = {"user": user, "rows": dumps(missing, ensure_ascii=False)}
            new = {row.id: _image(row) for row in await conn.execute(statements.INSERT_RETURNING, asked)}
            created += len(new)
            stored |= new
            if len(new) < len(missing):
                stored |= await _in_the_way(conn, user, [row for row in missing if row["id"] not in new])
        cursor = await primary.cursor(conn, user)
    return SavedBatch([stored[row["id"]] for row in rows], created, cursor)


async def import_many(primary: Primary, user: str, records: Sequence[NewImage]) -> tuple[int, int]:
    """Save the images whose id is not there yet, in one statement; give how many were saved and skipped."""
    rows = [_row(record, place) for place, record in enumerate(records)]
    async with _transaction(primary) as conn:
        asked = {"user": user, "rows": dumps(rows, ensure_ascii=False)}
        inserted = (await conn.execute(statements.INSERT, asked)).rowcount
    return inserted, len(rows) - inserted


async def patch(
    primary: Primary, user: str, image_id: UUID, changes: ImagePatch, *, row_version: int | None = None
) -> Changed:
    """Change what is given of an image; with ``row_version``, only if the image is still at it.

    Raises `NotFound` and `RowVersionConflict`.
    """
    async with _transaction(primary) as conn:
        update = statements.update(user, image_id, changes.given(), row_version)
        row = (await conn.execute(update)).one_or_none()
        if row is None:
            await _refuse(conn, user, image_id)
        return Changed(_image(row), await primary.cursor(conn, user))


async def delete(primary: Primary, user: str, image_id: UUID, *, row_version: int | None = None) -> Cursor:
    """Delete an image and all that hangs on it; with ``row_version``, only if the image is still at it.

    Raises `NotFound` and `RowVersionConflict`.
    """
    async with _transaction(primary) as conn:
        result = await conn.execute(statements.delete(user, image_id, row_version))
        if result.rowcount == 0:
            await _refuse(conn, user, image_id)
        return await primary.cursor(conn, user)


async def _refuse(conn: AsyncConnection, user: str, image_id: UUID) -> NoReturn:
    """Say why there was no image to change at the row version that was expected."""
    now = (await conn.execute(statements.current(user, image_id))).one_or_none()
    raise NotFound if now is None else RowVersionConflict(_image(now))


@asynccontextmanager
async def _transaction(primary: Primary) -> AsyncIterator[AsyncConnection]:
    """Run one write transaction in which a value that Postgres refuses is a fault of the record."""
    try:
        async with primary.transaction() as conn:
            yield conn
    except InvalidValue as error:
        field = error.field.removeprefix("ck_image_")  # as the naming convention has it
        raise InvalidRecord([Fault(field, "is refused by the database")]) from error


async def _in_the_way(conn: AsyncConnection, user: str, rows: list[dict[str, Any]]) -> dict[str, Image]:
    """Read the images that have the ids of ``rows``. Raises `IdTaken` for one that a retry cannot mean."""
    found = {}
    for row in await conn.execute(statements.STORED, {"user": user, "rows": dumps(rows, ensure_ascii=False)}):
        if not row.same and row.row_version == 1:
            raise IdTaken(UUID(row.id), row.n)
        found[row.id] = _image(row)
    return found


def _row(record: NewImage, place: int) -> dict[str, Any]:
    """Give a record as the statements read it, with an id in any case, to know its row again by."""
    given = {
        name: str(value) if isinstance(value, UUID | datetime) else value for name, value in record.given().items()
    }
    return {"id": str(uuid4()), **given, "n": place}


def _image(row: sa.Row[Any]) -> Image:
    values = {name: value for name, value in row._asdict().items() if name in Image.__struct_fields__}
    return Image(**values | {"meta": msgspec.Raw(values["meta"].encode())})
