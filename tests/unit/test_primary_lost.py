"""When Postgres is lost, who waits for a connection is told soon, whatever becomes of them meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from primary.errors import PrimaryUnavailable
from primary.postgres import Primary

NOWHERE = "postgresql://127.0.0.1:1/none"


async def _write(primary: Primary) -> None:
    async with primary.place("ann"):
        pass


async def test_who_waits_is_told_soon_of_a_loss() -> None:
    primary = Primary(NOWHERE, pool_timeout_s=60)
    async with primary.place("ann"), primary.place("ann"):
        waiting = asyncio.create_task(_write(primary))
        await asyncio.sleep(0)
        primary._lose()
        async with asyncio.timeout(5):
            with pytest.raises(PrimaryUnavailable):
                await waiting


async def test_who_has_just_run_out_of_time_is_in_nobodys_way() -> None:
    """In the pass of the event loop between the end of its time and its being told so."""
    primary = Primary(NOWHERE, pool_timeout_s=0.01)
    async with primary.place("ann"), primary.place("ann"):
        waiting = asyncio.create_task(_write(primary))
        async with asyncio.timeout(5):
            while not any(each.expired() for each in primary._waiting):
                await asyncio.sleep(0)
        primary._lose()
        with pytest.raises(PrimaryUnavailable):
            await waiting
