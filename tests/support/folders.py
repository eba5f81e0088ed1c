"""Where the tests keep their files: in memory, if there is enough of it, for none of them need outlive the run."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = "tidepool-test-"

_MEMORY = Path("/dev/shm")
# A run keeps some hundred MB at a time. A container's share is often of 64 MB: then the disk it is.
_ROOM_MIN_BYTES = 3 * 1024**3


def in_memory() -> Path | None:
    """Give the folder whose files are in memory; None where there is none, or too little room."""
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ROOM_MIN_BYTES
    return _MEMORY if roomy else None


@contextmanager
def temporary_folder(*, on_disk: bool = False) -> Iterator[Path]:
    """A folder with a short path (sockets have short paths), gone at the end; ``on_disk`` for what measures."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=None if on_disk else in_memory()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def copied(original: Path) -> Iterator[Path]:
    """A temporary folder with all that is in another, owners and modes included."""
    with temporary_folder() as folder:
        subprocess.run(["cp", "-a", f"{original}/.", str(folder)], check=True)
        yield folder


def temporary_folders() -> list[Path]:
    """Find those that there are, of every run: also those that a killed one has left."""
    places = {_MEMORY, Path(tempfile.gettempdir())}
    return [folder for place in places if place.is_dir() for folder in place.glob(f"{PREFIX}*")]
