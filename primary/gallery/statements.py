"""The SQL behind `primary.gallery.images`, made once from the declaration.

New images come in as one JSON parameter: the statement is the same text for one and for a thousand, and a
field that is not given is left to the column's default. Rows go out in the form that replicas hold, so that a
write is answered exactly as a read will be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec
import sqlalchemy as sa
from psycopg.types.json import Jsonb
from sqlalchemy.dialects import postgresql

from primary.gallery.image import Image
from primary.gallery.records import NewImage
from primary.gallery.tables import catalog, image, image_activity

_DIALECT = postgresql.dialect()  # type: ignore[no-untyped-call]
_FIELDS = NewImage.__struct_fields__


def as_rows(rows: Sequence[Mapping[str, Any]]) -> str:
    """Give rows as the one JSON parameter of a statement that reads them all."""
    return msgspec.json.encode(rows).decode()


def default_sql(column: sa.Column[Any]) -> str:
    """Give the SQL of a column's default, nothing where it has none."""
    return str(column.server_default.arg) if isinstance(column.server_default, sa.DefaultClause) else ""


def type_sql(column: sa.Column[Any]) -> str:
    """Give the SQL of a column's type."""
    return column.type.compile(_DIALECT)


def _asked(name: str) -> str:
    """Give the SQL of the value that a record asks for: its own, or the column's default."""
    if name == "created_at":
        # Images saved together are a microsecond apart, so that they stay in the order they were given in.
        return "coalesce(r.created_at, now() + r.n * interval '1 microsecond')"
    default = default_sql(image.c[name])
    return f"coalesce(r.{name}, {default})" if default else f"r.{name}"


def _same(name: str) -> str:
    if name == "created_at":
        return "(r.created_at IS NULL OR r.created_at = image.created_at)"
    return f"{_asked(name)} IS NOT DISTINCT FROM image.{name}"


def values_of(table: str, alias: str) -> dict[str, str]:
    """Give the SQL of a row's values by name, in the form that replicas hold."""
    return {one.name: one.mapping.wire.replace("{}", f"{alias}.{one.name}") for one in catalog[table].columns}


def activity_values() -> dict[str, str]:
    """Give the SQL of what the owner thinks of an image, by name: the defaults where there is no row."""
    values = {}
    for column in catalog["image_activity"].columns:
        if column.name in Image.__struct_fields__:
            value = column.mapping.wire.replace("{}", f"image_activity.{column.name}")
            default = default_sql(image_activity.c[column.name])
            values[column.name] = f"coalesce({value}, {default})" if default else value
    return values


def selected(values: dict[str, str]) -> str:
    """Give the list of a SELECT or RETURNING."""
    return ", ".join(f"{sql} AS {name}" for name, sql in values.items())


_RECORDS = ", ".join(["n int", *(f"{name} {type_sql(image.c[name])}" for name in _FIELDS)])
_SOURCE = f"json_to_recordset(CAST(:rows AS json)) AS r({_RECORDS})"

_INSERT = f"""
INSERT INTO image (user_id, {", ".join(_FIELDS)})
SELECT CAST(:user AS text), {", ".join(map(_asked, _FIELDS))} FROM {_SOURCE} ORDER BY r.n
ON CONFLICT (user_id, id) DO NOTHING"""

INSERT = sa.text(_INSERT)
"""Store the records in ``:rows`` for ``:user``, except those whose id is there already."""

INSERT_RETURNING = sa.text(f"{_INSERT} RETURNING {selected(values_of('image', 'image'))}")
"""The same, and give the images that were stored."""

STORED = sa.text(
    f"""
SELECT r.n, {" AND ".join(map(_same, _FIELDS))} AS same,
  {selected(values_of("image", "image") | activity_values())}
FROM {_SOURCE} JOIN image ON image.user_id = :user AND image.id = r.id
LEFT JOIN image_activity ON image_activity.user_id = image.user_id AND image_activity.image_id = image.id
ORDER BY r.n"""
)
"""Give the images of ``:user`` with the ids in ``:rows``, and whether each is what its record asks for."""


def read(source: sa.FromClause, alias: str) -> sa.Select[Any]:
    """Give whole images from ``source``, called ``alias``: the table, or the rows that a write returned."""
    activity = sa.and_(image_activity.c.user_id == source.c.user_id, image_activity.c.image_id == source.c.id)
    values = values_of("image", alias) | activity_values()
    columns: list[sa.Label[Any]] = [sa.literal_column(sql).label(name) for name, sql in values.items()]
    return sa.select(*columns).select_from(source.outerjoin(image_activity, activity))


def given(table: sa.Table, names: Iterable[str]) -> dict[str, sa.BindParameter[Any]]:
    """Give what the named columns are set to in a statement that is made once for all values (see `as_given`)."""
    return {name: sa.bindparam(f"given_{name}", type_=table.c[name].type) for name in names}


def as_given(values: Mapping[str, Any]) -> dict[str, Any]:
    """Give the values of columns to a statement that was made with `given`."""
    return {f"given_{name}": Jsonb(value) if isinstance(value, dict) else value for name, value in values.items()}


def is_row(table: sa.Table, named: str, *, conditional: bool = False) -> list[sa.ColumnElement[bool]]:
    """Give the condition that picks the row of ``:user`` whose id is ``:named``; if told, at ``:row_version`` alone."""
    found = [table.c.user_id == sa.bindparam("user"), table.c.id == sa.bindparam(named)]
    return [*found, table.c.row_version == sa.bindparam("row_version")] if conditional else found


@lru_cache(maxsize=64)
def update(names: tuple[str, ...], *, conditional: bool) -> sa.Select[Any]:
    """Change these columns of ``:image``, if it is (still) there, and give what it is then."""
    change = sa.update(image).where(*is_row(image, "image", conditional=conditional)).values(given(image, names))
    return read(change.returning(*image.c).cte("changed"), "changed")


DELETE = {
    conditional: sa.delete(image).where(*is_row(image, "image", conditional=conditional))
    for conditional in (False, True)
}
"""Delete ``:image``, if it is (still) there; where conditional, if it is at ``:row_version``."""

CURRENT = read(image, "image").where(*is_row(image, "image"))
"""Give ``:image``."""
