"""The formats that there are. Each is a module of its own, which writes a replica's rows into a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import apsw

from replica.export import csv_zip, ndjson, sqlite_file
from replica.export.manifest import Manifest

Write = Callable[[apsw.Connection, Manifest, Path], Path]
"""Writes what the connection sees (`replica.apart.Work`) into a file in the folder, and gives its path."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format: what it is called, its media type, how names of its files end, and how it is written."""

    name: str
    media_type: str
    suffix: str
    write: Write


FORMATS = {
    one.name: one
    for one in (
        Format("sqlite", "application/vnd.sqlite3", ".sqlite", sqlite_file.write),
        Format("ndjson", "application/x-ndjson", ".ndjson", ndjson.write),
        Format("csv", "application/zip", ".csv.zip", csv_zip.write),
    )
}
"""By name; the first is what one gets who does not say."""
