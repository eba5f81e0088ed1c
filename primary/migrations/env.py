"""Run by Alembic for each command, with what `primary.migrate` hands over; there is no other way in."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from alembic.operations.ops import CreateTableOp, ExecuteSQLOp, MigrateOperation, MigrationScript

from primary.capture import SCHEMA, Xid8, quoted
from primary.migrate import VERSION_TABLE


def include_name(name: str | None, kind: str, _parents: Any) -> bool:
    """Look into the schemas of what is declared; Postgres may hold others."""
    return name is None or name in declared if kind == "schema" else name != VERSION_TABLE


def render_item(_kind: str, item: Any, autogen: AutogenContext) -> str | Literal[False]:
    """Write a type of our own with its import."""
    if isinstance(item, Xid8):
        autogen.imports.add("from primary.capture import Xid8")
        return "Xid8()"
    return False


def complete(_context: Any, _revision: Any, scripts: list[MigrationScript]) -> None:
    """Keep what a declaration says to the engine out of the steps, and make the schemas that new tables lie in."""
    for script in scripts:
        for upgrade in script.upgrade_ops_list:
            made = [operation for operation in upgrade.ops if isinstance(operation, CreateTableOp)]
            for operation in made:
                operation.info = {}  # only the database's part belongs there
            schemas = sorted({operation.schema for operation in made if operation.schema})
            first: list[MigrateOperation] = [
                ExecuteSQLOp(f"CREATE SCHEMA IF NOT EXISTS {quoted(name)}") for name in schemas
            ]
            upgrade.ops[:0] = first


handed = context.config.attributes
declared = {table.schema for each in handed.get("target_metadata") or () for table in each.tables.values()}
context.configure(
    connection=handed["connection"],
    target_metadata=handed.get("target_metadata"),
    version_table=VERSION_TABLE,
    version_table_schema=SCHEMA,
    include_schemas=True,
    include_name=include_name,
    render_item=render_item,
    process_revision_directives=complete,
    compare_type=True,
    compare_server_default=True,
)
# No context.begin_transaction(): the caller's transaction holds every step, or none.
context.run_migrations()
