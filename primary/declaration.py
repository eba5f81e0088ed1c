"""What is synced: a table joins by its declaration, and everything else follows from it.

    note = sa.Table(
        "note", metadata,
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.func.gen_random_uuid()),
        sa.Column("body", sa.Text, nullable=False),
        info=synced(owner="user_id", indexes=[ReadIndex("by_body", ["body"])], full_text=["body"]),
    )

The primary key leads with the owner. What is left of it is the row's key within the user's replica.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from primary.errors import UnsupportedDeclaration
from primary.types import Mapping, is_text, mapping_of

_INFO = "tidepool.synced"
_NAME = re.compile(r"[a-z][a-z0-9_]{0,47}")
_RESERVED = re.compile(r"sqlite_|.*_fts(_[a-z]+)?$")


@dataclass(frozen=True, slots=True)
class ReadIndex:
    """An index that every replica keeps on the table; the primary has no need of it.

    ``columns`` may name any column but the owner. A ``rendered`` index also carries each row's JSON, so that a
    page in the index's order is read without building it anew. ``where``, a condition on the row as SQLite reads it,
    keeps out the rows that are never looked for by this index: it is as small as they are few.
    """

    name: str
    columns: Sequence[str]
    rendered: bool = False
    where: str = ""


@dataclass(frozen=True, slots=True)
class _Info:
    owner: str
    indexes: tuple[ReadIndex, ...]
    full_text: tuple[str, ...]


def synced(*, owner: str, indexes: Sequence[ReadIndex] = (), full_text: Sequence[str] = ()) -> dict[Any, Any]:
    """Declare a table synced: give this as the ``info`` of a SQLAlchemy table.

    ``owner`` names the column that holds the user's id (text, not null, first in the primary key).
    ``indexes`` are kept on every replica, the first from when it can be read, the others of a large one soon after;
    ``full_text`` names the text columns of its full-text index.
    The declaration is checked by `Catalog.of`.
    """
    return {_INFO: _Info(owner, tuple(indexes), tuple(full_text))}


@dataclass(frozen=True, slots=True)
class SyncedColumn:
    """One column as a replica holds it."""

    name: str
    mapping: Mapping
    nullable: bool


@dataclass(frozen=True, slots=True, eq=False)
class SyncedTable:
    """A checked declaration; one is equal to itself alone.

    ``key`` is the primary key less the owner: empty for a table with at most one row per user.
    ``columns`` are all columns but the owner, in declared order; rows of the feed have their values in that order.
    """

    table: sa.Table
    name: str
    owner: str
    key: tuple[str, ...]
    columns: tuple[SyncedColumn, ...]
    indexes: tuple[ReadIndex, ...]
    full_text: tuple[str, ...]

    @classmethod
    def of(cls, table: sa.Table) -> SyncedTable:
        """Check a table's declaration. Raises `UnsupportedDeclaration`, saying what cannot be synced and why."""
        info: _Info = table.info[_INFO]

        def refuse(why: str) -> UnsupportedDeclaration:
            return UnsupportedDeclaration(f"{table.name}: {why}")

        if not _NAME.fullmatch(table.name) or _RESERVED.match(table.name):
            raise refuse(
                "a synced table's name is 1-48 of a-z, 0-9 and _, and does not begin with sqlite_ or end with _fts"
            )
        if bad := sorted(column.name for column in table.columns if column.key != column.name):
            raise refuse(f"columns cannot go by another name in Python: {', '.join(bad)}")
        primary_key = [column.name for column in table.primary_key]
        if not primary_key or primary_key[0] != info.owner:
            raise refuse(f"its primary key must begin with the owner column {info.owner!r}")
        owner = table.c[info.owner]
        if not is_text(owner.type):
            raise refuse(f"its owner column {info.owner!r} must be text, of which only the same is equal")
        key = tuple(primary_key[1:])
        for name in key:
            if not mapping_of(table.c[name]).key:
                raise refuse(f"{name} cannot be part of the key: values of its type have no single text")
        columns = tuple(
            SyncedColumn(column.name, mapping_of(column), bool(column.nullable))
            for column in table.columns
            if column.name != info.owner
        )
        if not columns:
            raise refuse("it has no column but its owner, and a replica's table needs one")
        names = {column.name for column in columns}
        if bad := sorted(name for name in names if not _NAME.fullmatch(name) or name == "rowid"):
            raise refuse(f"columns cannot be named {', '.join(bad)}")
        if bad := sorted(index.name for index in info.indexes if not _NAME.fullmatch(index.name)):
            raise refuse(f"read indexes cannot be named {', '.join(bad)}")
        if len({index.name for index in info.indexes}) < len(info.indexes):
            raise refuse("two of its read indexes have the same name")
        if any(index.name == "key" for index in info.indexes):
            raise refuse("a read index cannot be named key: there is one of that name already")
        if empty := sorted(index.name for index in info.indexes if not index.columns):
            raise refuse(f"these read indexes name no column: {', '.join(empty)}")
        named = [*info.full_text, *(name for index in info.indexes for name in index.columns)]
        if unknown := sorted(set(named) - names):
            raise refuse(f"its indexes name columns that it does not have: {', '.join(unknown)}")
        if bad := sorted(n for n in info.full_text if not isinstance(table.c[n].type, sa.String)):
            raise refuse(f"only text can be searched, which these are not: {', '.join(bad)}")
        if bad := sorted({"rank", f"{table.name}_fts"}.intersection(info.full_text)):
            raise refuse(f"a full-text index cannot have columns of these names: {', '.join(bad)}")
        if len(set(info.full_text)) < len(info.full_text):
            raise refuse("its full-text index names a column twice")
        return cls(table, table.name, info.owner, key, columns, info.indexes, info.full_text)

    @property
    def key_places(self) -> tuple[int, ...]:
        """Where in a row the values of ``key`` are."""
        return tuple(self.columns.index(self.column(name)) for name in self.key)

    def column(self, name: str) -> SyncedColumn:
        """Give the column of that name. Raises KeyError when there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


class Catalog:
    """Every synced table of one application, parents before children."""

    def __init__(self, tables: Sequence[SyncedTable]) -> None:
        self._tables = {table.name: table for table in tables}

    @classmethod
    def of(cls, metadata: sa.MetaData) -> Catalog:
        """Gather the tables of ``metadata`` that are declared synced. Raises `UnsupportedDeclaration`."""
        tables = [SyncedTable.of(table) for table in metadata.sorted_tables if _INFO in table.info]
        names = [table.name for table in tables]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise UnsupportedDeclaration(f"synced tables of two schemas share a name: {', '.join(twice)}")
        return cls(tables)

    def __iter__(self) -> Iterator[SyncedTable]:
        return iter(self._tables.values())

    def __len__(self) -> int:
        return len(self._tables)

    def __getitem__(self, name: str) -> SyncedTable:
        return self._tables[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tables
