"""Work under way: it comes to its end though who asked for it leaves, and none is begun once there is to be an end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from replica.ending import cut_off
from replica.errors import ReplicaUnavailable

T = TypeVar("T")

CLOSE_GRACE_S = 1.0  # of the 5 s within which a server is to stop, Postgres included
CUT_AGAIN_S = 0.5  # for what was broken off then: time to roll back and to seal, even on a busy disk


class Tasks:
    """The tasks of a store; none is taken before `open`."""

    def __init__(self) -> None:
        self.closed = True
        self._tasks: set[asyncio.Task[Any]] = set()

    def open(self) -> None:
        """Take work from now on."""
        self.closed = False

    async def close(self) -> None:
        """Refuse what comes from now on, and end what is under way: what is quick comes to its end."""
        self.closed = True
        grace = asyncio.get_running_loop().time() + CLOSE_GRACE_S
        while tasks := [*self._tasks]:
            _, late = await asyncio.wait(tasks, timeout=max(0, grace - asyncio.get_running_loop().time()))
            await cut_off(late, again_s=CUT_AGAIN_S)

    def refuse_if_closed(self) -> None:
        """Raise `ReplicaUnavailable` where nothing is taken any more."""
        if self.closed:
            raise ReplicaUnavailable("the server is stopping")

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run what must come to its end though its caller may leave. Raises also `ReplicaUnavailable`."""
        try:
            self.refuse_if_closed()
        except ReplicaUnavailable:
            work.close()
            raise
        task = self.start(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():  # by `close`, and not its caller
                self.refuse_if_closed()
            raise

    def start(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin work that ends, or is broken off, before `close` does."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # is the caller's; where that has left, it is nobody's
