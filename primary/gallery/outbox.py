"""What waits to be told upstream: taken by whoever delivers it, and what became of it.

Any number of processes may take from one outbox. What is taken is leased: nobody else takes it before the lease is
over, and by then whoever died with it is done with. Of an image only the first row is ever taken, so an image's
changes arrive in order, again and again if need be, and never side by side.

A failure is either the server's (it cannot be reached, it refuses the key) or the row's (it does not know the image).
The server's is counted once for its user, however much waits, and then it is tried with one row at a time; the row's
holds up that image alone. After so many failures the user, or the row, is *parked* until it is re-armed.

Every statement that writes is a transaction of its own and waits for no lock while it holds another that a user's own
write could want: delivering never makes a user's request fail.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg

from primary.driver_errors import translate
from primary.line import Connection
from primary.patience import patience
from primary.postgres import Primary


@dataclass(frozen=True, slots=True)
class Taken:
    """One row that this process is to deliver now.

    ``amount`` is the rating (None: no rating), or how many O are left to add (below zero: to take).
    ``attempts`` counts the failures of this row, ``server_attempts`` those of its user's server, in a row; the last of
    each is ``error``, ``server_error``.
    """

    user: str
    id: int
    image_id: UUID
    stash_id: str
    kind: str
    amount: int | None
    attempts: int
    error: str | None
    server_attempts: int
    server_error: str | None
    lease: UUID
    endpoint: str
    sealed_key: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Standing:
    """How the mirror of a user goes."""

    user: str
    enabled: bool
    endpoint: str
    pending: int
    parked: int
    last_error: str | None
    last_error_at: datetime | None


# An index holds the users for whom something waits; they are found by stepping from one to the next, so that looking
# costs as much as there are, and one step where there is none. In no order, so that nobody is always the last.
_USERS = """
WITH RECURSIVE waiting (user_id) AS (
  (SELECT o.user_id FROM upstream_outbox AS o WHERE NOT o.parked ORDER BY o.user_id LIMIT 1)
  UNION ALL
  SELECT (SELECT o.user_id FROM upstream_outbox AS o WHERE NOT o.parked AND o.user_id > w.user_id
          ORDER BY o.user_id LIMIT 1)
  FROM waiting AS w WHERE w.user_id IS NOT NULL
)
SELECT k.user_id FROM waiting AS w JOIN upstream_key AS k ON k.user_id = w.user_id
JOIN profile AS p ON p.user_id = k.user_id AND p.sync_upstream
WHERE NOT k.parked AND k.due_at <= now()
  AND EXISTS (SELECT FROM upstream_outbox AS o WHERE o.user_id = k.user_id AND NOT o.parked AND o.due_at <= now())
ORDER BY random() LIMIT %(most)s FOR NO KEY UPDATE OF k SKIP LOCKED"""

# A second statement, whose snapshot is of after the users were locked: it sees what others have taken before.
# A rating that a later one replaces is passed over, and goes as soon as one behind it is taken.
_ROWS = """
WITH chosen AS MATERIALIZED (
  SELECT o.user_id, o.image_id, o.id, k.attempts AS server_attempts, k.error AS server_error, k.sealed_key,
    u.endpoint
  FROM upstream_key AS k JOIN upstream AS u ON u.user_id = k.user_id
  CROSS JOIN LATERAL (
    SELECT o.user_id, o.image_id, o.id FROM upstream_outbox AS o
    WHERE o.user_id = k.user_id AND NOT o.parked AND o.due_at <= now()
      AND NOT (o.kind = 'rating' AND EXISTS (
        SELECT FROM upstream_outbox AS l
        WHERE l.user_id = o.user_id AND l.image_id = o.image_id AND l.id > o.id AND l.kind = 'rating'))
      AND NOT EXISTS (
        SELECT FROM upstream_outbox AS e WHERE e.user_id = o.user_id AND e.image_id = o.image_id AND e.id < o.id
          AND NOT (e.kind = 'rating' AND (e.lease IS NULL OR e.due_at <= now()) AND EXISTS (
            SELECT FROM upstream_outbox AS l
            WHERE l.user_id = e.user_id AND l.image_id = e.image_id AND l.id > e.id AND l.kind = 'rating')))
    ORDER BY o.due_at, o.id
    LIMIT greatest(0, CASE WHEN k.attempts = 0 THEN %(user_most)s ELSE 1 END - (
      SELECT count(*) FROM upstream_outbox AS b
      WHERE b.user_id = k.user_id AND NOT b.parked AND b.lease IS NOT NULL AND b.due_at > now()))
    FOR UPDATE OF o SKIP LOCKED
  ) AS o
  WHERE k.user_id = ANY(%(users)s)
  LIMIT %(most)s
), replaced AS (
  DELETE FROM upstream_outbox AS o USING chosen AS c
  WHERE o.user_id = c.user_id AND o.image_id = c.image_id AND o.id < c.id
)
UPDATE upstream_outbox AS o SET lease = %(lease)s, due_at = now() + make_interval(secs => %(lease_s)s)
FROM chosen AS c WHERE o.user_id = c.user_id AND o.id = c.id
RETURNING o.user_id, o.id, o.image_id, o.stash_id, o.kind, o.amount, o.attempts, o.error,
  c.server_attempts, c.server_error, o.lease, c.endpoint, c.sealed_key"""

_MINE = "user_id = %(user)s AND id = %(id)s AND lease = %(lease)s"

_ADVANCE = f"""
UPDATE upstream_outbox SET amount = amount - sign(amount)::integer, attempts = 0, error = NULL, failed_at = NULL,
  lease = NULL, due_at = now()
WHERE {_MINE}"""

_DONE = f"DELETE FROM upstream_outbox WHERE {_MINE}"

_SERVER_WELL = """
UPDATE upstream_key SET attempts = 0, parked = false, error = NULL, failed_at = NULL, due_at = now()
WHERE user_id = %(user)s AND attempts > 0 AND sealed_key = %(sealed_key)s"""

_GIVE_BACK = f"UPDATE upstream_outbox SET lease = NULL, due_at = now() WHERE {_MINE}"

# Once for all that were under way together: whoever comes second finds another number of attempts.
_SERVER_FAILED = """
UPDATE upstream_key SET attempts = attempts + 1, error = %(error)s, failed_at = now(), parked = %(parked)s,
  due_at = now() + make_interval(secs => %(wait_s)s)
WHERE user_id = %(user)s AND attempts = %(server_attempts)s AND sealed_key = %(sealed_key)s"""

_ROW_FAILED = f"""
UPDATE upstream_outbox SET attempts = attempts + 1, error = %(error)s, failed_at = now(), parked = %(parked)s,
  lease = NULL, due_at = now() + make_interval(secs => %(wait_s)s)
WHERE {_MINE}"""

_ANY = "SELECT FROM upstream_outbox WHERE NOT parked LIMIT 1"
_LOOK_TIMEOUT_S = 5


class Look:
    """Asks whether anything waits, in one round trip. To be closed with `close`.

    It has a connection of its own, as the probe has: one that hangs over a dead link takes no place of the pool, and
    can be broken off at once when the server stops.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: Connection | None = None

    async def anything(self) -> bool:
        """Tell whether there is a row that is not parked. Raises `PrimaryUnavailable`."""
        try:
            if self._connection is None:
                async with patience(_LOOK_TIMEOUT_S, asks=False):
                    self._connection = await psycopg.AsyncConnection.connect(
                        self._url, autocommit=True, prepare_threshold=None, connect_timeout=_LOOK_TIMEOUT_S
                    )
            async with patience(_LOOK_TIMEOUT_S):
                return await (await self._connection.execute(_ANY)).fetchone() is not None
        except BaseException as error:
            await self.close()
            if (translated := translate(error)) is not None:
                raise translated from error
            raise

    async def close(self) -> None:
        """Close the connection; the next look makes another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()


async def take(primary: Primary, *, most: int, user_most: int, lease_s: float) -> list[Taken]:
    """Take up to ``most`` rows that are due, of one user no more than ``user_most`` that are under way together.

    They are this process's for ``lease_s`` seconds. Raises `PrimaryUnavailable`.
    """
    async with _asking(primary) as connection, connection.transaction():
        users = [user for (user,) in await (await connection.execute(_USERS, {"most": most})).fetchall()]
        if not users:
            return []
        asked = {"users": users, "most": most, "user_most": user_most, "lease": uuid4(), "lease_s": lease_s}
        found = await (await connection.execute(_ROWS, asked)).fetchall()
    return [Taken(*row) for row in found]


async def delivered(primary: Primary, taken: Taken) -> None:
    """Note that one call arrived: the rating, or one O of what there is to add or take."""
    if taken.server_attempts:
        await _run(primary, _SERVER_WELL, taken)
    more = taken.kind == "o" and abs(taken.amount or 0) > 1
    await _run(primary, _ADVANCE if more else _DONE, taken)


async def server_failed(primary: Primary, taken: Taken, *, error: str, wait_s: float, parked: bool) -> None:
    """Note that the user's server failed: nothing is tried for ``wait_s`` seconds, or if ``parked`` until re-armed."""
    await _run(primary, _SERVER_FAILED, taken, error=error, wait_s=wait_s, parked=parked)
    await _run(primary, _GIVE_BACK, taken)


async def row_failed(primary: Primary, taken: Taken, *, error: str, wait_s: float, parked: bool) -> None:
    """Note that the server would not take this row: its image waits ``wait_s`` seconds, or until re-armed."""
    if taken.server_attempts:
        await _run(primary, _SERVER_WELL, taken)
    await _run(primary, _ROW_FAILED, taken, error=error, wait_s=wait_s, parked=parked)


@asynccontextmanager
async def _asking(primary: Primary) -> AsyncIterator[Connection]:
    """Lend a connection for statements that answer soon, or not at all. Raises `PrimaryUnavailable`."""
    async with primary.connection() as connection, patience(primary.answer_timeout_s):
        yield connection


async def _run(primary: Primary, sql: str, taken: Taken, **values: Any) -> None:
    asked = {
        "user": taken.user,
        "id": taken.id,
        "lease": taken.lease,
        "server_attempts": taken.server_attempts,
        "sealed_key": taken.sealed_key,
    }
    async with _asking(primary) as connection:
        await connection.execute(sql, asked | values)


# ── What the user sees of it ────────────────────────────────────────────────────────────────────────────────────

_COUNTED = """
SELECT k.user_id,
  count(*) FILTER (WHERE o.id IS NOT NULL AND NOT (o.parked OR k.parked))::integer AS pending,
  count(*) FILTER (WHERE o.parked OR (o.id IS NOT NULL AND k.parked))::integer AS parked,
  coalesce(k.error, (array_agg(o.error ORDER BY o.failed_at DESC) FILTER (WHERE o.error IS NOT NULL))[1]) AS error,
  coalesce(k.failed_at, max(o.failed_at)) AS failed_at
FROM upstream_key AS k LEFT JOIN upstream_outbox AS o ON o.user_id = k.user_id"""

_DIFFERS = """(u.pending, u.parked, u.last_error, u.last_error_at)
  IS DISTINCT FROM (c.pending, c.parked, c.error, c.failed_at)"""

SHOW = f"""
UPDATE upstream AS u SET pending = c.pending, parked = c.parked, last_error = c.error, last_error_at = c.failed_at
FROM ({_COUNTED} WHERE k.user_id = %(user)s GROUP BY k.user_id) AS c
WHERE u.user_id = c.user_id AND {_DIFFERS}"""

_OUTDATED = f"""
SELECT u.user_id FROM upstream AS u JOIN ({_COUNTED} GROUP BY k.user_id) AS c ON c.user_id = u.user_id
WHERE {_DIFFERS}"""

_STANDINGS = f"""
SELECT u.user_id, coalesce(p.sync_upstream, false), u.endpoint, c.pending, c.parked, c.error, c.failed_at
FROM upstream AS u JOIN ({_COUNTED} GROUP BY k.user_id) AS c ON c.user_id = u.user_id
LEFT JOIN profile AS p ON p.user_id = u.user_id
WHERE %(user)s::text IS NULL OR u.user_id = %(user)s ORDER BY u.user_id"""

_LOCK_WAIT = "SET LOCAL lock_timeout = '200ms'"  # less than it takes Postgres to look for a deadlock: we give way
_SHOWN_BY_US = "SELECT FROM upstream WHERE user_id = %(user)s FOR NO KEY UPDATE SKIP LOCKED"
_IS_SHOWN = "SELECT FROM upstream WHERE user_id = %(user)s"


async def show(primary: Primary, user: str) -> bool:
    """Bring what the user sees up to date: one row of the synced table, and none if it is as it was.

    Gives False where somebody else is at it, or at the user's rows: try again later. Who has forgotten the settings
    meanwhile is shown nothing. Raises `PrimaryUnavailable`.
    """
    async with _asking(primary) as connection, connection.transaction():
        await connection.execute(_LOCK_WAIT)
        if await (await connection.execute(_SHOWN_BY_US, {"user": user})).fetchone() is None:
            return await (await connection.execute(_IS_SHOWN, {"user": user})).fetchone() is None
        # After the lock, with a snapshot of its own: what is counted is never older than what is shown.
        await connection.execute(SHOW, {"user": user})
    return True


async def outdated(primary: Primary) -> list[str]:
    """Name the users who are shown something else than what is."""
    async with _asking(primary) as connection:
        return [user for (user,) in await (await connection.execute(_OUTDATED)).fetchall()]


async def standings(primary: Primary, user: str | None = None) -> list[Standing]:
    """Tell how the mirror goes for each user who has one, or for one."""
    async with _asking(primary) as connection:
        return [Standing(*row) for row in await (await connection.execute(_STANDINGS, {"user": user})).fetchall()]


# ── Trying again ────────────────────────────────────────────────────────────────────────────────────────────────

_TO_REARM = """
SELECT count(*) FROM upstream_outbox AS o JOIN upstream_key AS k ON k.user_id = o.user_id
WHERE (%(user)s::text IS NULL OR o.user_id = %(user)s) AND (o.attempts > 0 OR o.parked OR k.attempts > 0 OR k.parked)"""

_REARM_SERVER = """
UPDATE upstream_key SET attempts = 0, parked = false, error = NULL, failed_at = NULL, due_at = now()
WHERE (%(user)s::text IS NULL OR user_id = %(user)s) AND (attempts > 0 OR parked)"""

# What is under way stays whose it is. An id that was mended in the image's meta since is taken over.
REARM_ROWS = """
UPDATE upstream_outbox AS o SET attempts = 0, parked = false, error = NULL, failed_at = NULL, due_at = now(),
  stash_id = coalesce((
    SELECT i.meta ->> 'stash_id' FROM image AS i WHERE i.user_id = o.user_id AND i.id = o.image_id
      AND jsonb_typeof(i.meta -> 'stash_id') IN ('string', 'number')), o.stash_id)
WHERE (%(user)s::text IS NULL OR o.user_id = %(user)s) AND (o.attempts > 0 OR o.parked)
  AND (o.lease IS NULL OR o.due_at <= now())"""


async def rearm(primary: Primary, user: str | None = None) -> int:
    """Try again at once what failed or was parked, for one user or for all; give how many rows that was.

    What users see follows within a second of the next attempt.
    """
    asked = {"user": user}
    async with _asking(primary) as connection:
        row = await (await connection.execute(_TO_REARM, asked)).fetchone()
        await connection.execute(_REARM_SERVER, asked)
        await connection.execute(REARM_ROWS, asked)
    assert row is not None
    return int(row[0])
