"""What may be written of albums: the records, as `primary.gallery.records` has those of images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from primary.gallery import limits
from primary.gallery.errors import Fault, InvalidRecord
from primary.gallery.records import Description, Id, Record, beyond_types, repeated

Title = Annotated[str, Meta(min_length=1, max_length=limits.NAME_MAX_CHARS, examples=["Low water"])]
Caption = Annotated[str, Meta(max_length=limits.ALT_TEXT_MAX_CHARS, examples=["The pool in March"])]


class NewAlbum(Record):
    """An album to be made. With an ``id`` of the client's making it can be sent again without harm."""

    title: Title
    id: Id | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    cover_image_id: Id | UnsetType | None = UNSET


class AlbumPatch(Record):
    """What is to change of an album: at least one field."""

    title: Title | UnsetType = UNSET
    description: Description | UnsetType | None = UNSET
    cover_image_id: Id | UnsetType | None = UNSET


class NewPlace(Record):
    """An image to be put into an album."""

    image_id: Id
    caption: Caption | UnsetType | None = UNSET


class NewPlaces(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Images to be put into an album together, in this order."""

    images: Annotated[list[NewPlace], Meta(min_length=1)]


class NewCaption(Record):
    """What is said of an image in an album, and only there."""

    caption: Caption | UnsetType | None = UNSET


class PlacePatch(NewCaption):
    """What is to change of an image's place in an album: its caption, or the image that it comes before or after."""

    before: Id | UnsetType = UNSET
    after: Id | UnsetType = UNSET


class Order(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """All images of an album, in their new order."""

    image_ids: Annotated[
        list[Id],
        Meta(min_length=1, max_length=limits.ALBUM_ORDER_MAX, examples=[["3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11"]]),
    ]


def check_places(places: Sequence[NewPlace]) -> None:
    """Check images that are to be put into an album together. Raises `InvalidRecord`."""
    faults = [
        Fault(f"images[{place}].{name}", reason)
        for place, record in enumerate(places)
        for name, reason in beyond_types(record.given())
    ]
    faults += repeated([record.image_id for record in places], "images[{}].image_id")
    if faults:
        raise InvalidRecord(faults)


def check_place(patch: PlacePatch) -> PlacePatch:
    """Check what is to change of one place. Raises `InvalidRecord`."""
    given = patch.given()
    faults = [Fault(name, reason) for name, reason in beyond_types(given)]
    if not given:
        faults.append(Fault("", "names no field to change"))
    if patch.before is not UNSET and patch.after is not UNSET:
        faults.append(Fault("after", "cannot be given along with before"))
    if faults:
        raise InvalidRecord(faults)
    return patch


def check_order(order: Order) -> None:
    """Check the order of an album. Raises `InvalidRecord`."""
    if faults := repeated(order.image_ids, "image_ids[{}]"):
        raise InvalidRecord(faults)
