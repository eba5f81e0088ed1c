"""Copies of a running Postgres, by pg_basebackup, and what becomes of them: a standby, a restored backup."""

from __future__ import annotations

import asyncio
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from primary.embedded.account import account_for
from primary.embedded.binaries import binary
from primary.embedded.cluster import ENVIRONMENT
from tests.support.databases import FAST
from tests.support.folders import temporary_folder
from tests.support.http import execute


class Backup:
    """A base backup of the server that ``url`` is of, taken by `take`, started as what it is to be, once.

    ``url`` then leads to the same database in the copy.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self._cluster = folder / "postgres"
        (self._socket_of_source,) = parse_qs(urlsplit(url).query)["host"]
        self._source_url = url
        self._account = account_for(Path(self._socket_of_source))
        self._account.let_through(self._cluster)
        self._account.own(folder)
        self.url = re.sub(r"host=[^&]*", f"host={self._cluster}", url)

    async def take(self) -> None:
        """Copy the server as it is now."""
        where = ("--host", self._socket_of_source, "--port", "5432", "--username", "postgres")
        await self._run(
            *("pg_basebackup", *where, "--pgdata", str(self._cluster)),
            *("--checkpoint=fast", "--no-sync", "--wal-method=stream"),
        )
        (self._cluster / ".s.PGSQL.5432.lock").unlink()  # the source's

    async def start_as_standby(self, *, streaming: bool) -> None:
        """Start it so that it follows the source; without ``streaming`` it gets no more than the backup has."""
        (self._cluster / "standby.signal").touch()
        source = f"host={self._socket_of_source} port=5432 user=postgres"
        await self._start(primary_conninfo=source if streaming else "")

    async def start_restored(self) -> None:
        """Start it as one restores a backup: by recovery, at whose end a new timeline begins."""
        (self._cluster / "recovery.signal").touch()
        await self._start(restore_command="false")

    async def start_in_place(self) -> None:
        """Start it as if it were the source itself after a crash: on the same timeline."""
        await self._start()

    async def promote(self) -> None:
        """Make a standby the primary."""
        await self._ctl("promote")

    async def caught_up(self) -> None:
        """Wait until a standby has everything that the source has now."""
        ((written,),) = await execute(self._source_url, "SELECT pg_current_wal_lsn()")
        while not (await execute(self.url, "SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", written))[0][0]:
            await asyncio.sleep(0.01)

    async def stop(self) -> None:
        if (self._cluster / "postmaster.pid").exists():
            await self._ctl("stop", "--mode=immediate")

    async def _start(self, **settings: str) -> None:
        given = {"unix_socket_directories": str(self._cluster), "port": "5432"} | FAST | settings
        options = " ".join(f"-c {name}='{value}'" for name, value in given.items())
        await self._ctl("start", f"--options={options}", f"--log={self._cluster / 'log'}")
        if settings.get("restore_command"):
            while (await execute(self.url, "SELECT pg_is_in_recovery()"))[0][0]:
                await asyncio.sleep(0.01)

    async def _ctl(self, order: str, *options: str) -> None:
        await self._run("pg_ctl", order, "--pgdata", str(self._cluster), "--wait", "--silent", *options)

    async def _run(self, program: str, *arguments: str) -> None:
        # In a thread: the loop's own processes cannot be another user's.
        def run() -> subprocess.CompletedProcess[bytes]:
            return subprocess.run(
                [str(binary(program)), *arguments],
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                check=False,
                **self._account.process,
            )

        done = await asyncio.to_thread(run)
        log = self._cluster / "log"
        assert done.returncode == 0, (program, arguments, done.stderr.decode(), log.exists() and log.read_text())


@asynccontextmanager
async def backup_of(url: str) -> AsyncIterator[Backup]:
    """A base backup as of now, not started yet; gone at the end."""
    with temporary_folder() as folder:
        backup = Backup(folder, url)
        await backup.take()
        try:
            yield backup
        finally:
            await backup.stop()
