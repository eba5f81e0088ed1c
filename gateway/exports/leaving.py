"""Working only for as long as the client is there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from litestar.types import Receive

from gateway.problems import Problem
from replica.apart import SupportsClose

T = TypeVar("T", bound=SupportsClose)


@asynccontextmanager
async def watching(receive: Receive) -> AsyncIterator[asyncio.Task[None]]:
    """Give a task that ends when the client leaves, for as long as the block runs."""
    task = asyncio.create_task(_leaves(receive))
    try:
        yield task
    finally:
        task.cancel()


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Give what ``work`` gives; cancel it, and raise a `Problem` that nobody reads, when the client leaves before."""
    making = asyncio.create_task(work)
    async with watching(receive) as left:
        try:
            await asyncio.wait([making, left], return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            await _give_up(making)
            raise
        if making.done():
            return making.result()
        await _give_up(making)
        raise Problem(400, "client_disconnected", "the client left before its answer was ready")


async def _leaves(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # of the request's body, which says nothing here


async def _give_up(making: asyncio.Task[Any]) -> None:
    making.cancel()
    await asyncio.wait([making])
    if not making.cancelled() and making.exception() is None:  # it had just come to its end
        making.result().close()
