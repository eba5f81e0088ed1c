"""The parameters that say which images, and in which order."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TypeVar, cast
from uuid import UUID

import msgspec

from gateway.validation import FieldError
from primary.gallery import limits
from replica.gallery.listing import ORDERS, SORTS, Filters, Listing, Order, Sort

T = TypeVar("T")

UUID_TEXT = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

FLAG = "must be true or false"
RATING = f"must be a whole number from 0 to {limits.RATING_MAX}"
MOMENT = "must be a time with its zone, as 2025-03-01T08:00:00Z (a plus is written %2B), or a day, as 2025-03-01"


def take_filters(values: dict[str, str], errors: list[FieldError], *, album: UUID | None = None) -> Filters:
    """Take the filters out of a query's parameters; what is wrong with them goes to ``errors``.

    Where the ``album`` is in the path it is no parameter.
    """

    def take(name: str, read: Callable[[str], T], must: str) -> T | None:
        if (text := values.pop(name, None)) is None:
            return None
        try:
            return read(text)
        except ValueError:
            errors.append(FieldError(name, must))
            return None

    return Filters(
        favorite=take("favorite", _flag, FLAG),
        min_rating=take("min_rating", _rating, RATING),
        album=str(album) if album is not None else take("album", _id, "must be a UUID"),
        source=take("source", str, ""),
        model=take("model", str, ""),
        q=take("q", _sought, ""),
        created_from=take("created_from", _moment, MOMENT),
        created_to=take("created_to", _moment, MOMENT),
    )


def take_listing(values: dict[str, str], errors: list[FieldError], *, album: UUID | None = None) -> Listing:
    """Take the filters and the order out of a query's parameters.

    What is searched for comes by relevance unless the client says otherwise; an album in the path in its own order.
    """
    filters = take_filters(values, errors, album=album)
    default = "relevance" if filters.q is not None else "position" if album is not None else "created_at"
    sort = _one_of("sort", SORTS, values, errors) or default
    order = _one_of("order", ORDERS, values, errors) or ("asc" if sort == "position" else "desc")
    if sort == "position" and filters.album is None:
        errors.append(FieldError("sort", "is position only within an album: give album too"))
    if sort == "relevance" and filters.q is None:
        errors.append(FieldError("sort", "is relevance only of what is searched for: give q too"))
    return Listing(filters, cast(Sort, sort), cast(Order, order))


def _one_of(name: str, choices: tuple[str, ...], values: dict[str, str], errors: list[FieldError]) -> str | None:
    text = values.pop(name, None)
    if text is not None and text not in choices:
        errors.append(FieldError(name, f"must be one of {', '.join(choices)}"))
        return None
    return text


def _flag(text: str) -> bool:
    if text not in {"true", "false"}:
        raise ValueError
    return text == "true"


_RATINGS = frozenset(map(str, range(limits.RATING_MAX + 1)))


def _rating(text: str) -> int:
    if text not in _RATINGS:
        raise ValueError
    return int(text)


def _id(text: str) -> str:
    if not UUID_TEXT.fullmatch(text):
        raise ValueError
    return str(UUID(text))


def _sought(text: str) -> str | None:
    return text if text.strip() else None  # an empty search box is none


def _moment(text: str) -> str:
    """Read a time, and write it as replicas do."""
    try:
        moment = msgspec.convert(f"{text}T00:00:00Z" if _DAY.fullmatch(text) else text, datetime)
        if moment.tzinfo is None:
            raise ValueError
        return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
    except (msgspec.ValidationError, OverflowError):
        raise ValueError from None
