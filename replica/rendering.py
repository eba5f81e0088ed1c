"""How a row is written as JSON by SQLite itself, so that a page of rows makes no object in Python."""

from __future__ import annotations

from collections.abc import Callable

from primary.declaration import SyncedColumn, SyncedTable


def quoted(name: str) -> str:
    """Quote an SQL name."""
    return '"' + name.replace('"', '""') + '"'


_BLANKS_MAX = 60  # of one form: an SQLite may be made to take no more than 100 arguments


def json_members(
    table: SyncedTable,
    alias: str = "",
    *,
    lead: str = "",
    value: Callable[[SyncedColumn, str], str] | None = None,
) -> str:
    """Give the SQL of a row's JSON members, ``"id":…,"prompt":…``, without braces, in declared order.

    ``alias`` is the name that the query gives the table. A `ReadIndex` that is ``rendered`` carries this very
    expression: a query that uses it in that index's order reads it ready-made, any other computes it.
    ``lead`` is what comes before them, ``value`` gives the SQL of one value, where it is not to be `json_value`'s.
    (A form is filled, for each `||` copies all that is there so far. It is not json_object(): that parses JSON columns
    again, and refuses what nests over 1,000 deep.)
    """
    prefix = f"{quoted(alias)}." if alias else ""
    written = value or json_value
    forms = []
    for start in range(0, len(table.columns), _BLANKS_MAX):
        columns = table.columns[start : start + _BLANKS_MAX]
        form = ",".join(f'"{column.name}":%s' for column in columns)
        values = ", ".join(written(column, prefix + quoted(column.name)) for column in columns)
        forms.append(f"printf('{',' if start else lead}{form}', {values})")
    members = " || ".join(forms)
    return f"({members})"  # || is left-associative: without the parentheses a longer chain would not contain this one


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
            return _unless_null(name, f"'\"' || lower(hex({name})) || '\"'")
        case "plain":
            return _unless_null(name, f"'\"' || {name} || '\"'")
    if column.mapping.storage == "INTEGER":
        return f"ifnull({name}, 'null')"
    return _unless_null(name, f"json_quote({name})")


def _unless_null(name: str, written: str) -> str:
    # json_quote() knows NULL, but takes as long for it as for a text.
    return f"CASE WHEN {name} IS NULL THEN 'null' ELSE {written} END"


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
