"""What changed in a replica since a cursor: the file serves a feed of its own, as JSON.

    changes = since(connection, catalog, position, limit=500)

Changes come in the order of their versions, so a replica that moves on between two reads takes nothing away: a row that
changes again has a higher version, and comes again. Who has read to the end, and applied each row over the ones before,
has exactly the rows of the replica at the cursor that the last read saw.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import apsw
import msgspec

from primary.cursor import Cursor
from primary.declaration import Catalog, SyncedTable
from replica.apply import match_sql
from replica.rendering import json_members, quoted
from replica.state import State

BYTES_MAX = 1 << 20  # of the changes of one read: what is past it waits for the next one

_read_key = msgspec.json.Decoder(list[str]).decode


@dataclass(frozen=True, slots=True)
class Position:
    """A place among the changes: after every one up to ``cursor``, and after that row of the next ones.

    ``table`` and ``key`` are those of the row that was read last; a place between two versions has none.
    """

    cursor: Cursor
    table: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Changes:
    """Some changes as JSON objects, and the place after them.

    Each is ``{"table", "key", "row"}``, or ``{"table", "key", "deleted": true}``; the key is a list of texts. ``whole``
    says that there are no more: then ``next.cursor`` is the replica's, and no version was cut in two.
    """

    changes: list[bytes]
    next: Position
    whole: bool


_CHANGED = """
SELECT table_name, row_key, version FROM _change
WHERE (version, table_name, row_key) > (?, ?, ?) ORDER BY version, table_name, row_key LIMIT ?"""


def since(connection: apsw.Connection, catalog: Catalog, position: Position, limit: int) -> Changes | None:
    """Give at most ``limit`` changes after a position; None where the replica cannot tell (any more) what they were.

    It cannot for a cursor of another epoch, ahead of the replica, or older than the replica's file.
    """
    state = State.read(connection)
    cursor = position.cursor
    # Half way through a version its other rows are still wanted; a file that was built at it has no marks of them.
    whole = cursor.version - 1 if position.table else cursor.version
    if cursor.epoch != state.cursor.epoch or whole < state.base_version or cursor.version > state.cursor.version:
        return None
    # Without a row, the place is after all rows of that version: no table's name is as high as this.
    after = (cursor.version, position.table or "\U0010ffff", position.key)
    changes: list[bytes] = []
    bytes_left = BYTES_MAX
    last = after
    for table, key, version in connection.execute(_CHANGED, (*after, limit + 1)):
        if len(changes) == limit or bytes_left < 0:
            return Changes(changes, Position(Cursor(cursor.epoch, last[0]), *last[1:]), whole=False)
        changes.append(_change(connection, catalog[table], key))
        bytes_left -= len(changes[-1])
        last = version, table, key
    return Changes(changes, Position(state.cursor), whole=True)


def _change(connection: apsw.Connection, table: SyncedTable, key: str) -> bytes:
    texts = zip(table.key, _read_key(key), strict=True)
    stored = [table.column(name).mapping.stored_key(text) for name, text in texts]
    row = connection.execute(_row_sql(table), stored).fetchone()
    what = f'"row":{row[0]}' if row is not None else '"deleted":true'
    return f'{{"table":"{table.name}","key":{key},{what}}}'.encode()


@lru_cache(maxsize=256)  # to write it takes longer than to run it
def _row_sql(table: SyncedTable) -> str:
    return f"SELECT '{{' || {json_members(table)} || '}}' FROM {quoted(table.name)} WHERE {match_sql(table)}"
