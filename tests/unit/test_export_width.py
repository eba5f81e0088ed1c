"""Exports of tables with as many columns as Postgres takes: SQLite bounds how deep an expression may be."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from primary.cursor import Cursor
from primary.declaration import Catalog, synced
from replica import apart
from replica.export import FORMATS
from replica.export.manifest import Manifest
from replica.library import connect
from replica.location import Location
from replica.schema import Schema
from replica.state import State
from tests.support.exports import read

COLUMNS_MAX = 1_598  # of 1,600, for the owner and the key are columns too
KINDS: dict[str, tuple[Any, Any]] = {"text": (sa.Text(), 'a "b"'), "jsonb": (pg.JSONB(), "null")}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("columns", [1, 99, 100, 101, COLUMNS_MAX])
def test_a_table_of_any_width_is_exported(tmp_path: Path, name: str, kind: str, columns: int) -> None:
    metadata = sa.MetaData()
    type_, value = KINDS[kind]
    sa.Table(
        "wide",
        metadata,
        sa.Column("owner", sa.Text(), primary_key=True),
        sa.Column("id", sa.BigInteger(), primary_key=True, autoincrement=False),
        *(sa.Column(f"column_{place}", type_) for place in range(columns)),
        info=synced(owner="owner"),
    )
    catalog = Catalog.of(metadata)
    rows = [(1, *[value, None] * (columns // 2), *[value] * (columns % 2)), (2, *[None] * columns)]
    location = Location(tmp_path / "replica.db")
    with closing(connect(location.uri("rwc"))) as connection:
        for statement in Schema(catalog).tables:
            connection.execute(statement)
        connection.executemany(f"INSERT INTO wide VALUES ({', '.join('?' * (columns + 1))})", rows)
    state = State.at("ann", Cursor("6b-1-5-1", 1), 0, 1, "")
    (folder := tmp_path / "apart").mkdir()
    with closing(apart.connect(location, folder)) as connection:
        connection.execute("BEGIN")
        content = FORMATS[name].write(connection, Manifest.of(connection, state, catalog), folder).read_bytes()
    assert sorted(read(name, content, catalog).rows["wide"]) == rows
