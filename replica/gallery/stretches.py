"""Which stretches a list has, and what each asks of its images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from replica.gallery.keys import VALUES
from replica.gallery.listing import Filters, Listing
from replica.gallery.search import Expressions, expressions

_KEPT_MAX_CHARS = 300
"""Of the texts of a list that is remembered: a search as long as a request's head would take 400 KB, and comes once."""

_LAST_EITHER_WAY = {"rating", "last_viewed_at"}  # the images that have none; but a count of 0 is a count


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of a list that is in one order: by the value that is named, or by ``created_at`` alone.

    ``without`` names a value that its images have not. Of a search it has the images whose own texts ``match``, and if
    ``titled`` also those in albums whose titles do; but none that matches ``less``, for those are of an earlier one.
    """

    value: str = ""
    without: str = ""
    match: str = ""
    less: str = ""
    titled: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A list as it is read: its stretches in order, and its filters as names of conditions and the values for them."""

    name: str
    stretches: tuple[Stretch, ...]
    descending: bool
    conditions: frozenset[str]
    values: dict[str, Any]
    search: Expressions | None

    @classmethod
    def of(cls, listing: Listing) -> Asked:
        """Read what is asked for. There is no stretch where nothing can be found."""
        filters = listing.filters
        long = sum(len(text) for text in (filters.q, filters.source, filters.model) if text) > _KEPT_MAX_CHARS
        return _read(listing) if long else _read_and_kept(listing)


def _read(listing: Listing) -> Asked:
    conditions, values = conditions_of(listing.filters)
    q = listing.filters.q
    search = expressions(q) if q is not None else None
    stretches = _stretches(listing, search)
    if q is not None and search is None:
        stretches = ()
    return Asked(listing.name, stretches, listing.order == "desc", conditions, values, search)


_read_and_kept = lru_cache(maxsize=1_000)(_read)


def conditions_of(filters: Filters) -> tuple[frozenset[str], dict[str, Any]]:
    """Give the filters but for the search, as names of conditions and the values for them."""
    values: dict[str, Any] = filters.given()
    values.pop("q", None)
    names = {"not favorite" if name == "favorite" and not value else name for name, value in values.items()}
    values.pop("favorite", None)
    return frozenset(names), values


def _stretches(listing: Listing, search: Expressions | None) -> tuple[Stretch, ...]:
    sort, descending = listing.sort, listing.order == "desc"
    if sort == "relevance" and search is not None:
        levels = (
            Stretch(match=search.in_a_row),
            Stretch(match=search.said, less=search.in_a_row),
            Stretch(match=search.words, less=search.said),
            Stretch(titled=True, less=search.words),
        )
        return levels if descending else levels[::-1]
    plain = Stretch(match=search.words, titled=True) if search is not None else Stretch()
    if sort not in VALUES:
        return (plain,)
    having, lacking = replace(plain, value=sort), replace(plain, without=sort)
    if not VALUES[sort].present or (sort == "rating" and listing.filters.min_rating is not None):
        return (having,)
    return (having, lacking) if descending or sort in _LAST_EITHER_WAY else (lacking, having)
