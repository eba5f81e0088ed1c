"""Start and stop the Postgres of a data directory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import psycopg

from primary.embedded.account import Account, account_for
from primary.embedded.binaries import binary
from primary.embedded.cluster import ENVIRONMENT, disk_hint, prepare, socket_dir_for
from primary.embedded.errors import EmbeddedPostgresError
from primary.embedded.libpq import forget_other_servers
from primary.embedded.locks import Usage, starting
from primary.embedded.postmaster import Postmaster

DATABASE = "tidepool"

# A server that was killed first replays its log, which takes as long as it takes: it is given up on only
# when it ends.
START_MAX_S = 300.0
# A fast stop writes what memory holds; past this it is an immediate one, and the next start replays the log.
STOP_MAX_S = 20.0
# Both come about in a fraction of a second; this is how much of it can be lost.
POLL_S = 0.01
LOG_MAX_BYTES = 10 * 1024**2


class EmbeddedPostgres:
    """The Postgres server of one data directory: `start` it, use its `url`, `stop` it.

    Several processes may use one server: the first starts it, the last one out stops it. A server that was
    left by a killed process is picked up. The cluster is ``data_dir/postgres``, its log
    ``data_dir/postgres.log``, and the socket in the cluster is the only way to connect: for the same system
    user, without a password.

    ``settings`` override those of ``postgresql.conf`` in a server that this object starts.
    """

    def __init__(self, data_dir: Path, *, settings: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir.expanduser().absolute().resolve()
        self.cluster = self.data_dir / "postgres"
        self.log = self.data_dir / "postgres.log"
        self._settings = dict(settings or {})
        self._usage: Usage | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket_dir = ""
        self._log_start = 0
        self._changing = threading.Lock()  # held by the thread that starts or stops the server
        self._leaving = threading.Event()  # nobody waits any more for it to be ready, which may take it long

    @property
    def url(self) -> str:
        """The server's address as libpq and SQLAlchemy read it; valid from `start` to `stop`."""
        if not self._socket_dir:
            raise EmbeddedPostgresError("The embedded Postgres is not started.")
        return _url(self._socket_dir)

    async def start(self) -> str:
        """Start the server, or join the one that runs, and give its address; makes what is missing.

        A start that is cancelled or fails leaves no server running that was not before.
        Raises `EmbeddedPostgresError`, whose hint says what to do.
        """
        self._leaving.clear()
        work = asyncio.ensure_future(asyncio.to_thread(self._start))
        try:
            return await asyncio.shield(work)
        except BaseException:
            self._leaving.set()
            # The thread cannot be cancelled: let it end, then undo what it did, however often we are told to end.
            while not work.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait([work])
            if not work.cancelled():
                work.exception()  # seen: what ended the start is raised below
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop the server unless another process uses it. It waits neither for open connections nor for a recovery."""
        self._leaving.set()
        await asyncio.to_thread(self._stop)

    async def revive(self) -> bool:
        """Start the server again if it is gone, though it was not stopped; tell whether it was.

        It was killed, or gave up on a full disk. Raises `EmbeddedPostgresError`, and OSError.
        """
        return await asyncio.to_thread(self._revive)  # who leaves need not wait: `stop` does

    def running(self) -> bool:
        """Tell whether a server runs in the data directory, whoever started it."""
        return Postmaster.of(self.cluster) is not None

    def running_url(self) -> str | None:
        """Give the address of the server that runs in the data directory, whoever started it; None if none does."""
        found = Postmaster.of(self.cluster)
        return None if found is None else _url(found.socket_dir)

    # ── In a thread ─────────────────────────────────────────────────────────────────────────────────────────

    def _start(self) -> str:
        with self._changing:
            return self._started()

    def _started(self) -> str:
        if self._usage is not None:
            return self.url
        forget_other_servers()
        try:
            self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            account = account_for(self.cluster)
            usage = Usage(self.data_dir)
        except OSError as error:
            raise EmbeddedPostgresError(
                f"The data directory {self.data_dir} cannot be used: {error.strerror}.",
                hint=disk_hint(_existing(self.data_dir)) or "Check who owns it, or set TIDEPOOL_DATA_DIR to another.",
            ) from error
        self._usage = usage
        usage.share()
        with starting(self.data_dir):
            found = Postmaster.of(self.cluster)
            if found is not None and found.status == "stopping":
                self._wait("stop", lambda: Postmaster.of(self.cluster) is None)
                found = None
            if found is None:
                self._spawn(account)
            self._wait("be ready", self._ready)
            self._create_database()
        return self.url

    def _revive(self) -> bool:
        with self._changing:
            if self._usage is None or self.running():
                return False
            with starting(self.data_dir):
                if self.running():
                    return False
                if self._process is not None:
                    self._process.poll()  # its end was not waited for yet
                self._spawn(account_for(self.cluster))
                self._wait("be ready", self._ready)
            return True

    def _spawn(self, account: Account) -> None:
        prepare(self.cluster, account)
        socket_dir = socket_dir_for(self.cluster, account)
        # No server runs here, so these files are a dead one's; its process id may be another program's by now, or
        # still its own because nobody has waited for it, at the sight of which Postgres would refuse to start.
        for left_over in (self.cluster / "postmaster.pid", socket_dir / ".s.PGSQL.5432.lock"):
            left_over.unlink(missing_ok=True)
        if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        settings = {"unix_socket_directories": str(socket_dir), "port": "5432", **self._settings}
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [binary("postgres"), "-D", str(self.cluster), *options],
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C in a terminal is for us: it must not stop Postgres before we have finished with it.
                start_new_session=True,
                **account.process,
            )

    def _ready(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            raise EmbeddedPostgresError(
                f"Postgres did not start: {self._said()}",
                hint=disk_hint(self.data_dir) or f"Its log is {self.log}.",
            )
        found = Postmaster.of(self.cluster)
        if found is None and self._process is None:
            raise EmbeddedPostgresError(f"Postgres ended while it was starting: see {self.log}.")
        if found is None:
            return False
        if found.status != "ready":
            if self._leaving.is_set():
                raise EmbeddedPostgresError("Postgres is stopped while it is starting.")
            return False
        self._socket_dir = found.socket_dir
        return True

    def _said(self) -> str:
        """Give the last complaint that the server wrote to its log before it ended."""
        with self.log.open("rb") as log:
            log.seek(self._log_start)
            lines = log.read().decode(errors="replace").splitlines()
        complaints = [line.partition(":  ")[2] for line in lines if " FATAL:  " in line or " PANIC:  " in line]
        return (complaints or lines or ["it said nothing"])[-1].strip()

    def _create_database(self) -> None:
        address = self.url.replace(f"@/{DATABASE}?", "@/postgres?")
        try:
            with psycopg.connect(address, autocommit=True, connect_timeout=10) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                    connection.execute(f"CREATE DATABASE {DATABASE}")
        except psycopg.Error as error:
            raise EmbeddedPostgresError(
                f"The embedded Postgres runs, but cannot be used: {error}", hint=disk_hint(self.data_dir)
            ) from error

    def _stop(self) -> None:
        with self._changing:
            self._stopped()

    def _stopped(self) -> None:
        usage, self._usage = self._usage, None
        if usage is None:
            return
        self._socket_dir = ""
        try:
            if usage.leave():
                self._end()
        finally:
            usage.release()
            if self._process is not None and self._process.poll() is None:
                # It lives on for others; it is no longer ours to wait for.
                self._process.returncode = 0
            self._process = None

    def _end(self) -> None:
        """Stop the server: no new connections, those that are open are ended, everything is written."""
        found = Postmaster.of(self.cluster)
        if found is None or found.apart:  # the latter ends with its container
            return
        for order in (signal.SIGINT, signal.SIGQUIT):
            with suppress(ProcessLookupError):
                os.kill(found.pid, order)
            deadline = time.monotonic() + STOP_MAX_S
            while time.monotonic() < deadline:
                if Postmaster.of(self.cluster) is None:
                    if found.socket_dir != str(self.cluster):
                        with suppress(OSError):
                            Path(found.socket_dir).rmdir()
                    return
                time.sleep(POLL_S)
        raise EmbeddedPostgresError(f"Postgres does not stop; its process is {found.pid}: see {self.log}.")

    def _wait(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_MAX_S
        while not done():
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(f"Postgres took longer than {START_MAX_S:.0f} s to {what}: see {self.log}.")
            time.sleep(POLL_S)


def _url(socket_dir: str) -> str:
    # The port only names the socket; it is given so that PGPORT cannot change it.
    return f"postgresql://postgres@/{DATABASE}?host={quote(socket_dir)}&port=5432"


def _existing(path: Path) -> Path:
    """Find the nearest folder above ``path`` that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
