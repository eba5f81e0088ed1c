"""The tail: which users moved, found by asking for it and never by being told.

A transaction is one's past when it is visible in a snapshot. Who moved between two looks are the heads whose writing
transaction is visible in the later look's snapshot and was not in the earlier's. That is exact: no order of commits, no
rollback, and no transaction that stays open for minutes makes it miss a move or tell it twice.
(NOTIFY in the trigger would tell sooner, but holds one lock for the whole cluster through each commit: it cost more
than half of the commits a second at 8 writers.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from primary.capture import SCHEMA
from primary.cursor import Cursor
from primary.postgres import EPOCH_SQL, Primary

# The first two conditions are what the index on xid serves; all of it is one statement, so one snapshot. (A head that
# came in a dump has a transaction id of another server's, which may be in the future here: it has not moved.)
_MOVED = f"""
WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot, {EPOCH_SQL} AS epoch)
SELECT now.snapshot::text, now.epoch, h.user_id, h.version
FROM now LEFT JOIN {SCHEMA}.head AS h
  ON h.xid >= pg_snapshot_xmin(%(previous)s::pg_snapshot)
  AND h.xid < pg_snapshot_xmax(now.snapshot)
  AND NOT pg_visible_in_snapshot(h.xid, %(previous)s::pg_snapshot)"""

_START = f"SELECT pg_current_snapshot()::text, {EPOCH_SQL}"


@dataclass(frozen=True, slots=True)
class Moves:
    """What one look found.

    ``users`` gives each user that moved since the last look, with its cursor as of this one. ``reset`` says that
    nothing is known of what happened before: it was the first look, or the primary is another one than it was.
    """

    users: dict[str, Cursor]
    reset: bool = False


class Tail:
    """Follows the heads of one primary. Not to be shared by tasks; each has its own."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary
        self._snapshot: str | None = None
        self._epoch: str | None = None

    async def poll(self) -> Moves:
        """Look once. Raises `PrimaryUnavailable`; the next look then also covers what this one would have found."""
        async with self._primary.connection() as connection:
            if self._snapshot is None:
                found = await connection.execute(_START)
                self._snapshot, self._epoch = cast("tuple[str, str]", await found.fetchone())
                return Moves({}, reset=True)
            found = await connection.execute(_MOVED, {"previous": self._snapshot})
            rows: list[tuple[Any, ...]] = await found.fetchall()
        snapshot, epoch = rows[0][0], rows[0][1]
        reset = epoch != self._epoch
        self._snapshot, self._epoch = snapshot, epoch
        return Moves({user: Cursor(epoch, version) for *_, user, version in rows if user is not None}, reset)
