"""A table joins by its declaration; one that could not be synced rightly is refused, and told why."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from primary.declaration import Catalog, ReadIndex, SyncedTable, synced
from primary.errors import UnsupportedDeclaration
from tests.support import shapes


def declared(
    *columns: Any, name: str = "note", owner: str = "user_id", schema: str | None = None, **info: Any
) -> Catalog:
    metadata = sa.MetaData()
    sa.Table(name, metadata, *columns, info=synced(owner=owner, **info), schema=schema)
    return Catalog.of(metadata)


def user(kind: Any = sa.Text) -> sa.Column[Any]:
    return sa.Column("user_id", kind, primary_key=True)


def key(kind: Any = sa.Integer, name: str = "id") -> sa.Column[Any]:
    return sa.Column(name, kind, primary_key=True)


def column(name: str = "body", kind: Any = sa.Text) -> sa.Column[Any]:
    return sa.Column(name, kind)


class Folded(sa.types.TypeDecorator[str]):
    impl = sa.Text
    cache_ok = True


REFUSED: dict[str, tuple[list[Any], dict[str, Any], str]] = {
    "no primary key": ([sa.Column("user_id", sa.Text), column()], {}, "must begin with the owner"),
    "the owner is not first in the key": ([key(), user()], {}, "must begin with the owner column 'user_id'"),
    "the owner is not in the key": ([key(), sa.Column("user_id", sa.Text)], {}, "must begin with the owner"),
    "there is no such owner": ([user(), key()], {"owner": "who"}, "must begin with the owner column 'who'"),
    "the owner is a number": ([user(sa.Integer), key()], {}, "owner column 'user_id' must be text"),
    "the owner is a uuid": ([user(sa.Uuid), key()], {}, "owner column 'user_id' must be text"),
    # 'Ann' and 'ann' would be one owner to the table and two to the marks.
    "owners that differ are equal": ([user(pg.CITEXT), key()], {}, "owner column 'user_id' must be text"),
    "owners are padded": ([user(sa.CHAR(8)), key()], {}, "owner column 'user_id' must be text"),
    "the owner is an enum": ([user(sa.Enum("a", name="e")), key()], {}, "owner column 'user_id' must be text"),
    "key of a float": ([user(), key(sa.Float)], {}, "id cannot be part of the key"),
    "key of a numeric": ([user(), key(sa.Numeric)], {}, "id cannot be part of the key"),
    "key of json": ([user(), key(pg.JSONB)], {}, "id cannot be part of the key"),
    "key of an array": ([user(), key(pg.ARRAY(sa.Text))], {}, "id cannot be part of the key"),
    "char": ([user(), key(), column(kind=sa.CHAR(3))], {}, "note.body: the type CHAR"),
    "nchar": ([user(), key(), column(kind=sa.NCHAR(3))], {}, "note.body: the type NCHAR"),
    "citext": ([user(), key(), column(kind=pg.CITEXT)], {}, "note.body: the type CITEXT"),
    "interval": ([user(), key(), column(kind=sa.Interval)], {}, "note.body: the type Interval"),
    "time with zone": ([user(), key(), column(kind=sa.Time(timezone=True))], {}, "note.body: the type Time"),
    "inet": ([user(), key(), column(kind=pg.INET)], {}, "note.body: the type INET"),
    "range": ([user(), key(), column(kind=pg.INT4RANGE)], {}, "note.body: the type INT4RANGE"),
    "hstore": ([user(), key(), column(kind=pg.HSTORE)], {}, "note.body: the type HSTORE"),
    "tsvector": ([user(), key(), column(kind=pg.TSVECTOR)], {}, "note.body: the type TSVECTOR"),
    "money": ([user(), key(), column(kind=pg.MONEY)], {}, "note.body: the type MONEY"),
    "bit": ([user(), key(), column(kind=pg.BIT(3))], {}, "note.body: the type BIT"),
    "array of floats": ([user(), key(), column(kind=pg.ARRAY(sa.Float))], {}, "note.body: the type ARRAY"),
    "array of json": ([user(), key(), column(kind=pg.ARRAY(pg.JSONB))], {}, "note.body: the type ARRAY"),
    "array of bytes": ([user(), key(), column(kind=pg.ARRAY(sa.LargeBinary))], {}, "note.body: the type ARRAY"),
    "uuid kept as text": ([user(), key(), column(kind=sa.Uuid(native_uuid=False))], {}, "note.body: the type Uuid"),
    "a type of one's own": ([user(), key(), column(kind=Folded)], {}, "note.body: the type Folded"),
    "no type at all": ([user(), key(), sa.Column("body")], {}, "note.body: the type NullType"),
    "table in capitals": ([user(), key()], {"name": "Note"}, "Note: a synced table's name is"),
    "table name too long": ([user(), key()], {"name": "n" * 49}, "a synced table's name is 1-48"),
    "table of SQLite's own": ([user(), key()], {"name": "sqlite_note"}, "does not begin with sqlite_"),
    "table like a full-text index": ([user(), key()], {"name": "note_fts"}, "or end with _fts"),
    "table like a full-text index's": ([user(), key()], {"name": "note_fts_data"}, "or end with _fts"),
    "table begins with _": ([user(), key()], {"name": "_replica"}, "a synced table's name is"),
    "column in capitals": ([user(), key(), column("Body")], {}, "columns cannot be named Body"),
    "column with a quote": ([user(), key(), column('a"b')], {}, 'columns cannot be named a"b'),
    "column rowid": ([user(), key(), column("rowid")], {}, "columns cannot be named rowid"),
    "column with two names": (
        [user(), key(), sa.Column("body", sa.Text, key="text")],
        {},
        "another name in Python: body",
    ),
    "owner with two names": (
        [sa.Column("user_id", sa.Text, primary_key=True, key="who"), key()],
        {},
        "another name in Python: user_id",
    ),
    "index on what is not there": (
        [user(), key()],
        {"indexes": [ReadIndex("by_body", ["body"])]},
        "columns that it does not have: body",
    ),
    "index on the owner": (
        [user(), key()],
        {"indexes": [ReadIndex("by_user", ["user_id"])]},
        "columns that it does not have: user_id",
    ),
    "nothing but an owner": ([user()], {}, "it has no column but its owner"),
    "index like another but for capitals": (
        [user(), key()],
        {"indexes": [ReadIndex("i", ["id"]), ReadIndex("I", ["id"])]},
        "read indexes cannot be named I",
    ),
    "index named as what stands in for one": (
        [user(), key()],
        {"indexes": [ReadIndex("i", ["id"], rendered=True), ReadIndex("i.plain", ["id"])]},
        "read indexes cannot be named i.plain",
    ),
    "index on nothing": ([user(), key()], {"indexes": [ReadIndex("all", [], rendered=True)]}, "name no column: all"),
    "two indexes of one name": (
        [user(), key()],
        {"indexes": [ReadIndex("i", ["id"]), ReadIndex("i", ["id"], rendered=True)]},
        "two of its read indexes have the same name",
    ),
    "index named as the key's": ([user(), key()], {"indexes": [ReadIndex("key", ["id"])]}, "cannot be named key"),
    "search in what is not there": ([user(), key()], {"full_text": ["body"]}, "columns that it does not have: body"),
    "search in numbers": ([user(), key()], {"full_text": ["id"]}, "only text can be searched, which these are not: id"),
    "search in a column named rank": ([user(), key(), column("rank")], {"full_text": ["rank"]}, "of these names: rank"),
    "search in a column named as its index": (
        [user(), key(), column("note_fts")],
        {"full_text": ["note_fts"]},
        "of these names: note_fts",
    ),
    "search twice in one column": ([user(), key(), column()], {"full_text": ["body", "body"]}, "names a column twice"),
}


@pytest.mark.parametrize(("columns", "how", "why"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_synced_is_refused_with_its_reason(columns: list[Any], how: dict[str, Any], why: str) -> None:
    with pytest.raises(UnsupportedDeclaration) as told:
        declared(*columns, **how)
    assert why in str(told.value)
    assert how.get("name", "note") in str(told.value)


def test_a_type_without_a_mapping_is_refused_with_the_types_that_have_one() -> None:
    with pytest.raises(UnsupportedDeclaration) as told:
        declared(user(), key(), column(kind=pg.INET))
    for kind in ("text", "uuid", "boolean", "integer", "numeric", "timestamptz", "jsonb", "bytea", "array"):
        assert kind in told.value.hint


def test_two_tables_of_one_name_in_two_schemas_are_refused() -> None:
    metadata = sa.MetaData()
    for schema in ("one", "two"):
        sa.Table("note", metadata, user(), key(), info=synced(owner="user_id"), schema=schema)
    with pytest.raises(UnsupportedDeclaration, match="share a name: note"):
        Catalog.of(metadata)


def test_a_declaration_says_what_a_replica_holds() -> None:
    catalog = declared(
        user(sa.String(40)),
        key(sa.Uuid, "of"),
        key(sa.Date, "day"),
        column(),
        sa.Column("done", sa.Boolean, nullable=False),
        indexes=[ReadIndex("by_day", ["day"])],
        full_text=["body"],
    )
    table = catalog["note"]
    assert isinstance(table, SyncedTable)
    assert (table.owner, table.key) == ("user_id", ("of", "day"))
    assert [(c.name, c.mapping.storage, c.nullable) for c in table.columns] == [
        ("of", "TEXT", False),
        ("day", "TEXT", False),
        ("body", "TEXT", True),
        ("done", "INTEGER", False),
    ]
    assert table.column("day") is table.columns[1]
    with pytest.raises(KeyError):
        table.column("user_id")


def test_a_key_of_the_owner_alone_is_a_table_of_at_most_one_row() -> None:
    assert declared(user(), column())["note"].key == ()


def test_tables_that_are_not_declared_synced_are_left_alone() -> None:
    metadata = sa.MetaData()
    sa.Table("note", metadata, user(), key(), info=synced(owner="user_id"))
    sa.Table("Their Own", metadata, sa.Column("x", pg.INET))
    catalog = Catalog.of(metadata)
    assert [table.name for table in catalog] == ["note"]
    assert len(catalog) == 1
    assert "Their Own" not in catalog


def test_parents_come_before_children() -> None:
    names = [table.name for table in shapes.catalog]
    assert names.index("shelf") < names.index("book")
    assert set(names) == {"ledger", "specimen", "mood", "shelf", "book"}


def test_the_tables_of_the_tests_have_every_mapped_type() -> None:
    for name, kind in shapes.KEY_TYPES.items():
        assert shapes.catalog["ledger"].column(name).mapping.key, kind
    for name in shapes.COLUMN_TYPES:
        assert shapes.catalog["specimen"].column(name).nullable
        assert not shapes.catalog["specimen"].column(name + shapes.REQUIRED).nullable
