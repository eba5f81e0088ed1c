"""How many exports there are on this node at once: in hand, of one user and of all, and being made."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.problems import Problem

MADE_AT_ONCE = 2  # each is a thread that takes a processor and, between two rows, the interpreter

_RETRY_AFTER = {"retry-after": "5"}


class Places:
    """Lets exports begin within their bounds: ``per_user_max`` of one user, ``node_max`` of all.

    A `place` is held until the last byte is sent, a `turn` only while the file is being made.
    """

    def __init__(self, *, per_user_max: int, node_max: int) -> None:
        self.turn = asyncio.Semaphore(MADE_AT_ONCE)
        self._per_user_max = per_user_max
        self._node_max = node_max
        self._taken: Counter[str] = Counter()

    def __len__(self) -> int:
        """Give how many are in hand."""
        return self._taken.total()

    @contextmanager
    def place(self, user: str) -> Iterator[None]:
        """Hold a place for as long as the block runs. Raises a `Problem`: 429."""
        if self._taken[user] >= self._per_user_max:
            raise _too_many(f"you have {self._per_user_max} exports under way, which is as many as a user may have")
        if len(self) >= self._node_max:
            raise _too_many(f"this server has {self._node_max} exports under way, which is as many as it may have")
        self._taken[user] += 1
        try:
            yield
        finally:
            self._taken[user] -= 1
            if not self._taken[user]:
                del self._taken[user]


def _too_many(detail: str) -> Problem:
    hint = "Wait until one has come to its end, and try again."
    return Problem(429, "too_many_exports", detail, hint=hint, headers=_RETRY_AFTER)
