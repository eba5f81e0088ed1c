"""A folder to work in beside a file that is to be, which does not stay behind when its process is killed.

Whoever works in one has it locked. What nobody has locked was left by a process that was killed, for the system takes
the locks of the dead; whoever works in the same place next clears it away.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".tidepool-working-"


@contextmanager
def working_folder(beside: Path) -> Iterator[Path]:
    """Make a folder in ``beside`` that only its owner may enter, clear away what the killed left there, remove it."""
    for left in beside.glob(f"{PREFIX}*"):
        with suppress(OSError):  # in use, somebody else's, or gone by now
            _clear(left)
    folder, descriptor = _made(beside)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


def _made(beside: Path) -> tuple[Path, int | None]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=beside))
        try:
            return folder, _locked(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # cleared away by somebody else before it was locked
        except OSError:
            return folder, None  # folders cannot be locked on this disk, so nobody clears any away there


def _clear(left: Path) -> None:
    if left.lstat().st_uid != os.geteuid():
        return
    descriptor = _locked(left)
    try:
        shutil.rmtree(left)
    finally:
        os.close(descriptor)


def _locked(folder: Path) -> int:
    """Lock a folder, and give what is to be closed to unlock it. Raises `OSError`, also where it is gone meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), folder.lstat()):
            raise FileNotFoundError(folder)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
