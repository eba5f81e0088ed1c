"""Where a replica lies: a place for every user, and a name for it that SQLite reads as it is."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import apsw
import pytest

from replica.library import connect
from replica.location import Location


@pytest.mark.parametrize("folder", ["plain", "a b", "100%25", "what?mode=memory", "a#b", "a&b=c", "é🐚", "\udcff"])
def test_sqlite_opens_the_file_that_is_meant_whatever_its_folder_is_called(folder: str, tmp_path: Path) -> None:
    location = Location(tmp_path / folder / "x.db")
    location.database.parent.mkdir()
    with pytest.raises(apsw.CantOpenError):
        connect(location.uri("rw"))
    with closing(connect(location.uri("rwc"))) as connection, connection:
        connection.execute("CREATE TABLE t (x)")
    assert location.database.exists()
    with (
        closing(connect(location.uri("ro"))) as connection,
        pytest.raises(apsw.ReadOnlyError),
    ):
        connection.execute("INSERT INTO t VALUES (1)")
