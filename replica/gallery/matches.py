"""Which rows a full-text expression finds, asked of some rows at a time.

FTS5 answers from any row on, in the order of rows; to begin takes it some 10 µs for each word, to go on a tenth of one.
So rows that lie close together are asked for in one go, and where the next match is far, all before it are known.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import closing
from dataclasses import dataclass

import apsw

from replica.gallery.search import has_prefix

SET_MAX = 5_000
"""So few matches of an expression are kept as a set, at 0.3 µs each."""

GAP, FAR = 150, 400
"""Over so many rows that were not asked for it goes on, rather than begin anew, where one word is looked for; over four
times as many where two are, which match less often and cost more to begin. To go over ``FAR`` rows costs as much as to
begin with a word."""

SPANS_MAX, SPENT_MAX, MANY = 24, 200, 16
"""Rows in more than so many places, or when as much as to begin with so many words was spent: it is seen whether all
matches can be a set; unless more than one of ``MANY`` rows matched so far."""

_FROM = "SELECT image_fts.rowid FROM image_fts WHERE image_fts MATCH ? AND image_fts.rowid >= ?"
_OF = (
    "SELECT image_fts.rowid FROM image_fts WHERE image_fts MATCH ? AND image_fts.rowid BETWEEN ? AND ? "
    "AND +image_fts.rowid IN (SELECT row.value FROM json_each(?) AS row)"
)
_LATEST = "SELECT image_fts.rowid FROM image_fts WHERE image_fts MATCH ? ORDER BY image_fts.rowid DESC LIMIT ?"
_ALL = "SELECT image_fts.rowid FROM image_fts WHERE image_fts MATCH ? LIMIT ?"


@dataclass(slots=True)
class _Asked:
    """How many rows an expression was asked for, how many it found, and what that cost, in words to begin with."""

    rows: int = 0
    found: int = 0
    spent: int = 0


class Matches:
    """What the expressions of one search find, as long as one read lasts."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._all: dict[str, frozenset[int] | None] = {}
        self._asked: dict[str, _Asked] = defaultdict(_Asked)

    def all(self, expression: str) -> frozenset[int] | None:
        """Give all rows that it finds; None where these are too many."""
        if expression not in self._all:
            rows = list(self._connection.execute(_ALL, (expression, SET_MAX + 1)))
            self._all[expression] = frozenset([row for (row,) in rows]) if len(rows) <= SET_MAX else None
        return self._all[expression]

    def known(self, expression: str) -> frozenset[int] | None:
        """Give all rows that it finds, if they were asked for and are few."""
        return self._all.get(expression)

    def among(self, expression: str, rows: Collection[int]) -> set[int]:
        """Give those of some rows that it finds."""
        if not rows:
            return set()
        if (known := self._all.get(expression)) is not None:
            return set(known.intersection(rows))
        if has_prefix(expression):  # to begin is dear, for all words that begin so are brought into one list
            values = (expression, min(rows), max(rows), rows_json(rows))
            return {row for (row,) in self._connection.execute(_OF, values)}
        words = _words(expression)
        spans = [*_spans(sorted(rows), GAP * words * words)]
        asked = self._asked[expression]
        if len(spans) > SPANS_MAX and not asked.rows and len(rows) > SPANS_MAX:
            some = [*rows]
            return self.among(expression, some[:SPANS_MAX]) | self.among(expression, some[SPANS_MAX:])
        far = sum(high - low for low, high in spans) // FAR
        asked.spent += words * len(spans) + far
        dear = len(spans) > SPANS_MAX or asked.spent > SPENT_MAX
        few = far > SPENT_MAX or (asked.rows and asked.found * MANY <= asked.rows)
        if dear and few and (known := self.all(expression)) is not None:
            return set(known.intersection(rows))
        found = self._leap(expression, spans).intersection(rows)
        asked.rows += len(rows)
        asked.found += len(found)
        return found

    def latest(self, expression: str, count: int) -> list[int]:
        """Give the last rows that it finds, the last of all first."""
        return [row for (row,) in self._connection.execute(_LATEST, (expression, count))]

    def _leap(self, expression: str, spans: list[tuple[int, int]]) -> set[int]:
        """Give what it finds within spans of rows."""
        found = set()
        following = 0  # the first match from there on
        for low, high in spans:
            if following > high:
                continue
            with closing(self._connection.execute(_FROM, (expression, low))) as cursor:
                for (following,) in cursor:
                    if following > high:
                        break
                    found.add(following)
                else:
                    break
        return found


def rows_json(rows: Collection[int]) -> str:
    """Write rows as a statement takes them: as a JSON array."""
    return f"[{','.join(map(str, rows))}]"


def _words(expression: str) -> int:
    """Tell about how many words an expression looks for."""
    return len(expression.rpartition(" : ")[2].replace("+", " ").split())


def _spans(rows: list[int], gap: int) -> Iterator[tuple[int, int]]:
    """Give the first and the last of rows that lie close together."""
    low = high = rows[0]
    for row in rows:
        if row - high > gap:
            yield low, high
            low = row
        high = row
    yield low, high
