"""What a reader yields: a record as it was found, or why it is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from primary.gallery.errors import Fault


@dataclass(frozen=True, slots=True)
class Found:
    """A record before it is checked.

    ``origin`` says where it was: a line, or a file's path within its folder. ``values`` has the names and
    values as they were written. ``content`` stands for the record where something does so better than its
    values: the hash of a file.
    """

    origin: str
    values: dict[str, object]
    content: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that is left out, and every fault that was found in it."""

    origin: str
    faults: Sequence[Fault]

    @classmethod
    def at(cls, origin: str, field: str, reason: str) -> Refused:
        """Refuse for one reason; ``field`` is empty where the whole record is at fault."""
        return cls(origin, (Fault(field, reason),))

    def __str__(self) -> str:
        return f"{self.origin}: {'; '.join(map(str, self.faults))}"
