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
from primary.gallery.statements import activity_values, selected
from primary.write import Write

_VALUES = selected(
    {"id": "image.id::text"}
    | {name: sql for name, sql in activity_values().items() if name in Activity.__struct_fields__}
)

# The image stays until the write ends, whoever would delete it.
_CURRENT = sa.text(
    f"""
SELECT {_VALUES} FROM image
LEFT JOIN image_activity ON image_activity.user_id = image.user_id AND image_activity.image_id = image.id
WHERE image.user_id = :user AND image.id = :image FOR KEY SHARE OF image"""
)


def _upsert(column: str, value: str, otherwise: str) -> sa.TextClause:
    return sa.text(
        f"""
INSERT INTO image_activity (user_id, image_id, {column}) VALUES (:user, :image, {value})
ON CONFLICT (user_id, image_id) DO UPDATE SET {column} = {otherwise}"""
    )


_FAVORITE = _upsert("is_favorite", ":value", "excluded.is_favorite")
_TOGGLE = _upsert("is_favorite", "true", "NOT image_activity.is_favorite")
_RATING = _upsert("rating", ":value", "excluded.rating")


async def current(write: Write, image_id: UUID) -> Activity:
    """Give what is known of an image, the defaults where nothing is. The image stays there until the write ends."""
    row = (await write.execute(_CURRENT, {"user": write.user, "image": image_id})).one_or_none()
    if row is None:
        raise NotFound
    return Activity(**row._asdict())


async def set_favorite(write: Write, image_id: UUID, favorite: bool) -> Activity:
    """Make an image a favourite, or no longer."""
    now = await current(write, image_id)
    return now if now.is_favorite is favorite else await _change(write, _FAVORITE, image_id, favorite)


async def toggle_favorite(write: Write, image_id: UUID) -> Activity:
    """Make an image a favourite if it is none, and else no longer."""
    await current(write, image_id)
    return await _change(write, _TOGGLE, image_id)


async def rate(write: Write, image_id: UUID, rating: int | None) -> Activity:
    """Give an image a rating from 0 to 100, or take it away."""
    now = await current(write, image_id)
    return now if now.rating == rating else await _change(write, _RATING, image_id, rating)


async def _change(write: Write, upsert: sa.TextClause, image_id: UUID, value: Any = None) -> Activity:
    asked = {"user": write.user, "image": image_id}
    await write.execute(upsert, asked | ({"value": value} if upsert is not _TOGGLE else {}))
    return await current(write, image_id)
