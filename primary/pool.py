"""The pool of connections: who asks for one gets the one that was used last."""

from __future__ import annotations

from collections import deque
from typing import Any

from psycopg_pool import AsyncConnectionPool

from primary.lent import Lent


class Pool(AsyncConnectionPool[Lent]):
    """psycopg's pool, which goes round, made one that keeps to the last.

    Where writes come one at a time, going round wakes with each a server process that has rested the longest, whose
    caches have gone cold meanwhile; and two connections are there as soon as two were wanted at once.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._pool = _LastFirst()

    @property
    def has_free(self) -> bool:
        """Whether there is a connection that nobody uses, so that to get one is not to wait."""
        return bool(self._pool)


class _LastFirst(deque[Lent]):
    """The connections that are free. The pool puts them in at the right, and takes them out at the left."""

    popleft = deque.pop
