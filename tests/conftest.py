"""What every test can ask for.

postgres          the session's Postgres server            databases    makes databases on it
database_url      a migrated database of the test's own    empty_database_url    one without any table
primary catalog feed store data_dir                        the engine's parts on that database
own_postgres      a Postgres of the test's own, to stop and start
cluster           the data directory of one at rest, to be copied
proxy             a TCP proxy before the test's database, to cut, stall and deafen
terminal          programs that the test starts end when their terminal is closed, be the suite run under `nohup`
seed              for what chance decides, told where the test fails
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import hypothesis
import pytest

from gateway.settings import Settings
from primary.declaration import Catalog
from primary.embedded import EmbeddedPostgres
from primary.feed import Feed
from primary.gallery import tables
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from replica.store import Store
from tests.support.databases import FAST, Databases, temporary_postgres, through
from tests.support.folders import copied, temporary_folder
from tests.support.proxy import PostgresProxy, proxied
from tests.support.server import RunningServer, ServerProcess, running
from tests.support.server import token as make_token
from tests.support.turns import turn

# The machine may be busy: how long an example takes says nothing.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Have one process more than there are cores, for much of a test is waiting; more than four gain little."""
    return min(4, (os.cpu_count() or 1) + 1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool, bool]:
    """Have each test of one process of several take its turn; its time begins then."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    with turn(alone=any(map(item.get_closest_marker, ("alone", "browser")))):
        return (yield)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    with temporary_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def databases(postgres: EmbeddedPostgres) -> Databases:
    made = Databases(postgres.url)
    asyncio.run(made.make_template(tables.catalog))
    return made


@pytest.fixture
async def database_url(databases: Databases) -> AsyncIterator[str]:
    async with databases.database() as url:
        yield url


@pytest.fixture
async def empty_database_url(databases: Databases) -> AsyncIterator[str]:
    async with databases.database(migrated=False) as url:
        yield url


@pytest.fixture
def catalog() -> Catalog:
    return tables.catalog


@pytest.fixture
async def primary(database_url: str) -> AsyncIterator[Primary]:
    async with through(database_url) as opened:
        yield opened


@pytest.fixture
def feed(primary: Primary, catalog: Catalog) -> Feed:
    return PostgresFeed(primary, catalog)


@pytest.fixture
def terminal() -> Iterator[None]:
    """Whoever runs the suite under `nohup` has SIGHUP ignored, and so would have each program that is started here."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Pytest's own would be on a disk, and stay there when the test is over."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with temporary_folder() as folder:
        yield folder / "data"


@pytest.fixture
async def store(data_dir: Path, catalog: Catalog, feed: Feed) -> AsyncIterator[Store]:
    opened = Store(data_dir, catalog, feed)
    await opened.open()
    try:
        yield opened
    finally:
        await opened.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """A data directory with an empty Postgres in it, at rest: copying it takes a tenth of making one."""
    with temporary_folder() as folder:
        server = EmbeddedPostgres(folder, settings=FAST)
        asyncio.run(server.start())
        asyncio.run(server.stop())
        yield folder


@pytest.fixture
async def own_postgres(cluster: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A running Postgres of the test's own: ``await own_postgres.stop()``, ``await own_postgres.start()``."""
    with copied(cluster) as folder:
        server = EmbeddedPostgres(folder, settings=FAST)
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[PostgresProxy]:
    async with proxied(database_url) as running:
        yield running


Serving = Callable[..., AbstractAsyncContextManager[RunningServer]]


@pytest.fixture
def serving(data_dir: Path, database_url: str) -> Serving:
    """``async with serving(page_max=10) as server``: settings by name, over the test's own database."""

    def start(**settings: Any) -> AbstractAsyncContextManager[RunningServer]:
        given: dict[str, Any] = {"data_dir": data_dir, "database_url": database_url} | settings
        return running(Settings(**given))

    return start


@pytest.fixture
async def server(serving: Serving) -> AsyncIterator[RunningServer]:
    async with serving() as started:
        yield started


@pytest.fixture
def client(server: RunningServer) -> httpx.AsyncClient:
    return server.client("alice")


@pytest.fixture
async def server_process(data_dir: Path, database_url: str) -> AsyncIterator[ServerProcess]:
    """A process that is not started yet: ``await server_process.start(crash_at="build.renamed")``."""
    process = ServerProcess(data_dir, database_url, {})
    try:
        yield process
    finally:
        await process.kill()


@pytest.fixture
def token() -> Callable[..., str]:
    """``token("alice", admin=True, ttl_s=60)``"""
    return make_token


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A new one each time, told where the test fails; TIDEPOOL_TEST_SEED repeats one."""
    seed = int(os.environ.get("TIDEPOOL_TEST_SEED") or random.randrange(10**9))
    request.node.add_report_section("setup", "seed", f"TIDEPOOL_TEST_SEED={seed}")
    return seed
