"""Which tables the last write of this process touched, by its user and by its statements: hints for who pulls.

Only a hint. Who takes it asks for the rows of those tables together with where the user stands, in one round trip, and
looks there whether that was all. Where there is no hint, where another's change came in between, and where the hint is
wrong, that look says so, and it takes a round trip more. What a write is about to touch is not known before it has:
it is taken for what the same statements touched the last time.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable

from primary.latest import keep

USERS_MAX = 1_000  # of whom something is kept: who writes and is not pulled here is forgotten when others write
STATEMENTS_MAX = 256  # sets of them, of which something is kept

Statements = tuple[Hashable, ...]
"""What a write was finished with, without the values."""


class Touched:
    """Keeps the hints of users until they are taken."""

    def __init__(self) -> None:
        self._tables: OrderedDict[str, frozenset[str]] = OrderedDict()
        self._by: OrderedDict[Statements, frozenset[str]] = OrderedDict()

    def note(self, user: str, tables: Iterable[str], statements: Statements = ()) -> None:
        """Note that a write of ``user`` that was just committed touched these tables, at its end by these statements.

        Of statements that touched nothing this time, what they touched before stays known.
        """
        touched = frozenset(tables)
        keep(self._tables, user, self._tables.get(user, frozenset()) | touched, USERS_MAX)
        if statements and touched:
            keep(self._by, statements, touched, STATEMENTS_MAX)

    def by(self, statements: Statements) -> frozenset[str]:
        """Give the tables that these statements touched the last time."""
        return self._by.get(statements, frozenset())

    def take(self, user: str) -> frozenset[str]:
        """Give the tables that were noted since the last call."""
        return self._tables.pop(user, frozenset())
