"""How long to wait before the next try."""

from __future__ import annotations

from collections.abc import Callable


def wait_s(failures: int, *, first_s: float, most_s: float, random: Callable[[], float]) -> float:
    """Give the seconds to wait after so many failures in a row (1 or more).

    Twice as long each time up to ``most_s``, less up to half of it by chance (``random`` gives 0 to 1), so that those
    who failed together do not come back together.

    >>> [wait_s(n, first_s=1, most_s=10, random=lambda: 1.0) for n in (1, 2, 3, 4, 5, 500)]
    [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    >>> wait_s(3, first_s=1, most_s=10, random=lambda: 0.0)
    2.0
    """
    full = min(most_s, first_s * 2.0 ** min(failures - 1, 64))
    return full * (0.5 + random() / 2)
