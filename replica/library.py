"""The SQLite of this process, which comes with apsw: how it is set up, and how a file is opened.

It is one and the same wherever the program runs, newer than most systems', and puts a row in in half the time that
`sqlite3` takes. A file that is open here is not to be opened with another SQLite of the same process: each would let
go of the other's locks (source: sqlite.org, How To Corrupt, 2.2).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import apsw

VERSION: str = apsw.sqlite_lib_version()
"""Of the library: what a file's indexes hold of expressions is what this one made of them."""

_BUSY_S = 5.0  # as long as a connection waits for another's lock unless it says so

_FLAGS = apsw.SQLITE_OPEN_URI | apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE  # the mode of a URI takes away
_configured = False


def connect(uri: str, *, busy_s: float = _BUSY_S) -> apsw.Connection:
    """Open a file; the mode of its URI says how, and whether it is made if there is none. Raises `apsw.Error`.

    A connection may be used in any thread, in one at a time. It plans a statement once: else SQLite may plan it anew
    for each value, to see whether a partial index would do for that one, which for a row takes six times as long as to
    read it (source: SQLITE_DBCONFIG_ENABLE_QPSG).
    """
    connection = apsw.Connection(uri, flags=_FLAGS)
    connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
    connection.set_busy_timeout(round(busy_s * 1e3))
    return connection


def execute_all(connection: apsw.Connection, statements: Iterable[str]) -> None:
    """Execute statements, one after another."""
    for statement in statements:
        connection.execute(statement)


def configure(temporary: Path | None = None) -> bool:
    """Have SQLite do without what nobody here needs; say whether it is configured so now.

    - It keeps no account of the memory that it holds, for which it would take a lock at each allocation and each
      release: a sixth of the time of putting many rows into a replica.
    - A connection gets no memory of its own for small things (the "lookaside"): 48 KiB for each, of a user who only
      listens too, and no read is slower without.

    What it sorts on the disk goes into the folder ``temporary``, unless SQLITE_TMPDIR names another: into files that
    have no name once they are open.

    It can only be done while nobody in this process has a connection: else all stays as it is. (Source: sqlite3_config,
    SQLITE_CONFIG_MEMSTATUS and SQLITE_CONFIG_LOOKASIDE.)
    """
    global _configured  # noqa: PLW0603 - there is one library in a process
    if not _configured and not apsw.connections():
        if temporary is not None:
            os.environ.setdefault("SQLITE_TMPDIR", str(temporary.absolute()))
        apsw.shutdown()
        try:
            apsw.config(apsw.SQLITE_CONFIG_MEMSTATUS, False)
            apsw.config(apsw.SQLITE_CONFIG_LOOKASIDE, 0, 0)
            _configured = True
        finally:
            apsw.initialize()
    return _configured
