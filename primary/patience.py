"""How long an answer of Postgres is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CANCEL_S = 1.0
"""How long Postgres may take to end what it was asked to end; over a link that is alive it is milliseconds."""


class Patience:
    """A time within which Postgres has to answer, again and again: `begin` it for each answer, `end` it in between."""

    def __init__(self, within_s: float, asking: asyncio.Timeout, leaving: asyncio.Timeout) -> None:
        self._within_s = within_s
        self._asking = asking
        self._leaving = leaving

    def begin(self) -> None:
        """Count from now."""
        now = asyncio.get_running_loop().time()
        self._asking.reschedule(now + self._within_s)
        self._leaving.reschedule(now + self._within_s + _CANCEL_S)

    def end(self) -> None:
        """Do not count: what is waited for now is not Postgres."""
        self._asking.reschedule(None)
        self._leaving.reschedule(None)


@asynccontextmanager
async def patience(within_s: float) -> AsyncIterator[Patience]:
    """Bound the wait for answers of Postgres in a block, begun at its beginning. Raises `TimeoutError`.

    When psycopg is interrupted it asks Postgres, over a connection of its own, to end the query, and waits for
    that: right where a query takes long, but ten seconds more where the link is dead. When it is interrupted once
    more it breaks the connection off. So there are two timeouts, one within the other.
    """
    async with asyncio.timeout(None) as leaving, asyncio.timeout(None) as asking:
        waiting = Patience(within_s, asking, leaving)
        waiting.begin()
        yield waiting
