"""What a request asks for: which page of which list, which image or album, in which state."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl
from uuid import UUID

from gateway.freshness import MIN_VERSION_PARAMETER
from gateway.gallery.list_parameters import UUID_TEXT, take_filters, take_listing
from gateway.problems import invalid_request
from gateway.validation import FieldError
from replica.gallery.detail import PARTS
from replica.gallery.listing import Filters, Listing
from replica.gallery.page_cursor import InvalidPageCursor, PageCursor

_ROW_VERSION = re.compile(r'(?P<quote>"?)(?P<number>[1-9][0-9]{0,18})(?P=quote)')


@dataclass(frozen=True, slots=True)
class PageAsked:
    """A page: how many images, after which, and of which list."""

    limit: int
    after: PageCursor | None
    listing: Listing = field(default_factory=Listing)


def page_asked(query: bytes, *, limit_default: int, limit_max: int, album: UUID | None = None) -> PageAsked:
    """Read a query string. Raises a `Problem` that names every parameter that is unknown, repeated or bad."""
    values, errors = _values(query)
    limit, after = _limit(values, errors, limit_default, limit_max), _cursor(values, errors)
    listing = take_listing(values, errors, album=album)
    if after is not None and not errors and after.of != listing.name:
        errors.append(FieldError("cursor", "is of another list: its filters and order go with it, unchanged"))
    _done(values, errors)
    return PageAsked(limit, after, listing)


def entries_asked(query: bytes, of: str, *, limit_default: int, limit_max: int) -> tuple[int, PageCursor | None]:
    """Read the query string of a page of what has one order, in the same way; ``of`` is what its cursors are of."""
    values, errors = _values(query)
    limit, after = _limit(values, errors, limit_default, limit_max), _cursor(values, errors)
    if after is not None and after.of != of:
        errors.append(FieldError("cursor", "is of another list"))
    _done(values, errors)
    return limit, after


_INCLUDED = ("history",)


def include_asked(query: bytes) -> tuple[str, ...]:
    """Read the query string of one image: what else is to be told of it; its history, where nothing is said."""
    if not query:
        return _INCLUDED
    values, errors = _values(query)
    text = values.pop("include", ",".join(_INCLUDED))
    parts = tuple(dict.fromkeys(text.split(","))) if text else ()
    if not all(part in PARTS for part in parts):
        errors.append(FieldError("include", f"must be some of {', '.join(PARTS)}, with commas between"))
    _done(values, errors)
    return parts


def filters_asked(query: bytes) -> Filters:
    """Read the query string of what is only filtered, in the same way."""
    values, errors = _values(query)
    filters = take_filters(values, errors)
    _done(values, errors)
    return filters


def _values(query: bytes) -> tuple[dict[str, str], list[FieldError]]:
    errors: list[FieldError] = []
    values: dict[str, str] = {}
    for name, value in parse_qsl(query.decode("latin-1"), keep_blank_values=True, errors="replace"):
        if name in values:
            errors.append(FieldError(name, "is given more than once"))
        values[name] = value
    values.pop(MIN_VERSION_PARAMETER, None)  # is looked at where freshness is
    return values, errors


def _limit(values: dict[str, str], errors: list[FieldError], default: int, most: int) -> int:
    if (text := values.pop("limit", None)) is None:
        return default
    if text.isascii() and text.isdigit() and len(text) <= 9 and 1 <= int(text) <= most:
        return int(text)
    errors.append(FieldError("limit", f"must be a whole number from 1 to {most}"))
    return default


def _cursor(values: dict[str, str], errors: list[FieldError]) -> PageCursor | None:
    if (text := values.pop("cursor", None)) is not None:
        try:
            return PageCursor.parse(text)
        except InvalidPageCursor:
            errors.append(FieldError("cursor", "must be the next_cursor of an answer, unchanged"))
    return None


def _done(values: dict[str, str], errors: list[FieldError]) -> None:
    errors += [FieldError(name, "is not a parameter of this route") for name in values]
    if errors:
        raise invalid_request(errors)


def image_id_asked(text: str) -> UUID:
    """Read the id of an image in a path. Raises a `Problem`."""
    return UUID(id_text_asked("image_id", text))


def album_id_asked(text: str) -> UUID:
    """Read the id of an album in a path. Raises a `Problem`."""
    return UUID(id_text_asked("album_id", text))


def id_text_asked(name: str, text: str) -> str:
    """Read an id in a path as replicas have it. Raises a `Problem`."""
    if not UUID_TEXT.fullmatch(text):
        raise invalid_request([FieldError(name, "must be a UUID")])
    return text.lower()


def row_version_asked(if_match: str | None) -> int | None:
    """Read an If-Match header: a row version, quoted as ETags are or bare; None for any. Raises a `Problem`."""
    if if_match is None or if_match.strip() == "*":
        return None
    if not (found := _ROW_VERSION.fullmatch(if_match.strip())) or int(found["number"]) >= 2**63:
        raise invalid_request([FieldError("If-Match", 'must be one row version, as in "3", or *')])
    return int(found["number"])
