"""Why a write of the gallery is refused.

GalleryError
├── InvalidRecord        what was sent cannot be stored; names every field at fault
├── NotFound             the user owns no such thing
├── IdTaken              the id that the client chose is another image's
└── RowVersionConflict   someone else edited first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from primary.gallery.image import Image


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
    """There is no such image."""


class IdTaken(GalleryError):
    """The id already belongs to an image with other values.

    ``id`` is the one that the client chose; ``index`` its place in a batch, from 0, None for a single image.
    """

    def __init__(self, id: UUID, index: int | None = None) -> None:  # noqa: A002
        super().__init__(f"the id {id} already belongs to an image with other values")
        self.id = id
        self.index = index


class RowVersionConflict(GalleryError):
    """The image is no longer at the row version that was expected. ``current`` is what it is now."""

    def __init__(self, current: Image) -> None:
        super().__init__(f"the image is at row version {current.row_version} now")
        self.current = current
