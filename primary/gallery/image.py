"""An image, what its owner thinks of it, and an album, as they are given out."""

from __future__ import annotations

import msgspec


class Image(msgspec.Struct, kw_only=True):
    """An image and what its owner thinks of it, as it is given out everywhere; times are ISO 8601 in UTC."""

    id: str
    prompt: str
    negative_prompt: str | None
    image_url: str
    model: str | None
    seed: int | None
    steps: int | None
    width: int | None
    height: int | None
    source: str
    persona_id: str | None
    persona_name: str | None
    alt_text: str | None
    description: str | None
    meta: msgspec.Raw
    created_at: str
    updated_at: str
    row_version: int
    is_favorite: bool = False
    rating: int | None = None
    view_count: int = 0
    o_count: int = 0
    usage_count: int = 0
    last_viewed_at: str | None = None


class Activity(msgspec.Struct, kw_only=True):
    """What the owner thinks of an image and how often it was used: the members that an image has of it."""

    id: str
    is_favorite: bool
    rating: int | None
    view_count: int
    o_count: int
    usage_count: int
    last_viewed_at: str | None


class Cover(msgspec.Struct, kw_only=True):
    """The image that an album is shown by: the chosen one, or the first in it."""

    image_id: str
    image_url: str
    alt_text: str | None


class Album(msgspec.Struct, kw_only=True):
    """An album: a named, ordered choice of images."""

    id: str
    title: str
    description: str | None
    cover_image_id: str | None
    created_at: str
    updated_at: str
    row_version: int
    image_count: int
    cover: Cover | None


class Placed(msgspec.Struct, kw_only=True):
    """An image's place in an album. Of positions only the order means something."""

    image_id: str
    position: int
    caption: str | None
    added_at: str
