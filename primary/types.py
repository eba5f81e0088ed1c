"""How a value of a Postgres column travels: as what it leaves Postgres, as what it is kept in a replica.

Every mapping is exact: two values that Postgres tells apart stay apart, whatever the time zone, date style or
float precision of the session that reads them. A type without a mapping is refused when its table is declared.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql as pg

from primary.errors import UnsupportedDeclaration

JsonForm = Literal["scalar", "plain", "boolean", "json", "real", "hex"]
"""How a replica's value is written in JSON.

As itself, as a text in which nothing has to be escaped, true/false, JSON text as is, a number or "NaN", hex digits.
"""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One type's way.

    ``wire`` is the SQL that gives the value as Postgres sends it, with ``{}`` for the column.
    ``storage`` is the replica's column type (SQLite, STRICT).
    ``key`` is the SQL that gives the value as canonical text, empty where the type may not be part of a key;
    ``from_key`` is the SQL that gives the value back, with ``{}`` for that text; ``stored_key`` gives the stored value.
    ``adapt`` turns the received value into the stored one, None where it is stored as received.
    ``kinds`` are the types of Postgres whose values travel so: their names in pg_type, or a category there (S for
    texts, E for enums, A for arrays).
    """

    wire: str
    storage: Literal["TEXT", "INTEGER", "REAL", "BLOB", "ANY"]
    json: JsonForm = "scalar"
    key: str = ""
    from_key: str = ""
    stored_key: Callable[[str], Any] = str
    adapt: Callable[[Any], Any] | None = None
    kinds: tuple[str, ...] = ()


def _real(value: float | None) -> float | str | None:
    # SQLite turns a NaN into NULL; as text it stays apart from NULL and, as in Postgres, sorts after every number.
    return "NaN" if value is not None and math.isnan(value) else value


def _moment(day_only: bool = False, zone: str = "") -> str:
    """Give the SQL of a date or timestamp as ISO 8601 of fixed width, so that texts sort as times do (years 1-9999)."""
    shape = "YYYY-MM-DD" if day_only else 'YYYY-MM-DD"T"HH24:MI:SS.US'
    # A day goes by way of a timestamp without zone: to_char would take it to midnight in the session's time zone, and
    # there are days that have none (30 December 2011 in Samoa).
    value = "({} AT TIME ZONE 'UTC')" if zone else "({}::timestamp)"
    text = f"to_char({value}, '{shape}{zone}')"
    first, last = (f"'{day}{' 00:00:00+00' if zone else ''}'" for day in ("0001-01-01", "9999-12-31"))
    # Dates go on for 5.5 million years after the last timestamp; 2000 is a leap year, so it has every day.
    month_and_day = "make_date(2000, extract(month FROM {})::integer, extract(day FROM {})::integer)::timestamp"
    late = f"extract(year FROM {{}})::text || to_char({month_and_day}, '-MM-DD')" if day_only else text
    # to_char gives NULL for an infinity and drops the era; both are rare enough to come second.
    return (
        f"CASE WHEN {{}} BETWEEN {first} AND {last} THEN {text} WHEN NOT isfinite({{}}) THEN {{}}::text "
        f"WHEN {{}} < {first} THEN {text} || ' BC' ELSE {late} END"
    )


_INTEGERS = ("int2", "int4", "int8")
_TEXTS = ("S", "E")

_UUID = Mapping("{}::text", "TEXT", json="plain", key="{}::text", from_key="{}::uuid", kinds=("uuid",))
_BOOLEAN = Mapping(
    "{}",
    "INTEGER",
    json="boolean",
    key="{}::text",
    from_key="{}::boolean",
    stored_key=lambda text: int(text == "true"),
    kinds=("bool",),
)
_REAL = Mapping("{}", "ANY", json="real", adapt=_real, kinds=("float4", "float8"))
_NUMERIC = Mapping("{}::text", "TEXT", json="plain", kinds=("numeric", *_INTEGERS))
_JSON = Mapping("{}::text", "TEXT", json="json", kinds=("json", "jsonb"))
_BYTES = Mapping(
    "{}",
    "BLOB",
    json="hex",
    key="encode({}, 'hex')",
    from_key="decode({}, 'hex')",
    stored_key=bytes.fromhex,
    kinds=("bytea",),
)
# An array's elements and dimensions; not that one may begin at another index than 1, which nobody uses.
_ARRAY = Mapping("to_jsonb({})::text", "TEXT", json="json", kinds=("A",))
_TIME = Mapping("{}::text", "TEXT", json="plain", key="{}::text", from_key="{}::time", kinds=("time",))


def _integer(name: str) -> Mapping:
    return Mapping("{}", "INTEGER", key="{}::text", from_key=f"{{}}::{name}", stored_key=int, kinds=_INTEGERS)


def _text(kind: sa.String) -> Mapping:
    """Give the mapping of a text, whose key finds its row by the index that the table has: of the same collation."""
    if isinstance(kind, sa.Enum) and kind.native_enum:
        name = ".".join(f'"{part}"' for part in (kind.schema, kind.name) if part)
        return Mapping("{}::text", "TEXT", key="{}::text", from_key=f"{{}}::{name}", kinds=_TEXTS)
    collation = kind.collation or "default"
    return Mapping("{}::text", "TEXT", key="{}::text", from_key=f'{{}} COLLATE "{collation}"', kinds=_TEXTS)


def _temporal(name: str, wire: str) -> Mapping:
    return Mapping(wire, "TEXT", json="plain", key=wire, from_key=f"{{}}::{name}", kinds=(name,))


_DATE = _temporal("date", _moment(day_only=True))
_TIMESTAMP = _temporal("timestamp", _moment())
_TIMESTAMPTZ = _temporal("timestamptz", _moment(zone='"Z"'))

_ARRAY_ITEMS = (sa.String, sa.Uuid, sa.Boolean, sa.Integer, sa.Numeric)


def mapping_of(column: sa.Column[Any]) -> Mapping:
    """Give the mapping of a declared column. Raises `UnsupportedDeclaration` for a type that has none."""
    mapping = _mapping(column.type)
    if mapping is None:
        raise UnsupportedDeclaration(
            f"{column.table.name}.{column.name}: the type {column.type!r} has no mapping to a replica",
            hint="Use text, uuid, boolean, an integer, float, numeric, date, time, timestamp, timestamptz, json, "
            "jsonb, bytea, or an array of text, uuid, boolean, integer or numeric.",
        )
    return mapping


def is_text(kind: Any) -> bool:
    """Tell whether a type is of texts that are equal only when they are the same, as a user's id must be."""
    return isinstance(kind, sa.String) and not isinstance(kind, sa.Enum) and _mapping(kind) is not None


def _mapping(kind: Any) -> Mapping | None:
    match kind:
        case sa.ARRAY():
            return _ARRAY if isinstance(kind.item_type, _ARRAY_ITEMS) else None
        case sa.CHAR() | sa.NCHAR() | pg.CITEXT():  # equal values can differ in text
            return None
        case sa.String():  # Text, VARCHAR and Enum too
            return _text(kind)
        case sa.Uuid():
            return _UUID if kind.native_uuid else None
        case sa.Boolean():
            return _BOOLEAN
        case sa.SmallInteger():
            return _integer("smallint")
        case sa.BigInteger():
            return _integer("bigint")
        case sa.Integer():
            return _integer("integer")
        case sa.Float():
            return _REAL
        case sa.Numeric():
            return _NUMERIC
        case sa.DateTime():
            return _TIMESTAMPTZ if kind.timezone else _TIMESTAMP
        case sa.Date():
            return _DATE
        case sa.Time():
            return None if kind.timezone else _TIME
        case sa.JSON():
            return _JSON
        case sa.LargeBinary():
            return _BYTES
    return None
