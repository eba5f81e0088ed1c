"""How long an answer of Postgres is waited for."""

from __future__ import annotations

import asyncio
from types import TracebackType

CANCEL_S = 1.0
"""How long Postgres may take to end what it was asked to end; over a link that is alive it is milliseconds."""


class Stopped(TimeoutError):
    """Postgres took too long, and stopped when it was asked to. So it is there."""


class patience:  # noqa: N801 - as `asyncio.timeout`, of which it is two in one, for a quarter of their time
    """Bound the wait for answers of Postgres in a block. Raises `TimeoutError`; `Stopped` where it ended when asked to.

    What is waited for is statements of psycopg's, unless there is nothing that ``asks`` Postgres to end it.

    When psycopg is interrupted it asks Postgres, over a connection of its own, to end the query, and waits for
    that: right where a query takes long, but ten seconds more where the link is dead. When it is interrupted once
    more it breaks the connection off. So it is interrupted a second time where it has not ended soon.
    """

    __slots__ = ("_asks", "_cancelling", "_interruptions", "_task", "_timer", "_within_s")

    def __init__(self, within_s: float, *, asks: bool = True) -> None:
        self._within_s = within_s
        self._asks = asks
        self._interruptions = 0
        self._task: asyncio.Task[object]
        self._cancelling: int  # how often it was asked to end from elsewhere
        self._timer: asyncio.TimerHandle

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        self._timer = asyncio.get_running_loop().call_later(self._within_s, self._interrupt)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        for _ in range(self._interruptions):
            self._task.uncancel()
        if self._interruptions and kind is asyncio.CancelledError and self._task.cancelling() <= self._cancelling:
            raise (Stopped if self._asks and self._interruptions == 1 else TimeoutError) from error

    def _interrupt(self) -> None:
        self._interruptions += 1
        self._task.cancel()
        if self._interruptions == 1:
            self._timer = asyncio.get_running_loop().call_later(CANCEL_S, self._interrupt)
