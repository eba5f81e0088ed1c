"""What every benchmark starts from: a folder and a Postgres for the run, and how long to measure."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from primary.embedded import EmbeddedPostgres
from primary.gallery.tables import catalog
from primary.migrate import migrate
from tests.benchmarks.data import load_gallery
from tests.support.databases import through as primary_of
from tests.support.folders import temporary_folder

USERS = 100
ROWS_EACH = 1_000


@dataclass
class Bench:
    """One run. Everything in ``folder`` goes with it; ``peer_dir`` and ``zero_dir`` are where others lie, if given."""

    folder: Path
    server_url: str
    quick: bool
    peer_dir: Path | None
    zero_dir: Path | None
    _gallery_url: str | None = field(default=None)

    @property
    def rounds(self) -> int:
        """How often what is compared is measured in turn."""
        return 3 if self.quick else 5

    @property
    def seconds(self) -> float:
        """How long one measurement under load takes."""
        return 1 if self.quick else 2

    async def database(self, name: str) -> str:
        """Make an empty database, and give its URL."""
        async with await psycopg.AsyncConnection.connect(self.server_url, autocommit=True) as connection:
            await connection.execute(f"CREATE DATABASE {name}".encode())
        return self.server_url.replace("@/tidepool?", f"@/{name}?")

    async def migrated(self, name: str) -> str:
        """Make a database with the gallery's tables and their capture, and give its URL."""
        url = await self.database(name)
        async with primary_of(url) as primary:
            await migrate(primary, catalog)
        return url

    async def gallery(self) -> str:
        """Give the URL of a database in which `USERS` users have `ROWS_EACH` images each; made once."""
        if self._gallery_url is None:
            url = await self.migrated("gallery")
            await load_gallery(url, users=USERS, rows_each=ROWS_EACH)
            self._gallery_url = url
        return self._gallery_url


@asynccontextmanager
async def started(*, quick: bool, peer_dir: Path | None, zero_dir: Path | None) -> AsyncIterator[Bench]:
    """Start the run's Postgres, as the product starts its own; stop it and remove everything at the end."""
    with temporary_folder(on_disk=True) as folder:
        postgres = EmbeddedPostgres(folder)
        await postgres.start()
        try:
            yield Bench(folder, postgres.url, quick, peer_dir, zero_dir)
        finally:
            await postgres.stop()


@contextmanager
def left_uncollected() -> Iterator[None]:
    """Keep the garbage collector from going through all that is held now, again and again, while something is timed."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


__all__ = ["ROWS_EACH", "USERS", "Bench", "left_uncollected", "primary_of", "started"]
