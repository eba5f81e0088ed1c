"""Handing a pull's batches on, while the next ones are being fetched."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from primary.feed import Batch, Pull

AHEAD = 4  # batches that are there and not written: as many as are fetched while a large change is being applied


async def pour(pull: Pull, write: Callable[[Batch], Awaitable[None]]) -> None:
    """Give every batch to ``write``, in order and one at a time. Returns, or raises, when none is being written."""
    waiting: deque[asyncio.Task[None]] = deque()
    try:
        async with aclosing(pull.batches()) as batches:
            async for batch in batches:
                if len(waiting) == AHEAD:
                    await waiting[0]
                    waiting.popleft()
                waiting.append(asyncio.ensure_future(_after(waiting[-1] if waiting else None, write, batch)))
    finally:
        # One that fails, or is cancelled, fails all that wait for it: none is written after it.
        ended = await asyncio.gather(*waiting, return_exceptions=True)
    for error in ended:
        if error is not None:
            raise error


async def _after(before: asyncio.Task[None] | None, write: Callable[[Batch], Awaitable[None]], batch: Batch) -> None:
    if before is not None:
        await before
    await write(batch)
