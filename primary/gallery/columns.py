"""What the gallery's tables are made of: columns and constraints that several of them have, each said once.

A constraint is named after its column, and so the field that it refuses is known (`primary.gallery.errors.refused`).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from primary.gallery import limits


def owner() -> sa.Column[str]:
    """Say whose a row is, first in its key."""
    # An id is compared, never read: bytes in order, as in the engine's tables, not letters of a language.
    return sa.Column("user_id", sa.Text(collation="C"), primary_key=True)


def own_id() -> sa.Column[Any]:
    """Name a row among its owner's."""
    return sa.Column("id", sa.Uuid, primary_key=True, server_default=sa.text("gen_random_uuid()"))


def text(name: str) -> sa.Column[str]:
    """Take a text, or none."""
    return sa.Column(name, sa.Text)


def moment(name: str) -> sa.Column[Any]:
    """Take a time, now if not told."""
    return sa.Column(name, sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()"))


def count(name: str) -> sa.Column[int]:
    """Count from 0."""
    return sa.Column(name, sa.Integer, nullable=False, server_default=sa.text("0"))


def flag(name: str) -> sa.Column[bool]:
    """Take true or false, false if not told."""
    return sa.Column(name, sa.Boolean, nullable=False, server_default=sa.text("false"))


def document(name: str) -> sa.Column[Any]:
    """Take a JSON object, an empty one if not told; with `is_object`."""
    return sa.Column(name, JSONB, nullable=False, server_default=sa.text("'{}'::jsonb"))


def row_version() -> sa.Column[int]:
    """Count a row's states, which `primary.gallery.touch` does."""
    return sa.Column("row_version", sa.BigInteger, nullable=False, server_default=sa.text("1"))


def user_is_named() -> sa.CheckConstraint:
    """Bound the owner's id: on the tables without a parent, for the others inherit it through their foreign key."""
    return length("user_id", 1, limits.USER_ID_MAX_CHARS)


def length(column: str, low: int, high: int) -> sa.CheckConstraint:
    """Bound a text by its number of characters; NULL passes."""
    return sa.CheckConstraint(f"char_length({column}) BETWEEN {low} AND {high}", name=column)


def bounds(column: str, low: int, high: int | None = None) -> sa.CheckConstraint:
    """Bound a number on both sides, or from below; NULL passes."""
    bound = f"{column} >= {low}" if high is None else f"{column} BETWEEN {low} AND {high}"
    return sa.CheckConstraint(bound, name=column)


def is_object(column: str) -> sa.CheckConstraint:
    """Bound a document: readers may look for members without asking what it is, and hold it in memory."""
    bytes_max = limits.DOCUMENT_MAX_BYTES
    return sa.CheckConstraint(
        f"jsonb_typeof({column}) = 'object' AND octet_length({column}::text) <= {bytes_max}", name=column
    )


def part_of(parent: str, column: str) -> sa.ForeignKeyConstraint:
    """Hang a row on one of its owner's, with which it goes; the owner is in the reference, so it can be no other's."""
    return sa.ForeignKeyConstraint(["user_id", column], [f"{parent}.user_id", f"{parent}.id"], ondelete="CASCADE")


def for_the_cascade(column: str) -> sa.Index:
    """Let Postgres find what goes with a parent."""
    # The owner stands last: an index that begins with it could be mistaken for one that finds a row by its key.
    return sa.Index(None, column, "user_id")
