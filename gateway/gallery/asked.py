"""What a request for images asks for: which page, which image, in which state."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl
from uuid import UUID

from gateway.freshness import MIN_VERSION_PARAMETER
from gateway.problems import invalid_request
from gateway.validation import FieldError
from replica.gallery.images import InvalidPageCursor, PageCursor

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_ROW_VERSION = re.compile(r'(?P<quote>"?)(?P<number>[1-9][0-9]{0,18})(?P=quote)')


@dataclass(frozen=True, slots=True)
class PageAsked:
    """A page: how many images, and after which."""

    limit: int
    after: PageCursor | None


def page_asked(query: bytes, *, limit_default: int, limit_max: int) -> PageAsked:
    """Read a query string. Raises a `Problem` that names every parameter that is unknown, repeated or bad."""
    errors: list[FieldError] = []
    values: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace"):
        if name in values:
            errors.append(FieldError(name, "is given more than once"))
        values[name] = value
    values.pop(MIN_VERSION_PARAMETER, None)  # is looked at where freshness is
    limit, after = limit_default, None
    if (text := values.pop("limit", None)) is not None:
        if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= limit_max:
            limit = int(text)
        else:
            errors.append(FieldError("limit", f"must be a whole number from 1 to {limit_max}"))
    if (text := values.pop("cursor", None)) is not None:
        try:
            after = PageCursor.parse(text)
        except InvalidPageCursor:
            errors.append(FieldError("cursor", "must be the next_cursor of an answer, unchanged"))
    errors += [FieldError(name, "is not a parameter of this route") for name in values]
    if errors:
        raise invalid_request(errors)
    return PageAsked(limit, after)


def image_id_asked(text: str) -> UUID:
    """Read the id of an image in a path. Raises a `Problem`."""
    return _id_asked("image_id", text)


def album_id_asked(text: str) -> UUID:
    """Read the id of an album in a path. Raises a `Problem`."""
    return _id_asked("album_id", text)


def _id_asked(name: str, text: str) -> UUID:
    if not _UUID.fullmatch(text):
        raise invalid_request([FieldError(name, "must be a UUID")])
    return UUID(text)


def row_version_asked(if_match: str | None) -> int | None:
    """Read an If-Match header: a row version, quoted as ETags are or bare; None for any. Raises a `Problem`."""
    if if_match is None or if_match.strip() == "*":
        return None
    if not (found := _ROW_VERSION.fullmatch(if_match.strip())) or int(found["number"]) >= 2**63:
        raise invalid_request([FieldError("If-Match", 'must be one row version, as in "3", or *')])
    return int(found["number"])
