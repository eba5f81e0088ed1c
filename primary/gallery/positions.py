"""Where things go in an order with gaps: most moves need one new number, and nothing else is touched.

Positions are whole numbers from 0. Each function gives None where there is no room left; then the whole order is to
be spread anew, `STEP` apart, which makes room everywhere.
"""

from __future__ import annotations

STEP = 1_024
"""Ten moves into one same gap fit before an order is spread anew; two million things fit behind each other."""

LAST = 2**31 - 1
"""What Postgres's integer holds."""


def at_end(last: int | None, count: int) -> range | None:
    """Give positions for ``count`` things behind the ``last``.

    >>> list(at_end(None, 2)), list(at_end(1024, 1)), at_end(LAST - STEP, 2)
    ([1024, 2048], [2048], None)
    """
    first = (last or 0) + STEP
    end = first + STEP * count
    return range(first, end, STEP) if end - STEP <= LAST else None


def between(low: int | None, high: int | None) -> int | None:
    """Give a position between two neighbours; None stands for the end of the order on that side.

    >>> between(None, 1024), between(1024, 2048), between(2048, None)
    (511, 1536, 3072)
    >>> between(7, 8), between(5, 5), between(None, 0), between(LAST, None)
    (None, None, None, None)
    """
    if high is None:
        found = at_end(low, 1)
        return found[0] if found is not None else None
    floor = -1 if low is None else low
    middle = (floor + high) // 2
    return middle if floor < middle < high else None
