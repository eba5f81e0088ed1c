"""A connection of the pool, as it is lent: what can be said in one round trip is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import psycopg

Statement = tuple[str, Mapping[str, Any]]
"""SQL as psycopg takes it, with ``%(name)s`` for a value, and the values."""


@asynccontextmanager
async def together(connection: psycopg.AsyncConnection[Any]) -> AsyncIterator[None]:
    """Have all that is executed in the block sent at once, and answered at its end. Raises the first error of them."""
    try:
        async with connection.pipeline():
            yield
    except psycopg.errors.PipelineAborted as error:
        # What was not done because of an error before it: psycopg may tell of this in the place of that.
        if isinstance(error.__context__, psycopg.Error):
            raise error.__context__ from None
        raise


class Lent(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection of the pool, in autocommit mode.

    Who has it on loan cannot close it: the lender takes it back, broken or not. SQLAlchemy closes what it is done with.
    To have that return it (`close_returns`) would lose a place of the pool for ever with each connection that breaks,
    for psycopg does nothing on closing one that is closed.
    """

    async def close(self) -> None:
        """Close it, if it is the pool that asks for it."""
        if getattr(self, "_pool", None) is None:
            await super().close()
