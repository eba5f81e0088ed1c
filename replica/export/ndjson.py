"""The export as newline-delimited JSON: a line that says what it is, a line for each row, a line that says it is whole.

    {"export": {"user": …, "version": …, "tables": [{"name": …, "rows": …, "columns": […]}, …]}}
    {"table": "image", "row": {"id": …, …}}
    {"end": {"version": …, "rows": 2, "tables": {"image": 2, …}}}

Values are written as the API writes them (`replica.rendering`). Integers have all their 64 bits, which JavaScript's
numbers have not; a numeric is text, as it may have any number of digits; NaN and the infinities, which JSON has not,
are the texts "NaN", "Infinity" and "-Infinity"; bytes are hex; times are ISO 8601. JSON is itself, as it was put in,
but for line breaks between its tokens. A null is a NULL, but in the columns that the row names beside itself, as
``"json_null": ["old_value"]``: there it is JSON's null, which Postgres tells apart from NULL where both may be.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from primary.declaration import SyncedTable
from replica.apart import SOURCE
from replica.export.manifest import Manifest, to_json
from replica.export.values import chained, exact_json, knows_zeros
from replica.rendering import json_members, quoted

_BUFFER_BYTES = 1 << 18


def write(connection: apsw.Connection, manifest: Manifest, folder: Path) -> Path:
    """Write the rows of a replica; see `replica.export.formats.Write`."""
    path = folder / "export.ndjson"
    knows_zeros(connection)
    written: dict[str, int] = {}
    with path.open("xb", buffering=_BUFFER_BYTES) as out:
        out.write(to_json({"export": manifest.as_dict()}) + b"\n")
        for table in manifest.catalog:
            number = 0
            for (line,) in connection.execute(_lines_sql(table)):
                number += 1
                # White space between two tokens of somebody's JSON; within a text it is escaped.
                out.write(line.replace(b"\n", b" ").replace(b"\r", b" ") if b"\n" in line or b"\r" in line else line)
                out.write(b"\n")
            written[table.name] = number
        out.write(to_json({"end": {"version": manifest.version, "rows": sum(written.values()), "tables": written}}))
        out.write(b"\n")
    return path


def _lines_sql(table: SyncedTable) -> str:
    row, beside = json_members(table, value=exact_json), _json_null(table)
    line = f"""'{{"table":"{table.name}","row":{{' || {row} || '}}' || {beside} || '}}'"""
    return f"SELECT CAST({line} AS BLOB) FROM {SOURCE}.{quoted(table.name)}"


def _json_null(table: SyncedTable) -> str:
    """Give the SQL of the member that names a row's columns with JSON's null; empty where there is none."""
    names = [column.name for column in table.columns if column.nullable and column.mapping.json == "json"]
    if not names:
        return "''"
    tests = {name: f"trim({quoted(name)}, char(9, 10, 13, 32)) = 'null'" for name in names}
    told = chained(" || ", [f"""CASE WHEN {test} THEN ',"{name}"' ELSE '' END""" for name, test in tests.items()])
    some = chained(" OR ", [*tests.values()])
    return f"""CASE WHEN {some} THEN ',"json_null":[' || substr({told}, 2) || ']' ELSE '' END"""
