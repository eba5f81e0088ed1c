"""Which tables the last write of this process touched, by its user: a hint for who pulls what it wrote.

Only a hint. Who takes it asks for the rows of those tables together with where the user stands, in one round trip, and
looks there whether that was all. Where there is no hint, where another's change came in between, and where the hint is
wrong, that look says so, and it takes a round trip more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

USERS_MAX = 1_000  # of whom something is kept: who writes and is not pulled here is forgotten when others write


class Touched:
    """Keeps the hints until they are taken."""

    def __init__(self) -> None:
        self._tables: OrderedDict[str, frozenset[str]] = OrderedDict()

    def note(self, user: str, tables: Iterable[str]) -> None:
        """Note that a write of ``user`` that was just committed touched these tables."""
        self._tables[user] = self._tables.pop(user, frozenset()) | frozenset(tables)
        if len(self._tables) > USERS_MAX:
            self._tables.popitem(last=False)

    def take(self, user: str) -> frozenset[str]:
        """Give the tables that were noted since the last call."""
        return self._tables.pop(user, frozenset())
