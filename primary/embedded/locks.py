"""Who uses the embedded Postgres of a data directory, kept by the kernel: a killed process leaves no trace.

Every process that uses the server holds a shared lock on one file. Who leaves asks for it alone: the last
one out, and only that one, gets it and stops the server. A second file is locked while a server is being
started.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from primary.embedded.errors import EmbeddedPostgresError

# Another process that starts a server may first have to recover it after a crash, or stop it.
WAIT_MAX_S = 300.0


class Usage:
    """Our share in the server of a data directory, from `share` to `release`."""

    def __init__(self, data_dir: Path) -> None:
        self._file = os.open(data_dir / "postgres.users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def share(self) -> None:
        """Become one of those who use the server; waits while another process stops it."""
        _lock(self._file, fcntl.LOCK_SH, "is being stopped by another process")

    def leave(self) -> bool:
        """Give up our share. Tells whether it was the last; then nobody can get one before `release`."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let go of the file, and so of every lock on it."""
        os.close(self._file)


@contextmanager
def starting(data_dir: Path) -> Iterator[None]:
    """Be the only process that starts a server in this data directory."""
    file = os.open(data_dir / "postgres.start", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(file, fcntl.LOCK_EX, "is being started by another process")
        yield
    finally:
        os.close(file)


def _lock(file: int, kind: int, why: str) -> None:
    deadline = time.monotonic() + WAIT_MAX_S
    while True:
        try:
            return fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"The embedded Postgres {why}, for {WAIT_MAX_S:.0f} s now.",
                    hint="See postgres.log in the data directory.",
                ) from None
            time.sleep(0.02)
