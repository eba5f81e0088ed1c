"""I7 for any write: who asks again under the same key gets the same answer, and nothing is done twice.

    given = await once(primary, "ada", Asked(key="k1", digest=b"…"), work, kept_s=86_400)

The answer is stored in the transaction of the write itself, so there is no moment at which one is there and the other
not. A request that came twice at once waits for its user's turn (`primary.write`), and finds the answer then. What
was refused is not stored: it had no effect, and may be asked again.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import sqlalchemy as sa

from primary.capture import SCHEMA
from primary.errors import InTheWay, PrimaryError
from primary.postgres import Primary
from primary.write import TURN_SHARE, Write, writing

SWEEP_MAX_ROWS = 1_000
"""Of one statement, so that sweeping holds nobody up."""


class KeyReused(PrimaryError):
    """The key was given with another request before."""

    hint = "A key stands for one request: make a new one for each, and keep it only for retries."


@dataclass(frozen=True, slots=True)
class Asked:
    """A request under a key. ``digest`` is the same for the same request, and for no other."""

    key: str
    digest: bytes


@dataclass(frozen=True, slots=True)
class Given:
    """An answer: HTTP's status and the body. ``again`` says that the write was done by an earlier request."""

    status: int
    body: bytes
    again: bool = False


_TABLE = f"{SCHEMA}.idempotency"

_FIND = sa.text(
    f"SELECT digest, status, body FROM {_TABLE} "
    "WHERE user_id = :user AND key = :key AND created_at > now() - :kept_s * interval '1 second'"
)

# In the place of one that has served its time, if that was not swept yet.
_STORE = sa.text(
    f"""
INSERT INTO {_TABLE} (user_id, key, digest, status, body) VALUES (:user, :key, :digest, :status, :body)
ON CONFLICT (user_id, key) DO UPDATE
SET digest = excluded.digest, status = excluded.status, body = excluded.body, created_at = excluded.created_at"""
)

_SWEEP = sa.text(
    f"""
DELETE FROM {_TABLE} WHERE (user_id, key) IN (
  SELECT user_id, key FROM {_TABLE} WHERE created_at <= now() - :kept_s * interval '1 second'
  ORDER BY created_at LIMIT {SWEEP_MAX_ROWS} FOR UPDATE SKIP LOCKED)"""
)


async def once(
    primary: Primary, user: str, asked: Asked | None, work: Callable[[Write], Awaitable[Given]], *, kept_s: float
) -> Given:
    """Do the work of a write in one transaction, or give the answer of an earlier request under the same key.

    Where another transaction is in the way, the work is done again from the beginning, as long as there is time for
    it. Where nothing was asked under a key, the work commits by itself (`Write.finish`). Answers are kept for
    ``kept_s``. Raises `KeyReused`, what the work raises, and as `writing` does.
    """
    last_begin = time.monotonic() + primary.answer_timeout_s * TURN_SHARE
    while True:
        try:
            return await _attempt(primary, user, asked, work, kept_s)
        except InTheWay:
            if time.monotonic() >= last_begin:
                raise


async def _attempt(
    primary: Primary, user: str, asked: Asked | None, work: Callable[[Write], Awaitable[Given]], kept_s: float
) -> Given:
    async with writing(primary, user, commits=asked is None) as write:
        if asked is None:
            return await work(write)
        found = (await write.execute(_FIND, {"user": user, "key": asked.key, "kept_s": kept_s})).one_or_none()
        if found is None:
            given = await work(write)
            stored = {"key": asked.key, "digest": asked.digest, "status": given.status, "body": given.body}
            await write.end((_STORE, {"user": user, **stored}))
            return given
        if bytes(found.digest) != asked.digest:
            raise KeyReused
        return Given(found.status, bytes(found.body), again=True)


async def sweep(primary: Primary, *, kept_s: float) -> int:
    """Forget the answers that were kept long enough; give how many. Raises as `Primary.transaction` does."""
    gone = 0
    while True:
        async with primary.transaction() as connection:
            swept = (await connection.execute(_SWEEP, {"kept_s": kept_s})).rowcount
        gone += swept
        if swept < SWEEP_MAX_ROWS:
            return gone
