"""Where a page ended: what the client hands back to have the next one."""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

_MOMENT = r"(?:[0-9]{4,6}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}Z(?: BC)?|-?infinity)"
_ID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_KEY = re.compile(rf"{_MOMENT}\t{_ID}(?:\t[0-9a-f]{{10}}\t[0-9](?:\t(?:[0-9]{{1,19}}|{_MOMENT}))?)?")
"""created_at and id; then, unless it is the plain list's, which list, which stretch of it, and the value there."""

_INTEGER_MAX = 2**63 - 1


class InvalidPageCursor(ValueError):
    """The text is not a cursor that a page was answered with."""


@dataclass(frozen=True, slots=True)
class PageCursor:
    """A place in a list of images: right after the image ``id`` that was made at ``created_at``.

    ``of`` names the list, by its filters and its order (empty: all images by ``created_at``); a list that is not
    ordered by ``created_at`` alone has stretches, and in them an order by a ``value`` that comes first.
    It names values, not a count: pages stay whole while images arrive, change and go.

    >>> cursor = PageCursor("2025-03-01T08:00:00.000000Z", "00000000-0000-4000-8000-000000000001")
    >>> PageCursor.parse(str(cursor)) == cursor
    True
    >>> rated = PageCursor(cursor.created_at, cursor.id, of="0123456789", stretch=0, value=80)
    >>> PageCursor.parse(str(rated)) == rated
    True

    Only text that it would print itself is a cursor:

    >>> for bad in ("", "42", "é", str(cursor) + "=", str(cursor) + "A", str(cursor)[:-1]):
    ...     try:
    ...         PageCursor.parse(bad)
    ...     except InvalidPageCursor:
    ...         pass
    ...     else:
    ...         print("took", bad)
    """

    created_at: str
    id: str
    of: str = ""
    stretch: int = 0
    value: int | str | None = None

    @classmethod
    def parse(cls, text: str) -> PageCursor:
        """Read a cursor from its text. Raises `InvalidPageCursor` for any text that `str` does not produce."""
        try:
            key = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4)).decode("ascii")
        except ValueError:
            raise InvalidPageCursor from None
        if not _KEY.fullmatch(key):
            raise InvalidPageCursor
        created_at, id_, *rest = key.split("\t")
        cursor = cls(created_at, id_)
        if rest:
            of, stretch, *values = rest
            value = values[0] if values else None
            cursor = cls(created_at, id_, of, int(stretch), int(value) if value and value.isdigit() else value)
        if str(cursor) != text or (isinstance(cursor.value, int) and cursor.value > _INTEGER_MAX):
            raise InvalidPageCursor
        return cursor

    def __str__(self) -> str:
        parts = [self.created_at, self.id]
        if self.of:
            parts += [self.of, str(self.stretch)]
            if self.value is not None:
                parts.append(str(self.value))
        return urlsafe_b64encode("\t".join(parts).encode()).decode().rstrip("=")
