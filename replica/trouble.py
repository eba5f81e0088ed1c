"""What errors of SQLite and of the system say: that a file is not to be believed, or that the machine is in trouble.

The difference matters. A file in doubt is set aside and built anew; a good file must outlast a full disk, too many open
files, or another program's lock.
"""

from __future__ import annotations

import sqlite3

from replica.errors import Doubt, ReadTimeout, ReplicaUnavailable

HINT = "Check that the data directory's disk has room and works, and that the process may open more files."

_BROKEN = {
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_NOTADB,
    sqlite3.SQLITE_FORMAT,
    sqlite3.SQLITE_IOERR_READ,
    sqlite3.SQLITE_IOERR_SHORT_READ,
    sqlite3.SQLITE_IOERR_CORRUPTFS,
    sqlite3.SQLITE_IOERR_DATA,
}
_IN_TROUBLE = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_BUSY}
# A file that is as it was written takes every change of the feed.
_UNLIKE_OURS = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}


def of_reading(error: BaseException) -> BaseException:
    """Give what an error of a read means: `Doubt`, `ReadTimeout`, `ReplicaUnavailable`, or the error itself."""
    if isinstance(error, StopIteration):  # no future takes it
        return RuntimeError("the read stopped its caller's iteration")
    code = _code(error)
    if code & 0xFF == sqlite3.SQLITE_INTERRUPT:
        return ReadTimeout()
    if code in _BROKEN or code & 0xFF in _BROKEN:
        return Doubt(f"SQLite finds the file broken: {error}")
    if code & 0xFF in _IN_TROUBLE:
        return ReplicaUnavailable(f"the replica cannot be read: {error}", hint=HINT)
    return error


def of_reading_apart(error: sqlite3.Error | OSError) -> BaseException:
    """Give what an error means of a read that also writes files of its own."""
    return of_building(error) if isinstance(error, OSError) else of_reading(error)


def of_applying(error: sqlite3.Error) -> Exception:
    """Give what an error of applying changes means: `Doubt` or `ReplicaUnavailable`."""
    code = _code(error)
    if code in _BROKEN or code & 0xFF in _BROKEN | _UNLIKE_OURS:
        return Doubt(f"SQLite cannot apply changes to the file: {error}")
    return of_building(error)


def of_building(error: sqlite3.Error | OSError) -> ReplicaUnavailable:
    """Give what an error of building or of keeping files means."""
    told = error.strerror if isinstance(error, OSError) else str(error)
    return ReplicaUnavailable(f"the replica cannot be written: {told}", hint=HINT)


def _code(error: BaseException) -> int:
    return getattr(error, "sqlite_errorcode", 0) if isinstance(error, sqlite3.Error) else 0
