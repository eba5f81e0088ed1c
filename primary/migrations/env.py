"""Run by Alembic for each command, with what `primary.migrate` hands over; there is no other way in."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import CreateTableOp, MigrationScript

from primary.capture import SCHEMA, Xid8
from primary.migrate import VERSION_TABLE


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """Look into the two schemas that are ours; Postgres may hold others."""
    return name in {None, SCHEMA} if kind == "schema" else name != VERSION_TABLE


def render_item(_kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Write a type of our own with its import."""
    if isinstance(item, Xid8):
        autogen.imports.add("from primary.capture import Xid8")
        return "Xid8()"
    return False


def drop_info(_context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
    """Keep what a declaration says to the engine out of the steps; only the database's part belongs there."""
    for script in scripts:
        for upgrade in script.upgrade_ops_list:
            for operation in upgrade.ops:
                if isinstance(operation, CreateTableOp):
                    operation.info = {}


handed = context.config.attributes
context.configure(
    connection=handed["connection"],
    target_metadata=handed.get("target_metadata"),
    version_table=VERSION_TABLE,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=include_name,
    render_item=render_item,
    process_revision_directives=drop_info,
    compare_type=True,
    compare_server_default=True,
)
# No context.begin_transaction(): the caller's transaction holds every step, or none.
context.run_migrations()
