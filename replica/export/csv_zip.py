r"""The export as CSV: a zip with a file for each table, and manifest.json, which tells of tables, types and counts.

The files are as RFC 4180 has them, and as Postgres reads them with ``COPY image (…) FROM … (FORMAT csv, HEADER)``: a
NULL is an empty cell, an empty text is ``""``. Every text is in quotes, and so are JSON, times and numerics; integers,
floats and booleans are not. Bytes are hex behind ``\x``; NaN and the infinities are NaN, Infinity and -Infinity; an
array is JSON. A zip has its table of contents at its end, so one that was cut off is none.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import apsw

from primary.declaration import SyncedColumn, SyncedTable
from replica.apart import SOURCE
from replica.export.manifest import Manifest
from replica.export.values import chained, exact_json, knows_zeros
from replica.rendering import quoted

MANIFEST = "manifest.json"

_PART_BYTES = 1 << 16  # handed to the compressor at once; each hand-over gives the interpreter up
_LEVEL = 1  # a third of the time of the default, for a sixth more bytes


def write(connection: apsw.Connection, manifest: Manifest, folder: Path) -> Path:
    """Write the rows of a replica; see `replica.export.formats.Write`."""
    path = folder / "export.zip"
    knows_zeros(connection)
    with (
        path.open("xb") as out,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive,
    ):
        archive.writestr(MANIFEST, manifest.as_json())
        for table in manifest.catalog:
            with archive.open(f"{table.name}.csv", "w", force_zip64=True) as file:
                part = [",".join(column.name for column in table.columns).encode() + b"\r\n"]
                size = 0
                for (line,) in connection.execute(_lines_sql(table)):
                    part.append(line)
                    size += len(line)
                    if size > _PART_BYTES:
                        file.write(b"".join(part))
                        part.clear()
                        size = 0
                file.write(b"".join(part))
    return path


def _lines_sql(table: SyncedTable) -> str:
    cells = chained(" || ',' || ", [_cell(column) for column in table.columns])
    return f"SELECT CAST({cells} || char(13, 10) AS BLOB) FROM {SOURCE}.{quoted(table.name)}"


def _cell(column: SyncedColumn) -> str:
    name = quoted(column.name)
    match column.mapping.json:
        case "boolean" | "real":
            return f"CASE WHEN {name} IS NULL THEN '' ELSE {exact_json(column, name)} END"
        case "hex":
            return f"CASE WHEN {name} IS NULL THEN '' ELSE '\\x' || lower(hex({name})) END"
    if column.mapping.storage == "INTEGER":
        return f"ifnull({name}, '')"
    return f"""ifnull('"' || replace({name}, '"', '""') || '"', '')"""
