"""Tables of the tests' own, of quite another shape than the application's: what the engine promises, it promises them.

ledger      its key has a column of every type that a key may have
specimen    a column of every mapped type, once nullable and once not, a rendered index and full-text search
mood        at most one row for each user: the primary key is the owner alone
shelf       a parent, and book, its child by a composite foreign key that cascades deletes and key changes;
book        a shelf and a book may also name a favourite of each other's kind, which is set to NULL when that goes
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from primary.capture import SCHEMA, engine_tables, install_capture
from primary.declaration import Catalog, ReadIndex, synced
from primary.postgres import Primary
from tests.support.databases import Databases, through

metadata = sa.MetaData()

KEY_TYPES: dict[str, Any] = {
    "a_text": sa.Text(),
    "a_varchar": sa.String(200),
    "a_collated": sa.Text(collation="POSIX"),
    "an_enum": sa.Enum("small", "large", "it's", name="ledger_size", metadata=metadata),
    "a_uuid": sa.Uuid(),
    "a_bool": sa.Boolean(),
    "a_smallint": sa.SmallInteger(),
    "an_integer": sa.Integer(),
    "a_bigint": sa.BigInteger(),
    "a_date": sa.Date(),
    "a_time": sa.Time(),
    "a_timestamp": sa.DateTime(),
    "a_timestamptz": sa.DateTime(timezone=True),
    "a_bytea": sa.LargeBinary(),
}
"""Every type that a key's column may have, by the column's name."""

# Something for each type that a writer need not give, so that a row is made by naming what it is about.
KEY_DEFAULTS = {
    "a_text": "''",
    "a_varchar": "'v'",
    "a_collated": "'c'",
    "an_enum": "'small'",
    "a_uuid": "'6b0157c6-87b0-44b8-8000-000000000000'",
    "a_bool": "false",
    "a_smallint": "0",
    "an_integer": "0",
    "a_bigint": "0",
    "a_date": "'2026-01-31'",
    "a_time": "'12:30'",
    "a_timestamp": "'2026-01-31 12:30:00.000001'",
    "a_timestamptz": "'2026-01-31 12:30:00.000001+02'",
    "a_bytea": r"'\xdeadbeef'",
}

ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("owner", sa.String(255), primary_key=True),
    *(
        sa.Column(name, kind, primary_key=True, autoincrement=False, server_default=sa.text(KEY_DEFAULTS[name]))
        for name, kind in KEY_TYPES.items()
    ),
    sa.Column("amount", sa.Numeric(), nullable=False, server_default=sa.text("0")),
    info=synced(owner="owner", indexes=[ReadIndex("by_amount", ["amount"])]),
)

COLUMN_TYPES: dict[str, tuple[Any, str]] = {
    "text": (sa.Text(), "''"),
    "varchar": (sa.String(50), "''"),
    "enum": (sa.Enum("egg", "larva", "adult", name="specimen_stage", metadata=metadata), "'egg'"),
    "uuid": (sa.Uuid(), "'00000000-0000-0000-0000-000000000000'"),
    "bool": (sa.Boolean(), "false"),
    "smallint": (sa.SmallInteger(), "0"),
    "integer": (sa.Integer(), "0"),
    "bigint": (sa.BigInteger(), "0"),
    "real": (sa.REAL(), "0"),
    "double": (sa.Double(), "0"),
    "numeric": (sa.Numeric(), "0"),
    "money": (sa.Numeric(12, 3), "0"),
    "date": (sa.Date(), "'2026-01-31'"),
    "time": (sa.Time(), "'00:00'"),
    "timestamp": (sa.DateTime(), "'2026-01-31'"),
    "timestamptz": (sa.DateTime(timezone=True), "'2026-01-31+00'"),
    "json": (sa.JSON(), "'{}'"),
    "jsonb": (pg.JSONB(), "'{}'"),
    "bytea": (sa.LargeBinary(), r"'\x'"),
    "texts": (pg.ARRAY(sa.Text()), "'{}'"),
    "uuids": (pg.ARRAY(sa.Uuid()), "'{}'"),
    "bools": (pg.ARRAY(sa.Boolean()), "'{}'"),
    "bigints": (pg.ARRAY(sa.BigInteger()), "'{}'"),
    "numerics": (pg.ARRAY(sa.Numeric()), "'{}'"),
}
"""Every mapped type, by the name of its column, with a default for the one that is not nullable."""

REQUIRED = "_required"  # the end of the name of each type's second column, which is not nullable

specimen = sa.Table(
    "specimen",
    metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("id", sa.BigInteger, sa.Identity(), primary_key=True),
    *(sa.Column(name, kind, nullable=True) for name, (kind, _) in COLUMN_TYPES.items()),
    *(
        sa.Column(name + REQUIRED, kind, nullable=False, server_default=sa.text(default))
        for name, (kind, default) in COLUMN_TYPES.items()
    ),
    info=synced(
        owner="user_id",
        indexes=[ReadIndex("in_order", ["id"], rendered=True), ReadIndex("by_double", ["double", "text"])],
        full_text=["text", "varchar_required"],
    ),
)

mood = sa.Table(
    "mood",
    metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("word", sa.Text),
    sa.Column("since", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    info=synced(owner="user_id", full_text=["word"]),
)

shelf = sa.Table(
    "shelf",
    metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("label", sa.Text),
    sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.text("now()")),
    info=synced(owner="user_id", indexes=[ReadIndex("by_label", ["label", "id"], rendered=True)]),
)

book = sa.Table(
    "book",
    metadata,
    sa.Column("user_id", sa.Text, primary_key=True),
    sa.Column("shelf_id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("place", sa.SmallInteger, primary_key=True, autoincrement=False),
    sa.Column("title", sa.Text, nullable=False, server_default=sa.text("''")),
    # Two references that are forgotten when what they name goes: one statement then updates a row twice.
    sa.Column("before_shelf", sa.Integer),
    sa.Column("after_shelf", sa.Integer),
    sa.ForeignKeyConstraint(
        ["user_id", "shelf_id"], ["shelf.user_id", "shelf.id"], ondelete="CASCADE", onupdate="CASCADE"
    ),
    sa.ForeignKeyConstraint(
        ["user_id", "before_shelf"], ["shelf.user_id", "shelf.id"], ondelete="SET NULL (before_shelf)"
    ),
    sa.ForeignKeyConstraint(
        ["user_id", "after_shelf"], ["shelf.user_id", "shelf.id"], ondelete="SET NULL (after_shelf)"
    ),
    info=synced(owner="user_id", full_text=["title"]),
)

catalog = Catalog.of(metadata)


async def install(primary: Primary, metadata: sa.MetaData) -> Catalog:
    """Make the engine's tables, those of ``metadata`` and their triggers in a fresh database."""
    engine = sa.MetaData()
    engine_tables(engine)
    catalog = Catalog.of(metadata)
    async with primary.transaction() as conn:
        await conn.execute(sa.schema.CreateSchema(SCHEMA))
        await conn.run_sync(engine.create_all)
        await conn.run_sync(metadata.create_all)
        await install_capture(conn, catalog)
    return catalog


@asynccontextmanager
async def installed(databases: Databases, metadata: sa.MetaData = metadata) -> AsyncIterator[Primary]:
    """A primary on a database of its own that holds ``metadata``, captured."""
    async with databases.database(migrated=False) as url, through(url) as primary:
        await install(primary, metadata)
        yield primary
