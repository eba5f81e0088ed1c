"""The tail of a Postgres: who moved is found by asking for it, and never by being told.

A transaction is one's past when it is visible in a snapshot. Who moved between two looks are the heads whose writing
transaction is visible in the later look's snapshot and was not in the earlier's. That is exact: no order of commits, no
rollback, and no transaction that stays open for minutes makes it miss a move or tell it twice.
(NOTIFY in the trigger would tell sooner, but holds one lock for the whole cluster through each commit: it cost more
than half of the commits a second at 8 writers.)
"""

from __future__ import annotations

from primary.capture import SCHEMA
from primary.cursor import Cursor
from primary.line import Texts
from primary.postgres import EPOCH_SQL, Primary
from primary.tail import Moves

# The first two conditions are what the index on xid serves; all of it is one statement, so one snapshot. (A head that
# came in a dump has a transaction id of another server's, which may be in the future here: it has not moved.) A server
# whose transaction ids went back is an older copy of itself: nobody knows what became of what was seen.
_MOVED = f"""
WITH now AS MATERIALIZED (SELECT pg_current_snapshot() AS snapshot, {EPOCH_SQL} AS epoch)
SELECT now.snapshot::text, now.epoch,
  pg_snapshot_xmax(now.snapshot) < pg_snapshot_xmax($1::pg_snapshot) AS went_back, h.user_id, h.version
FROM now LEFT JOIN {SCHEMA}.head AS h
  ON h.xid >= pg_snapshot_xmin($1::pg_snapshot)
  AND h.xid < pg_snapshot_xmax(now.snapshot)
  AND NOT pg_visible_in_snapshot(h.xid, $1::pg_snapshot)"""

_START = f"SELECT pg_current_snapshot()::text, {EPOCH_SQL}"


class PostgresTail:
    """Implements `primary.tail.Tail` on a `Primary`: one round trip a look, on a connection of its own.

    ``answer_timeout_s`` bounds a look: a connection that went dumb is given up then.
    """

    def __init__(self, primary: Primary, *, answer_timeout_s: float = 5) -> None:
        self._line = primary.line()
        self._answer_timeout_s = answer_timeout_s
        self._snapshot: str | None = None
        self._epoch: str | None = None

    async def poll(self) -> Moves:
        """See `Tail.poll`."""
        if self._snapshot is None:
            ((self._snapshot, self._epoch),) = await self._ask(_START)
            return Moves({}, reset=True)
        rows = await self._ask(_MOVED, self._snapshot)
        snapshot, epoch, went_back = rows[0][:3]
        assert epoch is not None
        reset = went_back == "t" or epoch != self._epoch
        self._snapshot, self._epoch = snapshot, epoch
        moved = {user: Cursor(epoch, int(version)) for *_, user, version in rows if user is not None and version}
        return Moves(moved, reset)

    def forget(self) -> None:
        """See `Tail.forget`."""
        self._snapshot = None

    async def _ask(self, question: str, *values: str) -> list[Texts]:
        return await self._line.ask(question, *values, within_s=self._answer_timeout_s)
