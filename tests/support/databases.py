"""Postgres for tests: one server for the whole run, for each test a copy of a migrated template."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import psycopg

from primary.declaration import Catalog
from primary.embedded import EmbeddedPostgres
from primary.migrate import migrate
from primary.postgres import Primary
from tests.support.folders import temporary_folder, temporary_folders

# Nothing here outlives the run, so nothing need survive a crash of the machine.
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "checkpoint_timeout": "30min",
    # The log lies in memory, where there is room for it, but not without end.
    "min_wal_size": "64MB",
    "max_wal_size": "256MB",
}


# Of a run that was killed, not of one that goes on beside ours.
_ABANDONED_AFTER_S = 900


def stop_abandoned() -> None:
    """Stop the servers that runs which were killed have left; one that another run still uses stays."""
    for folder in temporary_folders():
        with contextlib.suppress(FileNotFoundError):  # it may be going this moment, with the run that made it
            for lock in folder.glob("**/postgres.users"):
                if time.time() - lock.stat().st_mtime > _ABANDONED_AFTER_S:
                    asyncio.run(_join_and_leave(EmbeddedPostgres(lock.parent)))


async def _join_and_leave(server: EmbeddedPostgres) -> None:
    if server.running():
        await server.start()
        await server.stop()


@contextmanager
def temporary_postgres() -> Iterator[EmbeddedPostgres]:
    """A running server with an empty cluster, for code that has no event loop yet."""
    stop_abandoned()
    with temporary_folder() as folder:
        server = EmbeddedPostgres(folder, settings=FAST)
        asyncio.run(server.start())
        try:
            yield server
        finally:
            asyncio.run(server.stop())


@asynccontextmanager
async def through(url: str, **options: Any) -> AsyncIterator[Primary]:
    """A primary on a URL, open."""
    primary = Primary(url, **options)
    await primary.open()
    try:
        yield primary
    finally:
        await primary.close()


class Databases:
    """The databases of one server. ``template`` is the name of the migrated one."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._numbers = itertools.count(1)
        self.template = "migrated"

    def url(self, name: str) -> str:
        return self._server_url.replace("@/tidepool?", f"@/{name}?")

    async def make_template(self, catalog: Catalog) -> None:
        await self._execute(f"CREATE DATABASE {self.template}")
        async with through(self.url(self.template)) as primary:
            await migrate(primary, catalog)
        # Nobody may be connected to a template while it is copied.
        await self._execute(f"ALTER DATABASE {self.template} ALLOW_CONNECTIONS false")

    @asynccontextmanager
    async def database(self, *, migrated: bool = True, how: str = "") -> AsyncIterator[str]:
        """A database of its own, by its URL: with every table and trigger of the gallery, or empty.

        ``how`` is what is to be said to CREATE DATABASE besides.
        """
        name = f"test_{next(self._numbers)}"
        template = self.template if migrated else "template0"
        # Copied as files: half the work of writing each page to the log, and nothing to flush when it is dropped.
        await self._execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy {how}")
        try:
            yield self.url(name)
        finally:
            await self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    async def _execute(self, sql: str) -> None:
        async with await psycopg.AsyncConnection.connect(self._server_url, autocommit=True) as connection:
            await connection.execute(sql.encode())
