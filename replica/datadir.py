"""One process owns one data directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from replica.errors import DataDirectoryLocked


class Ownership:
    """An exclusive lock on a data directory, which the system gives up when the process ends, however it ends."""

    def __init__(self, lock: Path) -> None:
        self._path = lock
        self._descriptor: int | None = None

    def take(self) -> None:
        """Take the lock. Raises `DataDirectoryLocked`, naming the process that has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise DataDirectoryLocked(
                f"the data directory {self._path.parent} is in use by another process (pid {owner})"
            ) from None
        except OSError:  # as on a disk that knows no locks
            os.close(descriptor)
            raise
        with contextlib.suppress(OSError):  # a full disk: the lock is what counts, the number only tells who has it
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock up."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
