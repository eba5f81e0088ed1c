"""Writes of what the owner thinks of an image: the heart, and the rating.

    activity = await set_favorite(write, image_id, True)
    activity = await toggle_favorite(write, image_id)
    activity = await rate(write, image_id, 85)

A row of activity comes into being when there is something to keep. Who sets what is so already changes nothing, and
the user's version stays. All raise `NotFound`.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import sqlalchemy as sa

from primary.gallery.errors import NotFound
from primary.gallery.image import Activity
from primary.gallery.statements import activity_values, default_sql, selected, type_sql
from primary.gallery.tables import image_activity
from primary.transaction import Result
from primary.write import Write

_VALUES = selected(
    {"id": "image.id::text"}
    | {name: sql for name, sql in activity_values().items() if name in Activity.__struct_fields__}
)

CURRENT = sa.text(
    f"""
SELECT {_VALUES} FROM image
LEFT JOIN image_activity ON image_activity.user_id = image.user_id AND image_activity.image_id = image.id
WHERE image.user_id = :user AND image.id = :image"""
)
"""Give what is known of ``:image``, the defaults where nothing is; no row where there is no such image."""

OF_IMAGE = "FROM image WHERE image.user_id = :user AND image.id = :image"
"""Of a SELECT that puts a row in which belongs to ``:image``, if it is there; with `STAYS` at its end."""

STAYS = "FOR KEY SHARE OF image"
"""The image stays until the write ends, whoever would delete it."""


def _set(column: sa.Column[Any]) -> sa.TextClause:
    """Set a column to ``:value``, if it is not so already: what no row says is the default."""
    name, default = column.name, default_sql(column) or "NULL"
    given = f"CAST(:value AS {type_sql(column)})"
    return sa.text(
        f"""
INSERT INTO image_activity (user_id, image_id, {name})
SELECT image.user_id, image.id, {given} {OF_IMAGE} AND ({given} IS DISTINCT FROM {default} OR EXISTS (
  SELECT FROM image_activity WHERE user_id = :user AND image_id = :image)) {STAYS}
ON CONFLICT (user_id, image_id) DO UPDATE SET {name} = excluded.{name}
WHERE image_activity.{name} IS DISTINCT FROM excluded.{name}"""
    )


_FAVORITE = _set(image_activity.c.is_favorite)
_RATING = _set(image_activity.c.rating)
_TOGGLE = sa.text(
    f"""
INSERT INTO image_activity (user_id, image_id, is_favorite) SELECT image.user_id, image.id, true {OF_IMAGE} {STAYS}
ON CONFLICT (user_id, image_id) DO UPDATE SET is_favorite = NOT image_activity.is_favorite"""
)


async def set_favorite(write: Write, image_id: UUID, favorite: bool) -> Activity:
    """Make an image a favourite, or no longer."""
    return await _change(write, _FAVORITE, image_id, value=favorite)


async def toggle_favorite(write: Write, image_id: UUID) -> Activity:
    """Make an image a favourite if it is none, and else no longer."""
    return await _change(write, _TOGGLE, image_id)


async def rate(write: Write, image_id: UUID, rating: int | None) -> Activity:
    """Give an image a rating from 0 to 100, or take it away."""
    return await _change(write, _RATING, image_id, value=rating)


def activity_of(current: Result) -> Activity:
    """Give what `CURRENT` gave. Raises `NotFound`."""
    row = current.one_or_none()
    if row is None:
        raise NotFound
    return Activity(**row._asdict())


async def _change(write: Write, upsert: sa.TextClause, image_id: UUID, **value: Any) -> Activity:
    asked = {"user": write.user, "image": image_id}
    _, current = await write.finish((upsert, asked | value), (CURRENT, asked))
    return activity_of(current)
