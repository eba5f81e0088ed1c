"""Where replicas lie in the data directory."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from replica.errors import InvalidUser

USER_ID_MAX_CHARS = 255  # as the gallery's tables have it
# What SQLite opens; links are followed first. (Source: MAX_PATHNAME in os_unix.c, less "-journal".)
_DATABASE_MAX_BYTES = 504


@dataclass(frozen=True, slots=True)
class Location:
    """The files of one user's replica: the database, its write-ahead log and that log's index, and its seal."""

    database: Path

    @property
    def wal(self) -> Path:
        """The write-ahead log."""
        return self.database.with_name(self.database.name + "-wal")

    @property
    def shm(self) -> Path:
        """The log's index, shared by the connections that are open."""
        return self.database.with_name(self.database.name + "-shm")

    @property
    def seal(self) -> Path:
        """How the files looked after the last write that was ours."""
        return self.database.with_suffix(".seal")

    def uri(self, mode: str) -> str:
        """Give the database as SQLite's URI, in which a path's ``?``, ``#`` and ``%`` mean themselves."""
        return f"{self.database.absolute().as_uri()}?mode={mode}"

    def beside(self) -> tuple[Path, ...]:
        """Give the files that belong to the database file and mean nothing without it."""
        return (self.wal, self.shm, self.seal)


class DataDirectory:
    """The layout of a data directory. A user's id is never part of a path: its SHA-256 is."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.lock = root / "lock"
        self.replicas = root / "replicas"
        self.building = root / "building"
        self.apart = root / "apart"
        self.quarantine = root / "quarantine"

    def of(self, user: str) -> Location:
        """Give the place of a user's replica. Raises `InvalidUser`."""
        if not 1 <= len(user) <= USER_ID_MAX_CHARS or "\0" in user:
            raise InvalidUser
        try:
            name = hashlib.sha256(user.encode()).hexdigest()
        except UnicodeEncodeError:  # half of a surrogate pair
            raise InvalidUser("A user's id is text; this one is not valid Unicode.") from None
        return Location(self.replicas / name[:2] / name[2:4] / f"{name}.db")

    def check(self) -> None:
        """Raise OSError where the path is so long that SQLite would open no replica in it."""
        longest = os.path.realpath(self.of("anybody").database)
        if len(os.fsencode(longest)) > _DATABASE_MAX_BYTES:
            raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), longest)

    def all(self) -> Iterator[Location]:
        """Go through every replica that there is. Raises OSError where it may not be looked."""
        found = os.walk(self.replicas, onerror=_unless_missing)  # a glob passes over what it may not look into
        databases = (Path(folder, name) for folder, _, names in found for name in names if name.endswith(".db"))
        return (Location(path) for path in sorted(databases))


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def remove(path: Path) -> None:
    """Remove what is there, whatever it is; a folder with all that is in it, a link without what it points to."""
    try:
        path.unlink(missing_ok=True)
    except OSError:
        if not path.is_dir():
            raise
        shutil.rmtree(path)


def remove_all(database: Path) -> None:
    """Remove a database that is being built, and all that may lie beside it."""
    for each in (database, *Location(database).beside(), database.with_name(database.name + "-journal")):
        remove(each)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
