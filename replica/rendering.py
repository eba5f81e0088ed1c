"""How a row is written as JSON by SQLite itself, so that a page of rows makes no object in Python."""

from __future__ import annotations

from collections.abc import Callable

from primary.declaration import SyncedColumn, SyncedTable


def quoted(name: str) -> str:
    """Quote an SQL name."""
    return '"' + name.replace('"', '""') + '"'


def json_members(table: SyncedTable, alias: str = "", value: Callable[[SyncedColumn, str], str] | None = None) -> str:
    """Give the SQL of a row's JSON members, ``"id":…,"prompt":…``, without braces, in declared order.

    ``alias`` is the name that the query gives the table. A `ReadIndex` that is ``rendered`` carries this very
    expression: a query that uses it in that index's order reads it ready-made, any other computes it.
    ``value`` gives the SQL of one value, where it is not to be `json_value`'s.
    (It is concatenated, not json_object(): that parses JSON columns again, and refuses what nests over 1,000 deep.)
    """
    prefix = f"{quoted(alias)}." if alias else ""
    written = value or json_value
    members = " || ".join(
        f"'{',' if place else ''}\"{column.name}\":' || {written(column, prefix + quoted(column.name))}"
        for place, column in enumerate(table.columns)
    )
    return f"({members})"  # || is left-associative: without the parentheses a longer chain would not contain this one


def printed_members(table: SyncedTable, alias: str) -> str:
    """Give the SQL of the same members, a comma before each, for a row that no index carries.

    SQLite fills a form in a third less time than it concatenates, but no form has more than some 90 blanks.
    """
    form = "".join(f',"{column.name}":%s' for column in table.columns)
    values = ", ".join(json_value(column, f"{quoted(alias)}.{quoted(column.name)}") for column in table.columns)
    return f"printf('{form}', {values})"


def json_value(column: SyncedColumn, name: str) -> str:
    """Give the SQL of one value as JSON; ``name`` is the SQL of the value."""
    match column.mapping.json:
        case "boolean":
            return f"CASE {name} WHEN 1 THEN 'true' WHEN 0 THEN 'false' ELSE 'null' END"
        case "json":
            return f"ifnull({name}, 'null')"
        case "real":
            return _real(name)
        case "hex":
            return f"CASE WHEN {name} IS NULL THEN 'null' ELSE json_quote(lower(hex({name}))) END"
    if column.mapping.storage == "INTEGER":
        return f"ifnull({name}, 'null')"
    return f"json_quote({name})"


def _real(name: str) -> str:
    """Write a number so that reading it gives the same again; json_quote() would cut it to 15 digits.

    That many do for the numbers of everyday; 18 always do, but do not look like what was put in. (Whether they do is
    seen by reading them back, which SQLite does exactly only where the exponent is small.)
    """
    # JSON has no infinities: they are text there, as NaN is.
    return (
        f"CASE WHEN typeof({name}) <> 'real' THEN json_quote({name}) "
        f"WHEN {name} = 9e999 THEN '\"Infinity\"' WHEN {name} = -9e999 THEN '\"-Infinity\"' "
        f"WHEN ({name} = 0 OR abs({name}) BETWEEN 1e-20 AND 1e20) AND CAST(printf('%!.15g', {name}) AS REAL) = {name} "
        f"THEN printf('%!.15g', {name}) ELSE printf('%!.18g', {name}) END"
    )
