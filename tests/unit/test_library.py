"""How the SQLite library of a process is set up: each time in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LOOK = """
import ctypes, _sqlite3, sqlite3
from replica.library import forgo_statistics

def kept():
    library = ctypes.CDLL(_sqlite3.__file__)
    library.sqlite3_memory_used.restype = ctypes.c_int64
    return library.sqlite3_memory_used() > 0

def works(connection):
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    return connection.execute("SELECT max(length(x)) FROM t").fetchone() == (1000000,)
"""


def _said(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", _LOOK + program], capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="is done on Linux alone")
def test_no_account_is_kept_once_it_was_given_up() -> None:
    said = _said("""
print(forgo_statistics(), forgo_statistics())
connection = sqlite3.connect(":memory:")
print(works(connection), kept())
""")
    assert said == ["True", "True", "True", "False"]


def test_nothing_is_touched_while_somebody_has_a_connection() -> None:
    said = _said("""
connection = sqlite3.connect(":memory:")
print(works(connection), forgo_statistics(), works(connection), kept())
""")
    assert said == ["True", "False", "True", "True"]


@pytest.mark.skipif(sys.platform != "linux", reason="is done on Linux alone")
def test_it_is_tried_again_when_they_have_closed_it() -> None:
    said = _said("""
connection = sqlite3.connect(":memory:")
print(forgo_statistics())
connection.close()
print(forgo_statistics(), works(sqlite3.connect(":memory:")))
""")
    assert said == ["False", "True", "True"]
