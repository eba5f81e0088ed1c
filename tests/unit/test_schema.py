"""A replica's file follows from the declarations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import cast

import apsw
import pytest
import sqlalchemy as sa

from primary.declaration import Catalog, ReadIndex, synced
from primary.errors import UnsupportedDeclaration
from primary.feed import Feed
from replica.library import connect
from replica.schema import Schema
from replica.store import Store


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


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("pined", "no such column: pined"),
        ("user_id <> 'ann'", "no such column: user_id"),
        ("pinned AND", "incomplete input"),
    ],
)
async def test_a_condition_that_sqlite_refuses_is_told_before_anybody_reads(
    where: str, why: str, tmp_path: Path
) -> None:
    declared(PINNED).check()
    schema = declared(ReadIndex("newest", ["written_at"]), ReadIndex("pinned", ["written_at", "id"], where=where))
    store = Store(tmp_path, schema.catalog, cast("Feed", None))
    with pytest.raises(UnsupportedDeclaration, match=f'^CREATE INDEX "note.pinned": SQLite refuses it: .*{why}'):
        await store.open()
    again = Store(tmp_path, declared(PINNED).catalog, cast("Feed", None))
    await again.open()  # the directory was given up
    await again.close()
