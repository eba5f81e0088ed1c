"""Reading exports back, by rules of this file's own: as the rows that a replica would hold."""

from __future__ import annotations

import io
import json
import re
import sqlite3  # noqa: TID251 - whoever has the file opens it with theirs
import zipfile
from collections.abc import Iterator
from contextlib import closing
from typing import Any, NamedTuple

import sqlalchemy as sa

from primary.declaration import Catalog, SyncedColumn, SyncedTable

Rows = dict[str, list[tuple[Any, ...]]]


class Read(NamedTuple):
    """What an export says of itself, and its rows by table."""

    manifest: dict[str, Any]
    rows: Rows


class CutOff(Exception):
    """The export is not whole."""


def read(name: str, content: bytes, catalog: Catalog) -> Read:
    """Read an export of the format ``name``. Raises `CutOff`."""
    found = {"sqlite": _sqlite, "ndjson": _ndjson, "csv": _csv}[name](content, catalog)
    told = {table["name"]: table["rows"] for table in found.manifest["tables"]}
    assert told == {table: len(rows) for table, rows in found.rows.items()}
    return found


# ------------------------------------------------------------- SQLite


def _sqlite(content: bytes, catalog: Catalog) -> Read:
    with closing(opened(content)) as connection:
        try:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            ((version, user, at, total),) = connection.execute("SELECT version, user, exported_at, rows FROM _export")
        except (sqlite3.DatabaseError, AssertionError) as error:
            raise CutOff from error
        tables = [
            {"name": name, "rows": rows, "columns": json.loads(columns)}
            for name, rows, columns in connection.execute("SELECT name, rows, columns FROM _export_table")
        ]
        rows = {t.name: connection.execute(f'SELECT * FROM "{t.name}"').fetchall() for t in catalog}
        assert total == sum(map(len, rows.values()))
    return Read({"version": version, "user": user, "exported_at": at, "tables": tables}, rows)


def opened(content: bytes) -> sqlite3.Connection:
    """Open an SQLite file from memory, to be written too."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        connection.deserialize(content)
    except BaseException:
        connection.close()
        raise
    return connection


# ------------------------------------------------------------- JSON lines


_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[{]|[\]}]|,|[^",\[\]{}]+')


def _members(text: str) -> dict[str, str]:
    """Give the members of an object as the very texts that they are, which no reader of JSON does."""
    assert text[0] == "{"
    assert text[-1] == "}"
    members: dict[str, str] = {}
    depth, start = 0, 1
    for token in _TOKEN.finditer(text, 1):
        match token[0]:
            case "[" | "{":
                depth += 1
            case "]" | "}" if depth:
                depth -= 1
            case "," | "}" if not depth:
                name, _, value = text[start : token.start()].partition(":")
                members[json.loads(name)] = value
                start = token.end()
    assert start == len(text)
    return members


def _ndjson(content: bytes, catalog: Catalog) -> Read:
    if not content.endswith(b"\n"):
        raise CutOff
    first, *lines, last = content[:-1].split(b"\n")
    manifest = json.loads(first)["export"]
    end = json.loads(last).get("end")
    if end is None:
        raise CutOff
    rows: Rows = {table.name: [] for table in catalog}
    for line in lines:
        told = _members(line.decode())
        table = catalog[json.loads(told.pop("table"))]
        values = _members(told.pop("row"))
        json_null = json.loads(told.pop("json_null", "[]"))
        assert not told
        assert [*values] == [column.name for column in table.columns]
        rows[table.name].append(
            tuple(_of_json(column, values[column.name], column.name in json_null) for column in table.columns)
        )
    counts = {name: len(each) for name, each in rows.items()}
    assert end == {"version": manifest["version"], "rows": sum(counts.values()), "tables": counts}
    return Read(manifest, rows)


def _of_json(column: SyncedColumn, text: str, json_null: bool) -> Any:
    if text == "null" and not json_null and column.nullable:
        return None
    match column.mapping.json:
        case "json":
            return text
        case "boolean":
            return {"true": 1, "false": 0}[text]
        case "hex":
            return bytes.fromhex(json.loads(text))
        case "real":
            value = json.loads(text)
            return value if value == "NaN" else float(value)
    return json.loads(text)


# ------------------------------------------------------------- CSV


def _csv(content: bytes, catalog: Catalog) -> Read:
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except zipfile.BadZipFile as error:
        raise CutOff from error
    assert archive.testzip() is None
    assert {*archive.namelist()} == {"manifest.json", *(f"{table.name}.csv" for table in catalog)}
    rows = {table.name: [*_rows_of_csv(table, archive.read(f"{table.name}.csv").decode())] for table in catalog}
    return Read(json.loads(archive.read("manifest.json")), rows)


def _rows_of_csv(table: SyncedTable, text: str) -> Iterator[tuple[Any, ...]]:
    head, *lines = _cells(text)
    assert head == [(column.name, False) for column in table.columns]
    for line in lines:
        yield tuple(_of_cell(column, *cell) for column, cell in zip(table.columns, line, strict=True))


def _cells(text: str) -> Iterator[list[tuple[str, bool]]]:
    """Read RFC 4180: each line's cells, and whether each was in quotes."""
    place = 0
    line: list[tuple[str, bool]] = []
    while place < len(text):
        if text[place] == '"':
            end = place + 1
            while text[end : end + 2] == '""' or text[end] != '"':
                end = text.index('"', end + 2 if text[end] == '"' else end + 1)
            line.append((text[place + 1 : end].replace('""', '"'), True))
            place = end + 1
        else:
            end = min(found for stop in (",", "\r\n") if (found := text.find(stop, place)) >= 0)
            line.append((text[place:end], False))
            place = end
        if text[place] == ",":
            place += 1
            continue
        assert text[place : place + 2] == "\r\n"
        yield line
        place, line = place + 2, []


def _of_cell(column: SyncedColumn, text: str, in_quotes: bool) -> Any:
    if text == "" and not in_quotes:
        return None
    match column.mapping.json:
        case "boolean":
            return {"true": 1, "false": 0}[text]
        case "hex":
            assert text.startswith("\\x")
            return bytes.fromhex(text[2:])
        case "real":
            return text if text == "NaN" else float(text)
    assert in_quotes is (column.mapping.storage != "INTEGER")
    return text if in_quotes else int(text)


# ------------------------------------------------------------- as Postgres reads it


async def copied_back(connection: Any, table: SyncedTable, owner: str, content: bytes) -> tuple[int, int]:
    """Have Postgres read a table of a CSV export; count the rows that only one of the two has."""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    arrays = [c.name for c in table.columns if isinstance(table.table.c[c.name].type, sa.ARRAY)]
    await connection.execute(f"CREATE TEMP TABLE back AS SELECT {columns} FROM {table.name} WHERE false".encode())
    for name in arrays:  # which are JSON there
        await connection.execute(f'ALTER TABLE back ALTER "{name}" TYPE jsonb USING NULL'.encode())
    text = zipfile.ZipFile(io.BytesIO(content)).read(f"{table.name}.csv")
    async with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY back ({columns}) FROM STDIN (FORMAT csv, HEADER MATCH)".encode()) as copy,
    ):
        await copy.write(text)

    def texts(of: str) -> str:
        each = (
            f'to_jsonb({of}."{c.name}")::text' if c.name in arrays else f'{of}."{c.name}"::text' for c in table.columns
        )
        return f"ARRAY[{', '.join(each)}] AS row"

    there = f"SELECT {texts('t')} FROM {table.name} AS t WHERE {table.owner} = '{owner}'"
    back = f"SELECT {texts('b')} FROM back AS b"
    only = [f"(SELECT count(*) FROM ({one} EXCEPT ALL {other}))" for one, other in ((there, back), (back, there))]
    found = await connection.execute(f"SELECT {', '.join(only)}".encode())
    missing, extra = await found.fetchone()
    await connection.execute("DROP TABLE back")
    return missing, extra
