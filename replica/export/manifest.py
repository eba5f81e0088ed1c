"""What every export says of itself: whose it is, as of which cursor, which tables it has, of how many rows."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import apsw
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect

from primary.declaration import Catalog, SyncedTable
from replica.apart import SOURCE
from replica.rendering import quoted
from replica.state import State

_POSTGRES: Dialect = postgresql.dialect()  # type: ignore[no-untyped-call]

FORMAT = 1  # to be raised when what a reader relies on changes


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an export says of itself; ``rows`` is by table, in the order of the declarations."""

    user: str
    version: str
    exported_at: str
    catalog: Catalog
    rows: dict[str, int]

    @classmethod
    def of(cls, connection: apsw.Connection, state: State, catalog: Catalog) -> Manifest:
        """Count what is there, within the connection's transaction (see `replica.apart.Work`)."""
        rows = {
            table.name: connection.execute(f"SELECT count(*) FROM {SOURCE}.{quoted(table.name)}").get
            for table in catalog
        }
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return cls(state.user, str(state.cursor), now, catalog, rows)

    @property
    def total(self) -> int:
        """The rows of all tables."""
        return sum(self.rows.values())

    def as_dict(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return {
            "format": FORMAT,
            "user": self.user,
            "version": self.version,
            "exported_at": self.exported_at,
            "tables": [
                {"name": table.name, "rows": self.rows[table.name], "key": [*table.key], "columns": columns_of(table)}
                for table in self.catalog
            ],
        }

    def as_json(self) -> bytes:
        """Write it as JSON, on one line."""
        return to_json(self.as_dict())


def columns_of(table: SyncedTable) -> list[dict[str, Any]]:
    """Describe a table's columns: name, type in Postgres, whether it may be NULL."""
    return [
        {"name": column.name, "type": _type_of(table, column.name), "nullable": column.nullable}
        for column in table.columns
    ]


def to_json(value: Any) -> bytes:
    """Write JSON on one line, in UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _type_of(table: SyncedTable, column: str) -> str:
    return table.table.c[column].type.compile(dialect=_POSTGRES).lower()
