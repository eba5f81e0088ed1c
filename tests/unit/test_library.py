"""How the SQLite library of a process is set up: each time in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from replica.library import connect

_LOOK = """
import apsw
from replica.library import connect, configure

def kept():
    return apsw.memory_used() > 0

def works(connection):
    connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
    connection.execute("INSERT INTO t VALUES (zeroblob(1000000))")
    return connection.execute("SELECT max(length(x)) FROM t").get == 1000000
"""


def _said(program: str) -> list[str]:
    alone = {name: value for name, value in os.environ.items() if name != "SQLITE_TMPDIR"}  # a store here has set it
    command = [sys.executable, "-c", _LOOK + program]
    done = subprocess.run(command, env=alone, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_no_account_is_kept_once_it_was_given_up() -> None:
    said = _said("""
print(configure(), configure())
print(works(connect(":memory:")), kept())
""")
    assert said == ["True", "True", "True", "False"]


def test_nothing_is_touched_while_somebody_has_a_connection() -> None:
    said = _said("""
connection = connect(":memory:")
print(works(connection), configure(), works(connection), kept())
""")
    assert said == ["True", "False", "True", "True"]


def test_it_is_tried_again_when_they_have_closed_it() -> None:
    said = _said("""
connection = connect(":memory:")
print(configure())
connection.close()
print(configure(), works(connect(":memory:")))
""")
    assert said == ["False", "True", "True"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="the system does not show which files are open")
def test_what_is_sorted_on_the_disk_is_in_the_folder_for_it(tmp_path: Path) -> None:
    said = _said(f"""
import os
from pathlib import Path

folder = Path({str(tmp_path)!r})
print(configure(folder))
connection = connect(":memory:")
connection.execute("PRAGMA temp_store=FILE")
connection.execute("CREATE TEMP TABLE t AS WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 9000) "
                   "SELECT randomblob(1000) FROM n")
open_files = [os.readlink(each) for each in Path("/proc/self/fd").iterdir() if each.exists() or each.is_symlink()]
print(any(name.startswith(str(folder)) for name in open_files), len(list(folder.iterdir())))
""")
    assert said == ["True", "True", "0"]


def test_a_statement_is_planned_once_and_not_for_each_value() -> None:
    planned = 0

    def authorize(*_: object) -> int:  # is asked whenever a statement is planned
        nonlocal planned
        planned += 1
        return apsw.SQLITE_OK

    with closing(connect(":memory:")) as connection:
        connection.execute("CREATE TABLE t (a); CREATE INDEX t_a ON t (a) WHERE a > 5")
        connection.authorizer = authorize
        counts = []
        for value in range(3):
            connection.execute("SELECT a FROM t WHERE a > ?", [value]).fetchall()
            counts.append(planned)
    assert counts[0] > 0
    assert counts == counts[:1] * 3
