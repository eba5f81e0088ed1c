"""The ends of tasks: of those that do not want to, of those that end with a block, of those not to be left half way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from contextlib import asynccontextmanager
from typing import Any

AGAIN_S = 0.1
"""After which a task is told once more: over links that live, and with little to put in order, it took milliseconds."""


async def cut_off(tasks: Iterable[asyncio.Task[Any]], *, again_s: float = AGAIN_S) -> None:
    """Cancel tasks until they have ended, once more each ``again_s``.

    Once is not enough over a dead link: psycopg then asks Postgres, over a connection of its own, to end the query, and
    waits for that. It breaks the connection off when it is interrupted once more.
    """
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=again_s)


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, None], name: str) -> AsyncIterator[None]:
    """Run ``work``, which goes on by itself, beside the block, and end it with that."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        await cut_off([task])


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` to its end, however often the caller is cancelled meanwhile; that is then cancelled."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # seen: that it was cancelled says more to the caller
        raise cancelled
    task.result()
