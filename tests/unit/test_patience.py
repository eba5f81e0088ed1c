"""How long an answer is waited for, and how long for the end of what was asked to end."""

from __future__ import annotations

import asyncio
import time

import pytest

from primary import patience as module
from primary.patience import patience


async def test_an_answer_in_time_passes() -> None:
    async with patience(0.05):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)  # nothing is left that could interrupt later


async def test_an_answer_that_is_late_is_given_up() -> None:
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        async with patience(0.05):
            await asyncio.sleep(5)
    assert 0.05 <= time.monotonic() - begun < 1


async def test_who_does_not_end_when_interrupted_is_interrupted_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CANCEL_S", 0.05)
    interrupted = 0

    async def wait() -> None:
        nonlocal interrupted
        async with patience(0.05):
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                interrupted += 1
                try:
                    await asyncio.sleep(5)  # as psycopg waits for Postgres to end a query, over a dead link
                finally:
                    interrupted += 1

    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        await wait()
    assert interrupted == 2
    assert 0.1 <= time.monotonic() - begun < 1


async def test_an_interruption_from_outside_stays_one() -> None:
    async def wait() -> None:
        async with patience(5):
            await asyncio.sleep(5)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_interruption_from_outside_stays_one_where_ours_came_before_it() -> None:
    async def wait() -> None:
        async with patience(0.01):
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                task.cancel()
                raise

    task = asyncio.create_task(wait())
    with pytest.raises(asyncio.CancelledError):
        await task
