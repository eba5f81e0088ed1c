"""Whether the database is as it is declared: each synced table is there, where the role finds it, with its columns."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.ext.asyncio import AsyncConnection

from primary.capture import quoted, table_sql
from primary.declaration import Catalog, SyncedTable
from primary.errors import PrimaryError
from primary.types import mapping_of


class NotAsDeclared(PrimaryError):
    """A table is not in the database as it is declared, and no step is left that would make it so."""

    hint = 'Write the step that makes it so: make migration NAME="…"; then run: tidepool migrate'


class OtherSchema(PrimaryError):
    """The role that tidepool connects as does not look into the schema public first."""

    hint = "Run, in psql: ALTER ROLE … SET search_path = public"


# Of a domain, what it is a domain of.
_COLUMNS = sa.text("""
SELECT asked.name AS table_name, to_regclass(asked.found_by) IS DISTINCT FROM a.attrelid::regclass AS passed_by,
  a.attname AS name, a.attnotnull OR d.typnotnull AS required,
  t.typname AS kind, t.typcategory AS category, format_type(a.atttypid, NULL) AS type
FROM unnest(:names, :found_by) AS asked (name, found_by)
JOIN pg_attribute AS a ON a.attrelid = to_regclass(asked.name) AND a.attnum > 0 AND NOT a.attisdropped
JOIN pg_type AS d ON d.oid = a.atttypid
JOIN pg_type AS t ON t.oid = CASE d.typtype WHEN 'd' THEN d.typbasetype ELSE d.oid END""").bindparams(
    sa.bindparam("names", type_=pg.ARRAY(sa.Text)), sa.bindparam("found_by", type_=pg.ARRAY(sa.Text))
)


async def check_as_declared(conn: AsyncConnection, catalog: Catalog) -> None:
    """Raise `NotAsDeclared` where a table, or a column, is not there, of another type, or may be NULL; `OtherSchema`.

    What is there and not declared is nobody's matter here.
    """
    asked = {"names": [table_sql(table) for table in catalog], "found_by": [_found_by(table) for table in catalog]}
    found: dict[str, dict[str, sa.Row[tuple[object, ...]]]] = {}
    for row in await conn.execute(_COLUMNS, asked):
        found.setdefault(row.table_name, {})[row.name] = row
    for table in catalog:
        _check(table, found.get(table_sql(table), {}))


def _found_by(table: SyncedTable) -> str:
    """Give the table's name as statements have it: those of the application go by the role's search_path."""
    return table_sql(table) if table.table.schema else quoted(table.name)


def _check(table: SyncedTable, there: dict[str, sa.Row[tuple[object, ...]]]) -> None:
    if not there:
        raise NotAsDeclared(f"{table.name}: there is no such table in the database")
    if any(column.passed_by for column in there.values()):
        raise OtherSchema(f"the table {table.name} is not looked for in public first, by the role's search_path")
    declared = {column.name: column.mapping for column in table.columns}
    declared[table.owner] = mapping_of(table.table.c[table.owner])
    if missing := sorted(declared.keys() - there.keys()):
        raise NotAsDeclared(f"{table.name}: its table in the database has no column {', '.join(missing)}")
    other = [
        f"{name} is {there[name].type}"
        for name, mapping in sorted(declared.items())
        if not {there[name].kind, there[name].category}.intersection(mapping.kinds)
    ]
    if other:
        raise NotAsDeclared(
            f"{table.name}: in the database its columns are of other types: {', '.join(other)}",
            hint="Declare them as they are there, or write a step that changes them.",
        )
    # Of the key's, `primary.fitness` says more.
    required = (column.name for column in table.columns if not column.nullable and column.name not in table.key)
    if optional := sorted(name for name in required if not there[name].required):
        raise NotAsDeclared(
            f"{table.name}: in the database these columns may be NULL, as is not declared: {', '.join(optional)}",
            hint="A replica takes no NULL there: declare them nullable, or write a step that sets them NOT NULL.",
        )
