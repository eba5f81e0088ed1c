"""A write: one transaction of one user.

    async with writing(primary, "ada") as write:
        await write.execute(statement, {"…": …})
        cursor = await write.cursor()

The writes of one user go one after another: each takes the user's turn with its first statement, before that is run,
and has it until its transaction ends.
Capture would put them in a row anyway, at the first row that changes (the user's head is locked until the commit).
To wait before anything is read means that what a write has read stays so, and that two writes that touch the same
rows in another order never wait for each other. Who writes by SQL takes no turn, and is kept apart by row locks. These
can be wanted in a circle, so a write gives way soon where one is taken (`InTheWay`), and `once` begins it again.
Of one process only a few of a user's writes wait in Postgres, the others before they take a connection.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import sqlalchemy as sa

from primary.cursor import Cursor
from primary.patience import patience
from primary.postgres import EPOCH_SQL, Primary
from primary.transaction import Result, Transaction

ACTOR = "tidepool.actor"
"""Names who writes, for triggers that tell: `current_setting('tidepool.actor', true)`, empty where nobody said."""

TURN_SHARE = 0.6  # of the time that a transaction has, so that who waited in vain is told so, and to try again
_GIVE_WAY_MS = 700  # less than it takes Postgres to look for a deadlock (1 s): it would end the other as well as us
_HINT_ROWS_MAX = 100  # looked at for the tables that a write touched

# Keeps the version of the user's head from before a write, or an earlier one, for as long as its transaction.
_BEFORE = "tidepool.before"

# All of it ends with the transaction, so a transaction pooler may stand between. In this order: the turn is waited for.
_TURN = (
    f"SELECT set_config('lock_timeout', %(wait_ms)s, true), set_config('{ACTOR}', %(user)s, true), "
    "pg_advisory_xact_lock(hashtextextended('tidepool write ' || %(user)s, 0)), "
    f"set_config('lock_timeout', '{_GIVE_WAY_MS}', true), "
    f"set_config('{_BEFORE}', coalesce((SELECT version FROM tidepool.head WHERE user_id = %(user)s), 0)::text, true)"
)

_CURSOR = f"""
SELECT {EPOCH_SQL} AS epoch, coalesce((SELECT version FROM tidepool.head WHERE user_id = %(user)s), 0) AS version,
  ARRAY(SELECT DISTINCT t.table_name FROM (
    SELECT c.table_name FROM tidepool.change AS c
    WHERE c.user_id = %(user)s AND c.version > nullif(current_setting('{_BEFORE}', true), '')::bigint
    ORDER BY c.version DESC LIMIT {_HINT_ROWS_MAX}) AS t) AS tables"""


class Write:
    """A write under way: all of it is committed when the block of `writing` ends, and none when it raises."""

    __slots__ = ("_moved", "_primary", "_transaction", "user")

    def __init__(self, primary: Primary, transaction: Transaction, user: str) -> None:
        self.user = user
        self._primary = primary
        self._transaction = transaction
        self._moved: tuple[Cursor, list[str]] | None = None

    async def execute(self, statement: sa.Executable | str, values: Mapping[str, Any] | None = None) -> Result:
        """Run one statement (see `Transaction.execute`)."""
        return await self._transaction.execute(statement, values or {})

    async def cursor(self) -> Cursor:
        """Give the user's cursor as this write leaves it; to be asked for once, after all that changes anything."""
        epoch, version, tables = (await self.execute(_CURSOR, {"user": self.user})).one_or_none()
        self._moved = Cursor(epoch, version), tables
        return self._moved[0]

    async def commit(self) -> Cursor:
        """Commit now, and give the user's cursor as of then: a round trip less than by `cursor` and the end.

        Nothing may be executed any more. Where this raises, nothing was committed, unless it is `PrimaryUnavailable`.
        """
        epoch, version, tables = await self._transaction.commit_after(_CURSOR, {"user": self.user})
        cursor = Cursor(epoch, version)
        self._primary.moved(self.user, cursor, tables)
        return cursor

    async def end(self) -> None:
        """Commit, unless that was done."""
        await self._transaction.end()
        if self._moved is not None:
            self._primary.moved(self.user, *self._moved)


@asynccontextmanager
async def writing(primary: Primary, user: str) -> AsyncIterator[Write]:
    """Begin a write of ``user``, who is its actor; its first statement waits for the user's turn.

    Raises, there, as `Primary.transaction` does; `InTheWay` where the turn did not come in time, or a row was not let
    go soon. Nothing was written then.
    """
    wait_ms = round(primary.answer_timeout_s * TURN_SHARE * 1000)
    turn = (_TURN, {"wait_ms": str(wait_ms), "user": user})
    async with primary.place(user), primary.connection() as lent, patience(primary.answer_timeout_s):
        transaction = Transaction(lent, turn)
        write = Write(primary, transaction, user)
        try:
            yield write
            await write.end()
        except BaseException:
            await transaction.roll_back()
            raise
