"""Which event streams are open on this node, how many may be, and their common end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.problems import Problem
from replica.advances import Advances, Watch
from replica.follower import Follower

_RETRY_AFTER = {"retry-after": "5"}


class Streams:
    """Opens event streams within their bounds: ``per_user_max`` of one user, ``node_max`` of all.

    ``listen`` is for the time that a stream is open; `close` ends all that are.
    """

    def __init__(self, advances: Advances, follower: Follower, *, per_user_max: int, node_max: int) -> None:
        self._advances = advances
        self._follower = follower
        self._per_user_max = per_user_max
        self._node_max = node_max
        self._open: Counter[str] = Counter()
        self._closed = False

    @contextmanager
    def listen(self, user: str) -> Iterator[Watch]:
        """Watch and follow a user's replica for as long as the block runs. Raises a `Problem`: 429 or 503."""
        if self._closed:
            raise Problem(503, "stopping", "the server stops", hint="Try again.", headers={"retry-after": "1"})
        if self._open[user] >= self._per_user_max:
            raise _too_many(f"you have {self._per_user_max} event streams open, which is as many as a user may have")
        if self._open.total() >= self._node_max:
            raise _too_many(f"this server has {self._node_max} event streams open, which is as many as it may have")
        self._open[user] += 1
        try:
            with self._advances.watch(user) as watch, self._follower.stream(user):
                yield watch
        finally:
            self._open[user] -= 1
            if not self._open[user]:
                del self._open[user]

    def close(self) -> None:
        """End every stream, so that its client connects anew, elsewhere; open no other."""
        self._closed = True
        self._advances.end_all()


def _too_many(detail: str) -> Problem:
    hint = "Close a stream that is not needed, or poll with X-Min-Version; try again later."
    return Problem(429, "too_many_event_streams", detail, hint=hint, headers=_RETRY_AFTER)
