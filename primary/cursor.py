"""The cursor: one user's position in one primary's history."""

from __future__ import annotations

import re
from dataclasses import dataclass

from primary.errors import EpochMismatch, InvalidCursor

VERSION_MAX = 2**63 - 1
_TEXT = re.compile(r"([0-9a-f]{1,16}(?:-[0-9a-f]{1,8}){3})\.(0|[1-9][0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Cursor:
    """Names a committed state of one user's rows: the ``version``-th of the primary called ``epoch``.

    The epoch is the primary's identity (see `primary.postgres`); the version is a number that each transaction which
    touches the user's rows raises, by one for each of its statements that does.

    >>> c = Cursor.parse("6b0133b5e2a0f855-1-5-4001.42")
    >>> c.version, str(c)
    (42, '6b0133b5e2a0f855-1-5-4001.42')
    >>> c < Cursor(c.epoch, 43)
    True

    Only text that it would print itself is a cursor:

    >>> for bad in (
    ...     "",
    ...     "42",
    ...     "6b-1-5-1.042",
    ...     "6b-1-5-1.-1",
    ...     "6b-1-5-1.1 ",
    ...     "6B-1-5-1.1",
    ...     "6b-1-5-1.9999999999999999999",
    ... ):
    ...     try:
    ...         Cursor.parse(bad)
    ...     except InvalidCursor:
    ...         pass
    ...     else:
    ...         print("took", bad)

    Cursors of different epochs have no order:

    >>> c < Cursor("6b0133b5e2a0f855-2-5-4001", 43)
    Traceback (most recent call last):
    primary.errors.EpochMismatch: 6b0133b5e2a0f855-1-5-4001 and 6b0133b5e2a0f855-2-5-4001 are different epochs
    """

    epoch: str
    version: int

    @classmethod
    def parse(cls, text: str) -> Cursor:
        """Read a cursor from its text. Raises `InvalidCursor` for any text that `str` does not produce."""
        match = _TEXT.fullmatch(text)
        if match is None or int(match[2]) > VERSION_MAX:
            shown = text if len(text) <= 80 else text[:77] + "..."
            raise InvalidCursor(f"{shown!r} is not a cursor")
        return cls(match[1], int(match[2]))

    def __str__(self) -> str:
        return f"{self.epoch}.{self.version}"

    def covers(self, other: Cursor) -> bool:
        """Say whether who is here has seen all that was there: the same history, and no earlier in it.

        >>> here, elsewhere = Cursor("6b-1-5-1", 42), Cursor("6b-2-5-1", 1)
        >>> here.covers(here), here.covers(Cursor("6b-1-5-1", 43)), here.covers(elsewhere)
        (True, False, False)
        """
        return self.epoch == other.epoch and self.version >= other.version

    def _versions(self, other: Cursor) -> tuple[int, int]:
        if self.epoch != other.epoch:
            raise EpochMismatch(f"{self.epoch} and {other.epoch} are different epochs")
        return self.version, other.version

    def __lt__(self, other: Cursor) -> bool:
        mine, theirs = self._versions(other)
        return mine < theirs

    def __le__(self, other: Cursor) -> bool:
        mine, theirs = self._versions(other)
        return mine <= theirs

    def __gt__(self, other: Cursor) -> bool:
        return other < self

    def __ge__(self, other: Cursor) -> bool:
        return other <= self
