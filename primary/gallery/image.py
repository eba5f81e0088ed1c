"""An image as it is given out."""

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
