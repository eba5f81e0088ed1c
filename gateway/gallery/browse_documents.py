"""How what is browsed is described to clients: lists, facets, details, albums."""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.gallery.documents import FIELDS, IMAGE, told
from primary.gallery.image import Album

ALBUM_ID = "0a9d3b5e-52cf-4f0e-8a3c-1f5b8f3f7d20"

_EDIT = {
    "id": "5d2f6c1e-0c9f-4c0b-9a35-6c3f0f4f8e11",
    "image_id": IMAGE["id"],
    "field": "alt_text",
    "old_value": None,
    "new_value": "A tide pool with anemones at dawn",
    "edited_by": "ann",
    "edited_at": "2025-03-02T09:00:00.000000Z",
}
_EVENT = {
    "id": "c0a8d1f4-3b8e-4b7e-8a57-0b8f0f0c7a21",
    "image_id": IMAGE["id"],
    "kind": "view",
    "occurred_at": "2025-03-02T09:05:00.000000Z",
    "client_event_id": None,
}
_PLACE = {"position": 3, "caption": "Where we swam", "added_at": "2025-03-02T09:10:00.000000Z"}
_ALBUM = {
    "id": ALBUM_ID,
    "title": "Tide pools",
    "description": None,
    "cover_image_id": None,
    "created_at": "2025-03-01T08:00:00.000000Z",
    "updated_at": "2025-03-01T08:00:00.000000Z",
    "row_version": 1,
    "image_count": 12,
    "cover": {"image_id": IMAGE["id"], "image_url": IMAGE["image_url"], "alt_text": IMAGE["alt_text"]},
}


class Edit(msgspec.Struct):
    """One field of an image that was changed: from what to what, by whom and when."""

    id: str
    image_id: str
    field: str
    old_value: Any
    new_value: Any
    edited_by: str | None
    edited_at: str


class Event(msgspec.Struct):
    """One view, count or use of an image, and when it was."""

    id: str
    image_id: str
    kind: str
    occurred_at: str
    client_event_id: str | None


class Edits(msgspec.Struct):
    """The latest edits. ``next_cursor`` asks for those before; null at the end."""

    entries: list[Edit]
    next_cursor: str | None


class Events(msgspec.Struct):
    """The latest events. ``next_cursor`` asks for those before; null at the end."""

    entries: list[Event]
    next_cursor: str | None


class EditsAnswer(Edits):
    """The same, and which version was read."""

    version: str


class EventsAnswer(Events):
    """The same, and which version was read."""

    version: str


class Place(msgspec.Struct):
    """An album that an image is in, and what it is there."""

    id: str
    title: str
    position: int
    caption: str | None
    added_at: str


class AlbumAnswer(Album):
    """The same, and which version was read."""

    version: str


class AlbumsAnswer(msgspec.Struct):
    """Some albums, the newest first. ``next_cursor`` asks for those that follow; null at the end."""

    albums: list[Album]
    next_cursor: str | None
    version: str


class Count(msgspec.Struct):
    """How many images have a value."""

    value: str
    count: int


class AlbumCount(msgspec.Struct):
    """How many of the images are in an album."""

    id: str
    title: str
    count: int


class FacetsAnswer(msgspec.Struct):
    """How many images there are, and how many of each kind: the most frequent models, sources and albums."""

    total: int
    favorites: int
    models: list[Count]
    sources: list[Count]
    albums: list[AlbumCount]
    version: str


_Unset = msgspec.UnsetType
FoundAnswer = msgspec.defstruct(
    "FoundAnswer",
    [
        *FIELDS,
        ("version", str),
        ("history", Edits | _Unset, msgspec.UNSET),
        ("events", Events | _Unset, msgspec.UNSET),
        ("albums", list[Place] | _Unset, msgspec.UNSET),
    ],
)
PlacedImage = msgspec.defstruct("PlacedImage", [*FIELDS, ("position", int), ("caption", str | None), ("added_at", str)])


class AlbumPageAnswer(msgspec.Struct):
    """Some images of an album, in its order. ``next_cursor`` asks for those that follow; null at the end."""

    images: list[PlacedImage]  # type: ignore[valid-type]
    next_cursor: str | None
    version: str


FOUND = told(
    FoundAnswer,
    "The image, with what of its details was asked for.",
    IMAGE
    | {
        "history": {"entries": [_EDIT], "next_cursor": None},
        "events": {"entries": [_EVENT], "next_cursor": None},
        "albums": [{"id": ALBUM_ID, "title": "Tide pools"} | _PLACE],
    },
)
HISTORY = told(EditsAnswer, "What was changed of the image.", {"entries": [_EDIT], "next_cursor": None})
EVENTS = told(EventsAnswer, "What was done with the image.", {"entries": [_EVENT], "next_cursor": None})
ALBUM = told(AlbumAnswer, "The album.", _ALBUM)
ALBUMS = told(AlbumsAnswer, "A page of albums, the newest first.", {"albums": [_ALBUM], "next_cursor": None})
ALBUM_PAGE = told(
    AlbumPageAnswer, "A page of the album's images, in its order.", {"images": [IMAGE | _PLACE], "next_cursor": None}
)
FACETS = told(
    FacetsAnswer,
    "The counts.",
    {
        "total": 120,
        "favorites": 12,
        "models": [{"value": "sdxl-1.0", "count": 80}],
        "sources": [{"value": "message_response", "count": 120}],
        "albums": [{"id": ALBUM_ID, "title": "Tide pools", "count": 12}],
    },
)
