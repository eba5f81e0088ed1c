"""A write: one transaction of one user.

    async with writing(primary, "ada") as write:
        found = await write.execute(statement, {"…": …})
        changed, now = await write.finish((statement, {"…": …}), (statement, {"…": …}))
        cursor = await write.cursor()

Each line is one round trip, and asking for the cursor is none after `Write.finish`, which may commit on its way: so a
write whose statements are its last from the first on is done in one.

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
from primary.lent import Lent
from primary.patience import patience
from primary.postgres import EPOCH_SQL, Primary
from primary.touched import Statements
from primary.transaction import Behind, BoundStatement, Result, Transaction

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
    """A write under way: all of it is committed when the block of `writing` ends, and none when it raises.

    Unless it ``commits`` by itself: then `finish` does, and a block that raises after it undoes nothing.
    """

    __slots__ = ("_commits", "_last", "_lent", "_moved", "_primary", "_transaction", "user")

    def __init__(self, primary: Primary, lent: Lent, transaction: Transaction, user: str, *, commits: bool) -> None:
        self.user = user
        self._primary = primary
        self._lent = lent
        self._last: Statements = ()  # the statements that it was finished with
        self._transaction = transaction
        self._commits = commits
        self._moved: tuple[Cursor, list[str]] | None = None

    async def execute(self, statement: sa.Executable | str, values: Mapping[str, Any] | None = None) -> Result:
        """Run one statement (see `Transaction.execute`)."""
        self._moved = None
        (result,) = await self._transaction.execute((statement, values or {}))
        return result

    async def finish(self, *statements: BoundStatement) -> list[Result]:
        """Run, in one round trip, what is the last to change anything; commit it, if this write commits by itself.

        So where it turns out that the write is to be refused, they must have changed nothing. What is executed after
        them is in a transaction of its own then. Where this raises, nothing was committed, unless it is
        `PrimaryUnavailable`.
        """
        self._moved = None
        self._last = tuple(statement for statement, _ in statements)
        asked = (*statements, (_CURSOR, {"user": self.user}))
        *results, moved = await self._transaction.execute(
            *asked, commit=self._commits, behind=self._looking() if self._commits else None
        )
        epoch, version, tables = moved.one_or_none()
        self._moved = Cursor(epoch, version), tables
        if self._commits:
            self._tell()
        return results

    async def cursor(self) -> Cursor:
        """Give the user's cursor as this write leaves it; `finish` it first, if that was not done."""
        if self._moved is None:
            await self.finish()
        assert self._moved is not None
        return self._moved[0]

    async def end(self, *statements: BoundStatement) -> None:
        """Run what does not move the user's cursor, and commit, in one round trip, unless that was done."""
        if self._transaction.is_open:
            await self._transaction.execute(*statements, commit=True, behind=self._looking())
            self._tell()

    def _looking(self) -> Behind | None:
        """Give what is to be asked behind the commit; of what took many steps, and may be much, nothing."""
        return self._primary.behind(self._lent, self.user, self._last) if self._last else None

    def _tell(self) -> None:
        if self._moved is not None:
            self._primary.moved(self.user, *self._moved, self._last)


@asynccontextmanager
async def writing(primary: Primary, user: str, *, commits: bool = False) -> AsyncIterator[Write]:
    """Begin a write of ``user``, who is its actor; its first statement waits for the user's turn.

    One that ``commits`` does so in `Write.finish`. Raises, there, as `Primary.transaction` does; `InTheWay` where the
    turn did not come in time, or a row was not let go soon. Nothing was written then.
    """
    wait_ms = round(primary.answer_timeout_s * TURN_SHARE * 1000)
    turn = (_TURN, {"wait_ms": str(wait_ms), "user": user})
    async with primary.place(user), primary.connection() as lent, patience(primary.answer_timeout_s):
        transaction = Transaction(lent, turn)
        write = Write(primary, lent, transaction, user, commits=commits)
        try:
            yield write
            await write.end()
        except BaseException:
            await transaction.roll_back()
            raise
