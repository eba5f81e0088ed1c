"""A replica's file follows from the declarations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import apsw
import pytest
import sqlalchemy as sa

from primary.declaration import Catalog, ReadIndex, synced
from replica.library import connect
from replica.schema import Schema


def declared(*indexes: ReadIndex) -> Schema:
    metadata = sa.MetaData()
    sa.Table(
        "note",
        metadata,
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("pinned", sa.Boolean, nullable=False),
        sa.Column("written_at", sa.Text, nullable=False),
        info=synced(owner="user_id", indexes=indexes),
    )
    return Schema(Catalog.of(metadata))


PINNED = ReadIndex("pinned", ["written_at", "id"], where="pinned")


@pytest.fixture
def file() -> Iterator[apsw.Connection]:
    with closing(connect(":memory:")) as connection:
        schema = declared(PINNED)
        for statement in [*schema.tables, *schema.keys]:
            connection.execute(statement)
        yield connection


def test_read_indexes_are_made_when_they_are_asked_for_as_unfinished(file: apsw.Connection) -> None:
    schema = declared(PINNED)
    assert len(schema.unfinished(file)) == 1
    for statement in schema.unfinished(file):
        file.execute(statement)
    assert schema.unfinished(file) == []


def test_an_index_holds_only_the_rows_that_it_is_for_and_follows_them(file: apsw.Connection) -> None:
    for statement in declared(PINNED).unfinished(file):
        file.execute(statement)
    file.executemany("INSERT INTO note VALUES (?, ?, ?)", [(n, n % 10 == 0, f"2024-{n:03}") for n in range(100)])
    asked = "SELECT id FROM note WHERE pinned ORDER BY written_at DESC, id DESC LIMIT 3"
    [step] = [row[3] for row in file.execute(f"EXPLAIN QUERY PLAN {asked}")]
    assert step == "SCAN note USING INDEX note.pinned"
    assert [id_ for (id_,) in file.execute(asked)] == [90, 80, 70]
    file.execute("UPDATE note SET pinned = NOT pinned WHERE id IN (80, 75)")
    assert [id_ for (id_,) in file.execute(asked)] == [90, 75, 70]


def test_a_condition_of_an_index_is_part_of_what_names_a_schema() -> None:
    assert declared(PINNED).hash != declared(ReadIndex("pinned", ["written_at", "id"])).hash
