"""Edits and deletions of many images in one write: all of them, or none, with each that cannot be made named.

Both are one statement, so that their user's version moves by one however many images they touch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn
from uuid import UUID

import sqlalchemy as sa

from primary.gallery.errors import Fault, NotFound, RowVersionConflict
from primary.gallery.image import Image
from primary.gallery.images import image_of
from primary.gallery.records import ImageChange, ImagePatch
from primary.gallery.statements import activity_values, as_rows, selected, type_sql, values_of
from primary.gallery.tables import image
from primary.write import Write

_FIELDS = ImagePatch.__struct_fields__
_TYPES = ", ".join(f"{name} {type_sql(image.c[name])}" for name in _FIELDS)
_SET = ", ".join(f"{name} = CASE WHEN '{name}' = ANY (r.given) THEN r.{name} ELSE image.{name} END" for name in _FIELDS)
_ACTIVITY = """LEFT JOIN image_activity
  ON image_activity.user_id = {0}.user_id AND image_activity.image_id = {0}.id"""

_UPDATE = sa.text(
    f"""
WITH changed AS (
  UPDATE image SET {_SET}
  FROM json_to_recordset(CAST(:rows AS json)) AS r(n int, id uuid, row_version bigint, given text[], {_TYPES})
  WHERE image.user_id = :user AND image.id = r.id
    AND (r.row_version IS NULL OR r.row_version = image.row_version)
  RETURNING r.n, image.*
)
SELECT changed.n, {selected(values_of("image", "changed") | activity_values())}
FROM changed {_ACTIVITY.format("changed")} ORDER BY changed.n"""
)

_FIND = sa.text(
    f"""
SELECT {selected(values_of("image", "image") | activity_values())}
FROM image {_ACTIVITY.format("image")} WHERE image.user_id = :user AND image.id = ANY (:ids)"""
)

_DELETE = sa.text("DELETE FROM image WHERE user_id = :user AND id = ANY (:ids) RETURNING id")


async def patch_many(write: Write, changes: Sequence[ImageChange]) -> list[Image]:
    """Make every edit, each on an image of its own; give the images in the order of the request.

    Raises `NotFound` where some are not there, else `RowVersionConflict` where some are at another row version than
    was expected; both name every edit that cannot be made by its place.
    """
    rows = [_row(change, place) for place, change in enumerate(changes)]
    asked = {"user": write.user, "rows": as_rows(rows)}
    made = {row.n: image_of(row) for row in await write.execute(_UPDATE, asked)}
    if len(made) < len(changes):
        await _refuse(write, {place: change.id for place, change in enumerate(changes) if place not in made})
    return [made[place] for place in range(len(changes))]


async def delete_many(write: Write, ids: Sequence[UUID]) -> None:
    """Delete images and all that hangs on them. Raises `NotFound`, naming each that is not there by its place."""
    gone = {row.id for row in await write.execute(_DELETE, {"user": write.user, "ids": list(ids)})}
    if len(gone) < len(ids):
        missing = (place for place, one in enumerate(ids) if one not in gone)
        raise NotFound(faults=[Fault(f"ids[{place}]", "there is no such image") for place in missing])


async def _refuse(write: Write, not_made: dict[int, UUID]) -> NoReturn:
    """Say of each edit, by its place, why it could not be made."""
    found = await write.execute(_FIND, {"user": write.user, "ids": list(not_made.values())})
    there = {UUID(row.id): image_of(row) for row in found}
    faults = [
        Fault(f"images[{place}]", f"the image is at row version {there[one].row_version} now")
        if one in there
        else Fault(f"images[{place}]", "there is no such image")
        for place, one in not_made.items()
    ]
    if len(there) < len(not_made):
        raise NotFound(faults=faults)
    raise RowVersionConflict([there[one] for one in not_made.values()], faults)


def _row(change: ImageChange, place: int) -> dict[str, Any]:
    changes = change.changes()
    row = {"n": place, "id": str(change.id), "given": list(changes), **changes}
    return row | ({"row_version": change.row_version} if "row_version" in change.given() else {})
