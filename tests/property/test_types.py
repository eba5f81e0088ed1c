"""Every mapped type survives the trip: through psycopg into Postgres, by the feed, into SQLite, and out as JSON.

What is expected is made from the value that was put in, by rules of this file's own. Hypothesis makes the values;
all of them travel in one sync, for it is the values that are many, not the trips.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import psycopg
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from replica import apply
from replica.rendering import json_members
from replica.store import Store
from tests.support import shapes
from tests.support.databases import Databases
from tests.support.edges import EDGES
from tests.support.oracle import Oracle

Pair = tuple[Any, Any]
"""A value as it is given to Postgres, and as a replica holds it."""


@pytest.fixture
async def primary(databases: Databases) -> AsyncIterator[Primary]:
    async with shapes.installed(databases) as primary:
        yield primary


@pytest.fixture
async def store(data_dir: Path, primary: Primary) -> AsyncIterator[Store]:
    store = Store(data_dir, shapes.catalog, PostgresFeed(primary, shapes.catalog))
    await store.open()
    try:
        yield store
    finally:
        await store.close()


# ------------------------------------------------------------- values, and what becomes of them


def same(value: Any) -> Pair:
    return value, value


def kept(value: Any, stored: Any) -> Pair:
    return value, stored


def _real(value: float) -> Pair:
    return value, "NaN" if math.isnan(value) else value


def _moment(value: datetime) -> Pair:
    if value.tzinfo is None:
        return value, value.isoformat(timespec="microseconds")
    utc = value.astimezone(UTC).replace(tzinfo=None)
    return value, utc.isoformat(timespec="microseconds") + "Z"


def _time(value: time) -> Pair:
    return value, value.isoformat().rstrip("0") if value.microsecond else value.isoformat()


def _numeric(sign: str, whole: str, fraction: str) -> Pair:
    text = (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")
    zero = not text.strip("0.")
    return sign + whole + (f".{fraction}" if fraction else ""), text if zero else sign + text


def integers(bits: int) -> st.SearchStrategy[Pair]:
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    return (st.integers(low, high) | st.sampled_from([low, low + 1, -1, 0, 1, high - 1, high])).map(same)


def floats(width: Any) -> st.SearchStrategy[Pair]:
    edges = [math.nan, math.inf, -math.inf, -0.0, 0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308]
    edges += [0.1, 1 / 3, 0.1 + 0.2, 1e22, 1e23, 123456789.12345679, 9007199254740993.0, 2.5e-5]
    if width == 32:
        edges = [e for e in edges if not math.isfinite(e) or struct.unpack("f", struct.pack("f", min(e, 3e38)))[0] == e]
    return (st.floats(width=width) | st.sampled_from(edges)).map(_real)


# Any text but NUL, which Postgres has not, and surrogates, which are no characters.
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    [
        "",
        " ",
        "NULL",
        "\\N",
        "\\",
        "'",
        '"',
        "\u0001\u001f\u007f\u0080\u009f",
        "\r\n\t",
        "👩‍👩‍👧‍👦 🏳️‍🌈 🐚",
        "שלום \u202eעולם\u202c مرحبا",
        "e\u0301 é ﬁ ǆ İ ß",
        "\ufeff\ufffe\uffff\ufffd\U0010ffff\U000e0041",
        "\u2028\u2029</script>",
        "%s %(x)s {} $1 ?1",
    ]
)
digits = st.text("0123456789", min_size=1, max_size=60)
numerics = st.builds(
    _numeric, st.sampled_from(["", "-"]), digits | st.just("9" * 1000), st.just("") | digits | st.just("1" * 300)
) | st.sampled_from([same("NaN"), same("Infinity"), same("-Infinity"), kept("1.500", "1.500"), kept("1e5", "100000")])
dates = st.dates().map(lambda day: (day, day.isoformat()))
zones = st.integers(-15 * 60 + 1, 15 * 60 - 1).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes().map(_moment)
zoned = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=zones).map(_moment)  # noqa: DTZ001 - naive bounds
documents = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts.map(lambda p: p),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def arrays(items: st.SearchStrategy[Pair], kind: str) -> st.SearchStrategy[Pair]:
    """Arrays of one or two dimensions, with NULLs; expected as the JSON of what is expected of their elements."""
    item = st.none().map(same) | items

    def made(pairs: list[Any]) -> Pair:
        if pairs and isinstance(pairs[0], list):
            return [[value for value, _ in row] for row in pairs], [[stored for _, stored in row] for row in pairs]
        return [value for value, _ in pairs], [stored for _, stored in pairs]

    flat = st.lists(item, max_size=4)
    nested = st.integers(1, 3).flatmap(
        lambda width: st.lists(st.lists(item, min_size=width, max_size=width), min_size=1, max_size=3)
    )
    return (flat | nested).map(made)


VALUES: dict[str, st.SearchStrategy[Pair]] = {
    "text": texts.map(same),
    "varchar": texts.filter(lambda text: len(text) <= 50).map(same),
    "enum": st.sampled_from(["egg", "larva", "adult"]).map(same),
    "uuid": st.uuids().map(lambda value: (value, str(value))),
    "bool": st.booleans().map(lambda value: (value, int(value))),
    "smallint": integers(16),
    "integer": integers(32),
    "bigint": integers(64),
    "real": floats(32),
    "double": floats(64),
    "numeric": numerics,
    "money": st.integers(-(10**11), 10**11).map(lambda n: (Decimal(n).scaleb(-3), f"{Decimal(n).scaleb(-3):.3f}")),
    "date": dates,
    "time": st.times().map(_time),
    "timestamp": moments,
    "timestamptz": zoned,
    "json": documents.map(lambda value: same(json.dumps(value, indent=1))),
    "jsonb": documents.map(lambda value: (json.dumps(value, ensure_ascii=False), value)),
    "bytea": (st.binary(max_size=60) | st.sampled_from([b"", b"\0", bytes(range(256))])).map(same),
    "texts": arrays(texts.map(same), "text"),
    "uuids": arrays(st.uuids().map(lambda value: (value, str(value))), "uuid"),
    "bools": arrays(st.booleans().map(same), "bool"),
    "bigints": arrays(integers(64), "int8"),
    "numerics": arrays(
        numerics.map(lambda pair: (pair[0], pair[1] if "N" in pair[1] or "I" in pair[1] else Decimal(pair[1]))),
        "numeric",
    ),
}
assert VALUES.keys() == shapes.COLUMN_TYPES.keys()

CASTS = {
    "enum": "specimen_stage",
    "real": "real",
    "numeric": "numeric",
    "json": "json",
    "jsonb": "jsonb",
    "texts": "text[]",
    "uuids": "uuid[]",
    "bools": "boolean[]",
    "bigints": "bigint[]",
    "numerics": "numeric[]",
}
COMPARED_AS_JSON = {"jsonb", "texts", "uuids", "bools", "bigints", "numerics"}


def drawn(strategy: st.SearchStrategy[Any], number: int) -> list[Any]:
    """Draw so many examples, anew each time."""
    examples: list[Any] = []

    @settings(max_examples=number, phases=[Phase.generate], database=None, suppress_health_check=[*HealthCheck])
    @given(strategy)
    def draw(example: Any) -> None:
        examples.append(example)

    draw()
    return examples


def agree(name: str, found: Any, value: Any, expected: Any) -> bool:
    """Compare what a replica holds with what is expected of a value, to the sign of zero."""
    if value is None or found is None:
        return found is value
    if name in COMPARED_AS_JSON:
        return equal_json(json.loads(found, parse_float=Decimal), expected)
    if isinstance(expected, float):
        return isinstance(found, float) and struct.pack("d", found) == struct.pack("d", expected)
    return type(found) is type(expected) and found == expected


def equal_json(found: Any, expected: Any) -> bool:
    if isinstance(expected, dict):
        return found.keys() == expected.keys() and all(equal_json(found[key], expected[key]) for key in expected)
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(equal_json, found, expected))
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, float):  # was written in its shortest form, and is read as written
        return found == Decimal(repr(expected))
    return found == expected


def in_json(name: str, stored: Any) -> Callable[[Any], bool]:
    """Give the test of what stands in a row's rendered JSON for what the replica holds."""
    if stored is None:
        return lambda value: value is None
    match name:
        case "bool":
            return lambda value: value is bool(stored)
        case "bytea":
            return lambda value: value == stored.hex()
        case "json":
            return lambda value: value == json.loads(stored)
        case _ if name in COMPARED_AS_JSON:
            return lambda value: value == json.loads(stored)
        case "real" | "double" if isinstance(stored, float) and math.isinf(stored):
            return lambda value: value == ("Infinity" if stored > 0 else "-Infinity")
    return lambda value: type(value) is type(stored) and value == stored


NAMES = [*VALUES, *(name + shapes.REQUIRED for name in VALUES)]
COLUMNS = ", ".join(NAMES)
PLACES = ", ".join(
    f"%s::{CASTS[kind]}" if (kind := name.removesuffix(shapes.REQUIRED)) in CASTS else "%s" for name in NAMES
)


async def test_every_value_of_every_type_survives_the_trip(primary: Primary, store: Store) -> None:
    row = st.tuples(
        *(st.none().map(same) | values for values in VALUES.values()),  # the nullable ones
        *VALUES.values(),
    )
    rows = drawn(row, 250)
    half = len(rows) // 2
    async with primary.connection() as connection, connection.cursor() as cursor:
        insert = f"INSERT INTO specimen (user_id, id, {COLUMNS}) OVERRIDING SYSTEM VALUE VALUES ('ann', %s, {PLACES})"
        for part in (range(half), range(half, len(rows))):
            # The first half comes in a first build, the second in a sync of changes.
            await cursor.executemany(
                insert.encode(), [(number, *(value for value, _ in rows[number])) for number in part]
            )
            await store.sync("ann")
    counts = store.counts()
    assert (counts.syncs, counts.rebuilds) == (2, 1)
    reading = await store.read(
        "ann", lambda replica: replica.execute(f"SELECT id, {COLUMNS} FROM specimen ORDER BY id").fetchall()
    )
    assert [row[0] for row in reading.value] == [*range(len(rows))]
    seen: dict[str, int] = dict.fromkeys(NAMES, 0)
    for given_row, (_, *found_row) in zip(rows, reading.value, strict=True):
        for name, (value, expected), found in zip(NAMES, given_row, found_row, strict=True):
            kind = name.removesuffix(shapes.REQUIRED)
            assert agree(kind, found, value, expected), f"{name}: {value!r} became {found!r}, not {expected!r}"
            seen[name] += found is not None
    assert all(seen.values())
    # The same rows as the index that carries them rendered has them.
    members = json_members(shapes.catalog["specimen"])
    rendered = await store.read(
        "ann",
        lambda replica: (
            {step[1] for step in replica.execute(f"EXPLAIN SELECT {members} FROM specimen ORDER BY id").fetchall()},
            [*replica.execute(f"SELECT '{{' || {members} || '}}' FROM specimen ORDER BY id")],
        ),
    )
    assert rendered.value[0].isdisjoint({"Function", "PureFunc", "Concat"})  # SQLite makes nothing anew
    for (_, *found_row), (text,) in zip(reading.value, rendered.value[1], strict=True):
        parsed = json.loads(text)
        assert [*parsed] == ["id", *NAMES]
        for name, found in zip(NAMES, found_row, strict=True):
            assert in_json(name.removesuffix(shapes.REQUIRED), found)(parsed[name]), (
                f"{name}: {found!r}, {parsed[name]!r}"
            )


# ------------------------------------------------------------- what Python's types cannot say

# What a server, a database or a role may have set for the sessions that read.
ODD_READER = {
    "TimeZone": "Pacific/Apia",
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "extra_float_digits": "-15",
    "bytea_output": "escape",
    "standard_conforming_strings": "off",
}


@pytest.fixture(params=["plain", "odd"])
async def reader(request: pytest.FixtureRequest, primary: Primary) -> AsyncIterator[Primary]:
    """The primary by sessions with the usual settings, and with none of them."""
    options = " ".join(f"-c {name}={value}" for name, value in ODD_READER.items()) if request.param == "odd" else ""
    reader = Primary(f"{primary.url}&options={quote(options)}")
    await reader.open()
    try:
        yield reader
    finally:
        await reader.close()


@pytest.mark.parametrize("by", ["build", "changes", "changes one by one"])
async def test_values_at_the_edges_of_each_type_survive_the_trip(
    by: str, primary: Primary, reader: Primary, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "STAGED_ROWS_MIN", 10**6 if by == "changes one by one" else 1)
    store = Store(data_dir, shapes.catalog, PostgresFeed(reader, shapes.catalog))
    await store.open()
    try:
        await _edges_survive(by, primary, store)
    finally:
        await store.close()


async def _edges_survive(by: str, primary: Primary, store: Store) -> None:
    expected: list[tuple[str, str, Any]] = []
    if by != "build":
        await store.sync("ann")
    async with primary.connection() as connection:
        for name, edges in EDGES.items():
            for sql, stored in edges:
                for column in (name, name + shapes.REQUIRED):
                    if sql == "NULL" and column != name:
                        continue
                    await connection.execute(
                        f"INSERT INTO specimen (user_id, id, {column}) OVERRIDING SYSTEM VALUE "
                        f"VALUES ('ann', {len(expected)}, {sql})".encode()
                    )
                    expected.append((column, sql, stored))
    result = await store.sync("ann")
    assert result.rebuilt == (by == "build")
    members = json_members(shapes.catalog["specimen"])
    reading = await store.read(
        "ann",
        lambda replica: [
            replica.execute(f"SELECT {column}, '{{' || {members} || '}}' FROM specimen WHERE id = ?", [number]).get
            for number, (column, _, _) in enumerate(expected)
        ],
    )
    for (column, sql, stored), (found, text) in zip(expected, reading.value, strict=True):
        if isinstance(stored, float):
            assert struct.pack("d", found) == struct.pack("d", stored), f"{column}: {sql}"
        else:
            assert found == stored, f"{column}: {sql}"
            assert type(found) is type(stored)
        if "repeat('['" in sql:  # deeper than Python's reader goes
            assert f'"{column}":{stored},' in text
            continue
        kind = column.removesuffix(shapes.REQUIRED)
        assert in_json(kind, stored)(json.loads(text)[column]), f"{column}: {sql}"


# ------------------------------------------------------------- keys

KEY_EDGES: dict[str, list[str]] = {
    "a_text": [
        "''",
        "'A'",
        "'a'",
        "'a '",
        "'ä'",
        r"U&'a\0308'",
        "'🐚'",
        "'\\'",
        "'\"'",
        "','",
        "'{}'",
        "'NULL'",
        "chr(1)",
        "chr(31)",
        "chr(127)",
        r"E'\b\f\n\r\t/'",
        r"U&'\2028'",
    ],
    "a_varchar": ["''", "'a'", "'a '", "repeat('é', 200)"],
    "a_collated": ["''", "'B'", "'a'", "'ä'"],
    "an_enum": ["'small'", "'large'", "'it''s'"],
    "a_uuid": ["'00000000-0000-0000-0000-000000000000'", "'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF'"],
    "a_bool": ["true", "false"],
    "a_smallint": ["-32768", "0", "32767"],
    "an_integer": ["-2147483648", "0", "2147483647"],
    "a_bigint": ["-9223372036854775808", "0", "9223372036854775807"],
    "a_date": [sql for sql, _ in EDGES["date"]],
    "a_time": [sql for sql, _ in EDGES["time"]],
    "a_timestamp": [sql for sql, _ in EDGES["timestamp"]],
    "a_timestamptz": [sql for sql, _ in EDGES["timestamptz"]],
    "a_bytea": [r"'\x'", r"'\x00'", r"'\xff'", r"'\x5c'", r"'\x27'"],
}
assert KEY_EDGES.keys() == shapes.KEY_TYPES.keys()


async def test_rows_are_found_again_by_keys_of_every_type_at_its_edges(primary: Primary, data_dir: Path) -> None:
    oracle = Oracle(primary, shapes.metadata)
    store = Store(data_dir, shapes.catalog, oracle)
    await store.open()

    async def compared() -> list[tuple[Any, ...]]:
        result = await store.sync("ann")
        reading = await store.read("ann", oracle.held)
        assert reading.value == await oracle.expected("ann", result.version.version)
        return reading.value["ledger"]

    try:
        await store.sync("ann")
        async with primary.connection() as connection:
            number = 0
            for column, edges in KEY_EDGES.items():
                for sql in edges:
                    number += 1
                    # The amount tells the rows apart: rows whose keys became one would be fewer.
                    await connection.execute(
                        f"INSERT INTO ledger (owner, {column}, amount) VALUES ('ann', {sql}, {number}) "
                        "ON CONFLICT DO NOTHING".encode()
                    )
            inserted = await compared()
            assert len(inserted) > number - len(KEY_EDGES) - 3  # one of each type may be the default
            await connection.execute("UPDATE ledger SET amount = amount + 1000 WHERE amount::integer % 2 = 0")
            assert len(await compared()) == len(inserted)
            await connection.execute("DELETE FROM ledger WHERE amount::integer % 3 = 0")
            left = await compared()
            assert 0 < len(left) < len(inserted)
            await connection.execute("UPDATE ledger SET an_integer = an_integer / 2 + 5")
            assert len(await compared()) == len(left)
            await connection.execute("DELETE FROM ledger")
            assert await compared() == []
        # Whoever wrote a key's text, one key has one: it is what a client gets, and what a mark is found by.
        marks = await store.read("ann", lambda replica: [*replica.execute("SELECT row_key FROM _change")])
        assert len(marks.value) >= len(inserted)
        assert [key for (key,) in marks.value if key != json.dumps(json.loads(key), ensure_ascii=False)] == []
        assert store.counts().rebuilds == 1
    finally:
        await store.close()


async def test_a_value_that_postgres_has_not_is_never_half_written(primary: Primary, store: Store) -> None:
    """NUL, half of a surrogate pair, numbers out of range: refused, and nothing of them is marked."""
    refused: list[tuple[str, Any]] = [
        ("text", "a\0b"),
        ("text", "\ud800"),
        ("bigint", 2**63),
        ("smallint", 40_000),
        ("money", Decimal(10) ** 12),
        ("jsonb", '"\\u0000"'),
        ("jsonb", '{"a":'),
        ("enum", "moth"),
        ("date", "2026-02-30"),
        ("uuid", "no"),
    ]
    async with primary.connection() as connection:
        for name, value in refused:
            cast = f"::{CASTS[name]}" if name in CASTS else ""
            with pytest.raises((psycopg.Error, UnicodeError)):
                await connection.execute(
                    f"INSERT INTO specimen (user_id, {name}) VALUES ('ann', %s{cast})".encode(), [value]
                )
    assert (await store.sync("ann")).version.version == 0


def test_the_examples_are_of_python_types_that_psycopg_sends() -> None:
    """So that what is tested is what applications do."""
    kinds = {type(value) for strategy in VALUES.values() for value, _ in drawn(strategy, 5)}
    assert kinds >= {str, int, float, bool, bytes, list, UUID, Decimal, date, datetime, time}
