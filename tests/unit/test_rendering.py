"""A row as JSON, written by SQLite."""

from __future__ import annotations

import json
from contextlib import closing

import pytest
import sqlalchemy as sa

from primary.declaration import Catalog, synced
from replica.library import connect
from replica.rendering import json_members


@pytest.mark.parametrize("columns", [1, 59, 60, 61, 100, 127, 250])
def test_a_row_of_any_width_is_written_whole_and_in_order(columns: int) -> None:
    metadata = sa.MetaData()
    names = [f"column_{number}" for number in range(columns)]
    sa.Table(
        "wide",
        metadata,
        sa.Column("owner", sa.Text(), primary_key=True),
        *(sa.Column(name, sa.Text() if place % 2 else sa.BigInteger()) for place, name in enumerate(names)),
        info=synced(owner="owner"),
    )
    members = json_members(Catalog.of(metadata)["wide"], "row", lead='"first":0,')
    values = [None if place % 3 == 0 else f'"{place} % %s \\' if place % 2 else place for place in range(columns)]
    with closing(connect(":memory:")) as connection:
        connection.execute(f"CREATE TABLE wide ({', '.join(names)})")
        connection.execute(f"CREATE INDEX rendered ON wide ({json_members(Catalog.of(metadata)['wide'])})")
        connection.execute(f"INSERT INTO wide VALUES ({', '.join('?' * columns)})", values)
        [(text,)] = connection.execute(f"SELECT {members} FROM wide AS row")
    row = json.loads("{" + text + "}")
    assert list(row.items()) == [("first", 0), *zip(names, values, strict=True)]
