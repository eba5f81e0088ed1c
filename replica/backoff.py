"""How long to wait before trying again what failed: longer each time up to a bound, and never in step with others."""

from __future__ import annotations

import random
from collections.abc import Callable

FIRST_S = 0.05
MAX_S = 2.0  # how late the return of what was away is noticed at worst


def wait_s(failures: int, *, first_s: float, max_s: float, draw: Callable[[], float] = random.random) -> float:
    """Give the pause after so many failures in a row (1 or more).

    It is drawn between half of a step and the whole of it, and the steps double from ``first_s`` to ``max_s``: so many
    who lost the same thing at the same time do not come back at the same time (source: "Exponential Backoff And
    Jitter", with equal jitter, for a pause of nearly nothing would be a try too many).

    >>> [wait_s(failures, first_s=1, max_s=10, draw=lambda: 1.0) for failures in (1, 2, 3, 4, 5, 500)]
    [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    >>> wait_s(3, first_s=1, max_s=10, draw=lambda: 0.0)
    2.0
    """
    step_s = min(max_s, first_s * 2.0 ** min(failures - 1, 64))
    return step_s * (0.5 + 0.5 * draw())


class Backoff:
    """Gives one pause after another, as `wait_s` has them; `reset` begins anew.

    >>> pauses = Backoff(first_s=0.1, max_s=0.5, draw=lambda: 1.0)
    >>> [pauses.next_s() for _ in range(5)]
    [0.1, 0.2, 0.4, 0.5, 0.5]
    """

    def __init__(
        self, first_s: float = FIRST_S, max_s: float = MAX_S, draw: Callable[[], float] = random.random
    ) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._draw = draw
        self._failures = 0

    def next_s(self) -> float:
        """Give the next pause."""
        self._failures += 1
        return wait_s(self._failures, first_s=self._first_s, max_s=self._max_s, draw=self._draw)

    def reset(self) -> None:
        """Begin anew: what failed has worked."""
        self._failures = 0
