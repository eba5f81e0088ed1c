"""The tokens that were verified lately, so that a token is verified once and not with every request."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class TokenCache(Generic[T]):
    """Remembers at most ``size_max`` tokens, those used last, each until its own time has come."""

    __slots__ = ("_entries", "_now", "_size_max")

    def __init__(self, size_max: int, now: Callable[[], float]) -> None:
        self._entries: OrderedDict[str, tuple[float, T]] = OrderedDict()
        self._size_max = size_max
        self._now = now

    def get(self, token: str) -> T | None:
        """Give what the token stands for, or None when it is not known or no longer good."""
        entry = self._entries.get(token)
        if entry is None:
            return None
        if self._now() >= entry[0]:
            del self._entries[token]
            return None
        self._entries.move_to_end(token)
        return entry[1]

    def put(self, token: str, value: T, good_until: float) -> None:
        """Remember a token up to a time; the one unused for longest makes room."""
        self._entries[token] = (good_until, value)
        if len(self._entries) > self._size_max:
            self._entries.popitem(last=False)
