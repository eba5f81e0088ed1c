"""Making and checking the data directory ("cluster") of the embedded Postgres."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from primary.embedded.account import Account
from primary.embedded.binaries import MAJOR_VERSION, binary, program_folders
from primary.embedded.errors import EmbeddedPostgresError

# Written into a new cluster's postgresql.conf, where an operator may change them.
SETTINGS = {
    # Only the user that runs it can connect, and only through the socket in the data directory.
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # One disk that seeks well; many small queries, for which compiling never pays.
    "random_page_cost": "1.1",
    "jit": "off",
    # Keep the log to what someone should look at.
    "log_checkpoints": "off",
    "log_autovacuum_min_duration": "-1",
}

# What Postgres programs see of our environment: nothing. It may hold secrets, which are none of theirs, and
# PGPORT and the like, which would change what they do.
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "TZ": "UTC"}

# sockaddr_un.sun_path, less its closing zero and the name of the socket.
_SOCKET_DIR_MAX_BYTES = (107 if sys.platform == "linux" else 103) - len("/.s.PGSQL.5432")


def prepare(cluster: Path, account: Account) -> None:
    """Make ``cluster`` unless it is there, and check that the bundled Postgres can run it.

    A process killed half-way leaves no half-made cluster: it gets its name when it is complete.
    Raises `EmbeddedPostgresError`.
    """
    server = binary("postgres")
    account.let_through(server)
    for folder in program_folders():
        account.let_read(folder)
    account.let_through(cluster)
    if not cluster.exists():
        _create(cluster, account)
    version_file = cluster / "PG_VERSION"
    version = version_file.read_text().strip() if version_file.exists() else None
    if version is None:
        raise EmbeddedPostgresError(
            f"{cluster} is not a data directory of Postgres.",
            hint="Move it away, and a new one is made; or point TIDEPOOL_DATA_DIR elsewhere.",
        )
    if version != str(MAJOR_VERSION):
        raise EmbeddedPostgresError(
            f"{cluster} was made by Postgres {version}; the bundled one is {MAJOR_VERSION}.",
            hint=f"Carry it over with pg_dumpall and psql, or with pg_upgrade; or move {cluster} away.",
        )
    if account.switch and cluster.stat().st_uid != account.uid:
        account.own(cluster)  # root copied it here
    if stat.S_IMODE(cluster.stat().st_mode) & 0o077:
        cluster.chmod(0o700)  # Postgres refuses a directory that others can read


def _create(cluster: Path, account: Account) -> None:
    unfinished = cluster.with_name(f"{cluster.name}.new")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    account.own(unfinished)
    command = [
        str(binary("initdb")),
        *("--pgdata", str(unfinished), "--username", "postgres", "--no-instructions"),
        *("--auth-local", "trust", "--auth-host", "reject"),
        # Text sorts by code point, the same on every machine, and as in SQLite.
        *(
            "--encoding",
            "UTF8",
            "--locale",
            "C",
            "--locale-provider",
            "builtin",
            "--builtin-locale",
            "C.UTF-8",
        ),
        *(f"--set={name}={value}" for name, value in SETTINGS.items()),
    ]
    done = subprocess.run(
        command,
        env=ENVIRONMENT,
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        **account.process,
    )
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise EmbeddedPostgresError(
            f"Postgres could not make its data directory {cluster}: {''.join(last)}",
            hint=disk_hint(cluster.parent),
        )
    unfinished.rename(cluster)


def socket_dir_for(cluster: Path, account: Account) -> Path:
    """Choose the folder of the server's socket: the cluster, or a short one where that path is too long.

    Or where it has a comma, which parts one folder from the next for server and clients alike.
    Raises `EmbeddedPostgresError` where the short one is not ours alone.
    """
    if len(os.fsencode(cluster)) <= _SOCKET_DIR_MAX_BYTES and "," not in str(cluster):
        return cluster
    name = f"tidepool-{hashlib.sha256(os.fsencode(cluster)).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()).resolve() / name
    try:
        folder.mkdir(mode=0o700)
        account.own(folder)
        account.let_through(folder)
    except FileExistsError:
        pass
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == account.uid and not found.st_mode & 0o077
    if not ours or len(os.fsencode(folder)) > _SOCKET_DIR_MAX_BYTES:
        raise EmbeddedPostgresError(
            f"The path of {cluster} is too long for a socket, or has a comma, and {folder} cannot be used instead.",
            hint=f"Set TIDEPOOL_DATA_DIR to a path of at most {_SOCKET_DIR_MAX_BYTES - 9} bytes, without a comma.",
        )
    return folder


def disk_hint(folder: Path) -> str:
    """Say so if the disk under ``folder`` is full, which explains much of what fails; else say nothing."""
    free = shutil.disk_usage(folder).free
    if free >= 64 * 1024**2:
        return ""
    return f"The disk is full: {free // 1024**2} MiB are left for {folder}. Make room, then start again."
