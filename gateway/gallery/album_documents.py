"""How the answers about albums are described to clients, with examples that could be real."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_type_hints

import msgspec
from litestar.openapi.spec import Example, RequestBody

from gateway.gallery.documents import IMAGE, told
from gateway.once import WriteOperation
from gateway.openapi import problem_spec
from primary.gallery.image import Album, Placed

ALBUM: dict[str, Any] = {
    "id": "b3c1d5a0-40f5-4f0e-8e0a-2f2b5d1f7a10",
    "title": "Low water",
    "description": None,
    "cover_image_id": IMAGE["id"],
    "created_at": "2025-03-01T08:00:00.000000Z",
    "updated_at": "2025-03-01T08:00:00.000000Z",
    "row_version": 1,
    "image_count": 12,
    "cover": {"image_id": IMAGE["id"], "image_url": IMAGE["image_url"], "alt_text": IMAGE["alt_text"]},
}
PLACE: dict[str, Any] = {
    "image_id": IMAGE["id"],
    "position": 1_024,
    "caption": "The pool in March",
    "added_at": "2025-03-01T08:00:00.000000Z",
}

ChangedAlbumAnswer: Any = msgspec.defstruct("ChangedAlbumAnswer", [*get_type_hints(Album).items(), ("version", str)])
PlaceAnswer: Any = msgspec.defstruct(
    "PlaceAnswer", [("album_id", str), *get_type_hints(Placed).items(), ("version", str)]
)


@dataclass
class PlaceEdit(WriteOperation):
    """The edit of a place, of whose members not all go together."""

    def __post_init__(self) -> None:
        if isinstance(self.request_body, RequestBody):
            for content in self.request_body.content.values():
                value = {"caption": PLACE["caption"], "after": IMAGE["id"]}
                content.examples = {"caption and move": Example(value=value)}
        super().__post_init__()


class PlacesAnswer(msgspec.Struct):
    """Places of images in an album. Of positions only the order means something."""

    album_id: str
    images: list[Placed]
    version: str


class AlbumGoneAnswer(msgspec.Struct):
    """Which album is gone, and from which version on."""

    id: str
    version: str


class PlaceGoneAnswer(msgspec.Struct):
    """Which image is no longer in which album, and from which version on."""

    album_id: str
    image_id: str
    version: str


_HERE = {"album_id": ALBUM["id"]}

MADE = told(ChangedAlbumAnswer, "The album as it is stored.", ALBUM | {"image_count": 0})
MADE_BEFORE = told(ChangedAlbumAnswer, "The album as it is stored: its id was there before.", ALBUM)
CHANGED = told(ChangedAlbumAnswer, "The album as it is now.", ALBUM | {"row_version": 2})
DELETED = told(AlbumGoneAnswer, "The album is gone, and its images are still there.", {"id": ALBUM["id"]})
PUT_TOGETHER = told(PlacesAnswer, "Where the images are in the album.", _HERE | {"images": [PLACE]})
PUT = told(PlaceAnswer, "Where the image is in the album.", _HERE | PLACE)
PUT_BEFORE = told(PlaceAnswer, "Where the image is in the album, as it was before.", _HERE | PLACE)
MOVED = told(PlaceAnswer, "Where the image is in the album now.", _HERE | PLACE)
ORDERED = told(PlacesAnswer, "All images of the album in their order.", _HERE | {"images": [PLACE]})
TAKEN_OUT = told(PlaceGoneAnswer, "The image is no longer in the album.", _HERE | {"image_id": IMAGE["id"]})

NOT_FOUND = problem_spec(404, "not_found", "there is no such album")
ID_TAKEN = problem_spec(409, "id_taken", "the id … already belongs to an album with other values")
CONFLICT = problem_spec(412, "row_version_conflict", "the album is at row version 4 now")
INCOMPLETE = problem_spec(409, "order_incomplete", "the order leaves out 2 of the album's images")
