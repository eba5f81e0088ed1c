"""Handing a pull's batches on, each while the next is being fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from primary.feed import Batch, Pull


async def pour(pull: Pull, write: Callable[[Batch], Awaitable[None]]) -> None:
    """Give every batch to ``write``, in order and one at a time. Returns, or raises, when none is being written."""
    writing: asyncio.Task[None] | None = None
    try:
        async with aclosing(pull.batches()) as batches:
            async for batch in batches:
                if writing is not None:
                    await writing
                writing = asyncio.ensure_future(_written(write, batch))
    finally:
        if writing is not None:
            await writing


async def _written(write: Callable[[Batch], Awaitable[None]], batch: Batch) -> None:
    await write(batch)
