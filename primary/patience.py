"""How long an answer of Postgres is waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_CANCEL_S = 1.0
"""How long Postgres may take to end what it was asked to end; over a link that is alive it is milliseconds."""


@asynccontextmanager
async def patience(within_s: float) -> AsyncIterator[None]:
    """Bound the wait for answers of Postgres in a block. Raises `TimeoutError`.

    When psycopg is interrupted it asks Postgres, over a connection of its own, to end the query, and waits for
    that: right where a query takes long, but ten seconds more where the link is dead. When it is interrupted once
    more it breaks the connection off. So there are two timeouts, one within the other.
    """
    async with asyncio.timeout(within_s + _CANCEL_S), asyncio.timeout(within_s):
        yield
