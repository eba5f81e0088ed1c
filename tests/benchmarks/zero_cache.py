"""Zero, the other server, run from its folder on a Postgres of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
from psycopg.conninfo import conninfo_to_dict

from primary.embedded import EmbeddedPostgres, psql_path
from tests.benchmarks.bench import ROWS_EACH, USERS
from tests.benchmarks.process import free_ports, output_of, running, tree_cpu_s

START_S = 60
QUIET = 0.1  # of a core: what was deleted after a measurement is with its replica then
BENCH_MAX_S = 150
NODE_MIN = 22
_FILES = ("bench.mjs", "load.sql", "query-server.mjs", "schema.mjs", "zero.env")
_PACKAGES = ("@rocicorp/zero", "pg")
_OPENS = "new (require('@rocicorp/zero-sqlite3'))(':memory:')"


async def missing(folder: Path) -> str | None:
    """Say what keeps Zero from being run from this folder, and what to do; None if nothing does."""
    if absent := [name for name in _FILES if not (folder / name).is_file()]:
        return f"not the folder of Zero's benchmark: it has no {', '.join(absent)}"
    if absent := [name for name in _PACKAGES if not (folder / "node_modules" / name).is_dir()]:
        return f"not installed: {', '.join(absent)}; run npm install there"
    wanted = f"run npm install --no-save node@{NODE_MIN} there"
    if (node := _node(folder)) is None:
        return f"there is no node: {wanted}"
    version = (await output_of([node, "--version"], {})).strip()
    if int(version.removeprefix("v").partition(".")[0]) < NODE_MIN:
        return f"node is {version}, and has to be {NODE_MIN}: {wanted}"
    try:
        await output_of([node, "-e", _OPENS], {}, folder)
    except RuntimeError:
        return "its SQLite does not load: run npm rebuild @rocicorp/zero-sqlite3 there"
    return None


@dataclass(frozen=True, slots=True)
class Zero:
    """A running server, and its benchmark."""

    folder: Path
    node: str
    pid: int
    log: Path
    environment: Mapping[str, str]

    async def bench(self, *arguments: object) -> str:
        """Run its benchmark in one mode, and give what it says once it has nothing left to do.

        Raises `RuntimeError` where that takes too long: what waits for rows of a server that has failed waits forever.
        """
        try:
            async with asyncio.timeout(BENCH_MAX_S):
                said = await output_of([self.node, "bench.mjs", *map(str, arguments)], self.environment, self.folder)
                while await self._busy() > QUIET:
                    pass
        except TimeoutError as error:
            raise RuntimeError(f"Zero is not done with {arguments} after {BENCH_MAX_S} s: {self._said()}") from error
        except psutil.NoSuchProcess as error:
            raise RuntimeError(f"Zero has ended: {self._said()}") from error
        return said

    def first_copy_ms(self) -> float:
        """Say how long it took to copy all rows into a replica and to make its index, by its own log."""
        if (found := re.search(r"Synced [\d,]+ rows .* total: ([\d.]+) ms", self.log.read_text())) is None:
            raise RuntimeError(f"Zero's log does not tell of its first copy: {self._said()}")
        return float(found[1])

    async def _busy(self) -> float:
        """Look for a moment how much of a core it takes, its Postgres left out: that only does as it is told."""
        before = tree_cpu_s(self.pid)
        await asyncio.sleep(0.5)
        return (tree_cpu_s(self.pid) - before) / 0.5

    def _said(self) -> str:
        return self.log.read_text(errors="replace")[-300:]


@asynccontextmanager
async def zero_running(folder: Path, data: Path) -> AsyncIterator[Zero]:
    """Run Postgres with as many rows as ours has, the endpoint that Zero asks for queries, and Zero, in turn.

    They meet on the socket of Postgres, as ours do. Everything is kept in ``data`` and ended at the end.
    """
    data.mkdir()
    node = _node(folder)
    assert node is not None, "`missing` has told of it"
    cache, changes, queries = free_ports(3)
    async with AsyncExitStack() as stack:
        postgres = EmbeddedPostgres(data, settings={"wal_level": "logical"})
        await postgres.start()
        stack.push_async_callback(postgres.stop)
        url = await _loaded(folder, postgres.url)
        environment = _settings(folder) | {
            "PATH": _path(folder),
            "PG": url,
            "PGHOST": str(conninfo_to_dict(url)["host"]),
            "PGUSER": "postgres",
            "ZERO_UPSTREAM_DB": "postgres:///app?sslmode=disable",
            "ZERO_REPLICA_FILE": str(data / "zero.db"),
            "ZERO_PORT": str(cache),
            "ZERO_CHANGE_STREAMER_PORT": str(changes),
            "ZERO_QUERY_URL": f"http://127.0.0.1:{queries}/query",
            "ZERO_MUTATE_URL": f"http://127.0.0.1:{queries}/mutate",
            "QUERY_PORT": str(queries),
            "CACHE_URL": f"http://127.0.0.1:{cache}",
        }
        started = [
            await stack.enter_async_context(
                running([node, program], environment, folder, port=port, log=log, start_s=START_S)
            )
            for program, port, log in (
                ("query-server.mjs", queries, data / "queries.log"),
                ("node_modules/.bin/zero-cache", cache, data / "zero.log"),
            )
        ]
        yield Zero(folder, node, started[-1], data / "zero.log", environment)


async def _loaded(folder: Path, server_url: str) -> str:
    """Make its database with its rows, and give the URL."""
    async with await psycopg.AsyncConnection.connect(server_url, autocommit=True) as connection:
        await connection.execute("CREATE DATABASE app")
    url = server_url.replace("@/tidepool?", "@/app?")
    variables = ("-v", "ON_ERROR_STOP=1", "-v", f"users={USERS}", "-v", f"rows={USERS * ROWS_EACH}")
    await output_of([str(psql_path()), "-X", "-q", *variables, "-f", str(folder / "load.sql"), url], {})
    return url


def _settings(folder: Path) -> dict[str, str]:
    return dict(re.findall(r"^(\w+)=(.*)$", (folder / "zero.env").read_text(), re.MULTILINE))


def _path(folder: Path) -> str:
    """Look for programs first where npm puts them, as npx does: node itself may be there."""
    return f"{folder / 'node_modules' / '.bin'}{os.pathsep}{os.environ.get('PATH', '')}"


def _node(folder: Path) -> str | None:
    return shutil.which("node", path=_path(folder))
