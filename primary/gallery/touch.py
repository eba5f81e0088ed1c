"""Triggers that keep ``updated_at`` and ``row_version`` true, whoever edits: gateway, psql or cascade."""

from __future__ import annotations

import sqlalchemy as sa

FUNCTIONS = {
    "touch_updated_at": """
        CREATE OR REPLACE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := now();
            RETURN NEW;
        END $$""",
    "touch_row_version": """
        CREATE OR REPLACE FUNCTION touch_row_version() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := now();
            NEW.row_version := OLD.row_version + 1;
            RETURN NEW;
        END $$""",
}
"""By name. A writer's own value for either column is not taken."""


def touch(table: sa.Table, *, versioned: bool = True) -> None:
    """Let every change of a row set ``updated_at`` and, if ``versioned``, count ``row_version`` up.

    An update that leaves the row as it is is no change, so a repeated edit does not look like another.
    The trigger is created with the table; databases that exist get it from a migration.
    """
    name = "touch_row_version" if versioned else "touch_updated_at"
    trigger = (
        f"CREATE TRIGGER {name} BEFORE UPDATE ON {table.name} FOR EACH ROW "
        f"WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION {name}()"
    )
    on_create(table, FUNCTIONS[name], trigger)


def on_create(table: sa.Table, *statements: str) -> None:
    """Run statements whenever the table was created from its declaration."""
    for statement in statements:
        # DDL() formats with %, so a percent sign would have to be doubled.
        sa.event.listen(table, "after_create", sa.DDL(statement.replace("%", "%%")))  # type: ignore[no-untyped-call]
