"""Which walk a list is read along: the order's own, or that of what a condition leaves."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import apsw

from replica.gallery.conditions import INDEXED
from replica.gallery.keys import RATINGS_MAX, Walk, counting_sql, sample_sql, streams_for

GATHER_MAX = 1_000
"""So few images are gathered and sorted, rather than met along an order in which they may be far apart: 1 ms."""

STREAMS_CHEAP, SAMPLE = 8, 48
"""Merging so many lists costs 1.5 µs each; of more, a look at so many rated images, 4 µs, tells whether it is needed:
not where one of them is rated so high, for to pass by one that is not costs 30 ns."""


class Form(NamedTuple):
    """What there is to walk: as `Walk` has it."""

    value: str
    without: str
    conditions: frozenset[str]
    descending: bool
    after: bool


def walk_of(connection: apsw.Connection, form: Form, values: dict[str, Any]) -> Walk:
    """Choose the walk, and add to ``values`` what that takes."""
    if not _is_in_order(form) and (narrow := _narrow(connection, form, values)):
        return _walk(form, narrow)
    walk = _walk(form)
    if walk.by != "min_rating":
        return walk
    streams = streams_for(values["min_rating"])
    if streams > STREAMS_CHEAP and len(form.conditions) == 1 and _is_dense(connection, form, values):
        return walk
    values |= _ratings(values["min_rating"], streams)
    return _walk(form, streams=streams)


@lru_cache(maxsize=1_000)
def _is_in_order(form: Form) -> bool:
    """Tell whether no condition leaves fewer images than the index that has the order."""
    own = not (form.value or form.without) or form.value == "position"
    return sum(name in form.conditions for name in INDEXED) <= own


@lru_cache(maxsize=2_000)
def _walk(form: Form, narrow: str = "", *, streams: int = 0) -> Walk:
    """Give the walk of what a condition leaves, gathered; else in the order."""
    by = narrow
    if not narrow and not form.value:
        by = next((name for name in INDEXED if name in form.conditions), "")
    return Walk(
        form.conditions,
        by=by,
        value=form.value,
        without=form.without,
        descending=form.descending,
        after=form.after,
        gather=bool(narrow),
        streams=streams,
    )


def _narrow(connection: apsw.Connection, form: Form, values: dict[str, Any]) -> str:
    """Name a condition that leaves so few images that they can as well be gathered and sorted; empty if none."""
    asked = values | {"limit": GATHER_MAX + 1}
    for name in INDEXED:
        if name in form.conditions and connection.execute(counting_sql(name), asked).get <= GATHER_MAX:
            return name
    return ""


def _is_dense(connection: apsw.Connection, form: Form, values: dict[str, Any]) -> bool:
    """Tell whether those rated so high lie close among all that are rated, so that their lists need no merging."""
    sql = sample_sql(form.after, form.descending)
    return bool(connection.execute(sql, values | {"sample": SAMPLE}).get)


@lru_cache(maxsize=RATINGS_MAX)
def _ratings(min_rating: int, streams: int) -> dict[str, int | None]:
    """Give the ratings whose lists are merged, as parameters; some lists may stay empty."""
    ratings = range(min_rating, RATINGS_MAX)
    return {f"rating_{n}": ratings[n] if n < len(ratings) else None for n in range(streams)}
