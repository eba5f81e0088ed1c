"""How the SQLite library of this process is set up, once, before anything is opened."""

from __future__ import annotations

import _sqlite3
import ctypes
import sys

_CONFIG_MEMSTATUS = 9  # sqlite3.h
_done = False


def forgo_statistics() -> bool:
    """Have SQLite keep no account of the memory that it holds; say whether it keeps none now.

    It takes a lock for that at each allocation and each release, which is a sixth of the time of putting many rows into
    a replica. Nothing here asks for the account. It can only be given up while nobody in this process has a connection
    (the account says so itself), and where `sqlite3` lets the library be reached: else all stays as it is.
    (Source: sqlite3_config and SQLITE_CONFIG_MEMSTATUS.)
    """
    global _done  # noqa: PLW0603 - there is one library in a process
    if _done or sys.platform != "linux":  # elsewhere a C function that takes any number of arguments may be another's
        return _done
    try:
        library = ctypes.PyDLL(_sqlite3.__file__)  # holds the interpreter's lock: nobody opens anything meanwhile
        used, shutdown, config, initialize = (
            getattr(library, f"sqlite3_{name}") for name in ("memory_used", "shutdown", "config", "initialize")
        )
    except (AttributeError, OSError):  # built into the interpreter
        return False
    used.restype = ctypes.c_int64
    if used() != 0:
        return False
    shutdown()
    try:
        _done = bool(config(_CONFIG_MEMSTATUS, 0) == 0)
    finally:
        initialize()
    return _done
