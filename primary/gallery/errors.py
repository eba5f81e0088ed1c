"""Why a write of the gallery is refused.

GalleryError
├── InvalidRecord        what was sent cannot be stored; names every field at fault
├── NotFound             the user owns no such thing
├── IdTaken              the id that the client chose is another thing's
├── EventTaken           the client's id of an event is another event's
├── RowVersionConflict   someone else edited first
└── OrderIncomplete      an album's new order leaves images out that are in it
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from primary.errors import InvalidValue
from primary.gallery.image import Album, Image


class GalleryError(Exception):
    """A write of the gallery is refused; nothing was written."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one field. ``field`` is its path, `images[3].prompt`, or empty for the whole."""

    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


class InvalidRecord(GalleryError, ValueError):
    """What was sent cannot be stored. ``faults`` names every field at fault."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("; ".join(map(str, faults)))
        self.faults = tuple(faults)


class NotFound(GalleryError):
    """There is no such thing. ``what`` it was to be; ``faults`` name the places, where the request had several."""

    def __init__(self, what: str = "image", faults: Sequence[Fault] = ()) -> None:
        super().__init__(f"there is no such {what}")
        self.faults = tuple(faults)


class IdTaken(GalleryError):
    """The id already belongs to something else.

    ``id`` is the one that the client chose for ``what``; ``index`` its place in a batch, from 0, None for a single one.
    """

    def __init__(self, id: UUID, index: int | None = None, *, what: str = "image") -> None:  # noqa: A002
        article = "an" if what[0] in "aeiou" else "a"
        super().__init__(f"the id {id} already belongs to {article} {what} with other values")
        self.id = id
        self.index = index


class EventTaken(GalleryError):
    """The client_event_id already belongs to another event."""


class RowVersionConflict(GalleryError):
    """What was to be changed is no longer at the row version that was expected.

    ``current`` is what it is now: one image or album, or of a bulk edit each image at fault; then ``faults`` name
    their places.
    """

    def __init__(self, current: Image | Album | Sequence[Image], faults: Sequence[Fault] = ()) -> None:
        if isinstance(current, Image | Album):
            what = "image" if isinstance(current, Image) else "album"
            super().__init__(f"the {what} is at row version {current.row_version} now")
        else:
            super().__init__("; ".join(map(str, faults)))
        self.current = current
        self.faults = tuple(faults)


class OrderIncomplete(GalleryError):
    """The order names fewer images than the album has. ``missing`` counts those that it leaves out."""

    def __init__(self, missing: int) -> None:
        super().__init__(f"the order leaves out {missing} of the album's images")
        self.missing = missing


def refused(error: InvalidValue) -> InvalidRecord:
    """Give the fault of a record that the database found: its check constraints are named after table and column.

    >>> refused(InvalidValue("ck_album_image_caption", "breaks a rule", table="album_image")).faults
    (Fault(field='caption', reason='breaks a rule'),)
    """
    return InvalidRecord([Fault(error.field.removeprefix(f"ck_{error.table}_"), error.reason)])
