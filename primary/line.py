"""A connection of one's own, beside the pool: for what must not wait behind a crowd of requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import psycopg

from primary.patience import patience

Connection = psycopg.AsyncConnection[tuple[Any, ...]]


class Line:
    """One connection in autocommit mode, made when it is needed, and made again when it broke.

    To be used by one task at a time. ``translated`` is what turns a driver's error into ours.
    """

    def __init__(
        self,
        url: str,
        options: Mapping[str, Any],
        translated: Callable[[], AbstractAsyncContextManager[None]],
    ) -> None:
        self._url = url
        self._options = options
        self._translated = translated
        self._connection: Connection | None = None

    @asynccontextmanager
    async def connection(self, within_s: float) -> AsyncIterator[Connection]:
        """Give the connection for a block that has to end ``within_s``. Raises `PrimaryUnavailable`."""
        async with self._translated():
            try:
                async with patience(within_s):
                    if self._connection is None or self._connection.closed:
                        self._connection = await psycopg.AsyncConnection.connect(self._url, **self._options)
                    yield self._connection
            except BaseException:
                await self.close()
                raise

    async def close(self) -> None:
        """Close the connection; the next use makes another."""
        if self._connection is not None:
            await self._connection.close()
            self._connection = None
