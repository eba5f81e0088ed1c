"""Where a replica lies: a place for every user, and a name for it that SQLite reads as it is."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from replica.location import Location


@pytest.mark.parametrize("folder", ["plain", "a b", "100%25", "what?mode=memory", "a#b", "a&b=c", "é🐚", "\udcff"])
def test_sqlite_opens_the_file_that_is_meant_whatever_its_folder_is_called(folder: str, tmp_path: Path) -> None:
    location = Location(tmp_path / folder / "x.db")
    location.database.parent.mkdir()
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        sqlite3.connect(location.uri("rw"), uri=True)
    with closing(sqlite3.connect(location.uri("rwc"), uri=True)) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
    assert location.database.exists()
    with (
        closing(sqlite3.connect(location.uri("ro"), uri=True)) as connection,
        pytest.raises(sqlite3.OperationalError, match="readonly"),
    ):
        connection.execute("INSERT INTO t VALUES (1)")
