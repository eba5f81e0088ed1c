"""What errors of SQLite and of the system say: that a file is not to be believed, or that the machine is in trouble.

The difference matters. A file in doubt is set aside and built anew; a good file must outlast a full disk, too many open
files, a lack of memory, or another program's lock.
"""

from __future__ import annotations

import apsw

from replica.errors import Doubt, ReadTimeout, ReplicaUnavailable

HINT = (
    "Check that the data directory's disk has room and works, and that the process has memory and may open more files."
)

_BROKEN = {
    apsw.SQLITE_CORRUPT,
    apsw.SQLITE_NOTADB,
    apsw.SQLITE_FORMAT,
    apsw.SQLITE_IOERR_READ,
    apsw.SQLITE_IOERR_SHORT_READ,
    apsw.SQLITE_IOERR_CORRUPTFS,
    apsw.SQLITE_IOERR_DATA,
}
_IN_TROUBLE = {
    apsw.SQLITE_FULL,
    apsw.SQLITE_IOERR,
    apsw.SQLITE_CANTOPEN,
    apsw.SQLITE_NOMEM,
    apsw.SQLITE_BUSY,
    apsw.SQLITE_PROTOCOL,  # busy, too: others were quicker each time that the log's index was looked at
}
# A file that is as it was written takes every change of the feed.
_UNLIKE_OURS = {apsw.SQLITE_ERROR, apsw.SQLITE_CONSTRAINT, apsw.SQLITE_MISMATCH}


def of_reading(error: BaseException) -> BaseException:
    """Give what an error of a read means: `Doubt`, `ReadTimeout`, `ReplicaUnavailable`, or the error itself."""
    if isinstance(error, StopIteration):  # no future takes it
        return RuntimeError("the read stopped its caller's iteration")
    if isinstance(error, UnicodeDecodeError):  # of a text in the file: Postgres has none that is not UTF-8
        return Doubt(f"the file is broken: {error}")
    code = _code(error)
    if code & 0xFF == apsw.SQLITE_INTERRUPT:
        return ReadTimeout()
    if code in _BROKEN or code & 0xFF in _BROKEN:
        return Doubt(f"SQLite finds the file broken: {error}")
    if code & 0xFF in _IN_TROUBLE:
        return ReplicaUnavailable(f"the replica cannot be read: {error}", hint=HINT)
    return error


def of_reading_apart(error: apsw.Error | OSError) -> BaseException:
    """Give what an error means of a read that also writes files of its own."""
    return of_building(error) if isinstance(error, OSError) else of_reading(error)


def of_applying(error: apsw.Error) -> Exception:
    """Give what an error of applying changes means: `Doubt` or `ReplicaUnavailable`."""
    code = _code(error)
    if code in _BROKEN or code & 0xFF in _BROKEN | _UNLIKE_OURS:
        return Doubt(f"SQLite cannot apply changes to the file: {error}")
    return of_building(error)


def of_building(error: apsw.Error | OSError) -> ReplicaUnavailable:
    """Give what an error of building or of keeping files means."""
    told = error.strerror if isinstance(error, OSError) else str(error)
    return ReplicaUnavailable(f"the replica cannot be written: {told}", hint=HINT)


def _code(error: BaseException) -> int:
    return getattr(error, "extendedresult", 0) if isinstance(error, apsw.Error) else 0
