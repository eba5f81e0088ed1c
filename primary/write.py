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
from sqlalchemy.engine import CursorResult
from sqlalchemy.ext.asyncio import AsyncConnection

from primary.cursor import Cursor
from primary.postgres import BEFORE, Primary

ACTOR = "tidepool.actor"
"""Names who writes, for triggers that tell: `current_setting('tidepool.actor', true)`, empty where nobody said."""

TURN_SHARE = 0.6  # of the time that a transaction has, so that who waited in vain is told so, and to try again
_GIVE_WAY_MS = 700  # less than it takes Postgres to look for a deadlock (1 s): it would end the other as well as us

# All of it ends with the transaction, so a transaction pooler may stand between. In this order: the turn is waited for.
_TURN = (
    f"SELECT set_config('lock_timeout', %(wait_ms)s, true), set_config('{ACTOR}', %(user)s, true), "
    "pg_advisory_xact_lock(hashtextextended('tidepool write ' || %(user)s, 0)), "
    f"set_config('lock_timeout', '{_GIVE_WAY_MS}', true), "
    f"set_config('{BEFORE}', coalesce((SELECT version FROM tidepool.head WHERE user_id = %(user)s), 0)::text, true)"
)


class Write:
    """A write under way: all of it is committed when the block of `writing` ends, and none when it raises."""

    __slots__ = ("_connection", "_primary", "user")

    def __init__(self, primary: Primary, connection: AsyncConnection, user: str) -> None:
        self.user = user
        self._primary = primary
        self._connection = connection

    async def execute(self, statement: sa.Executable, values: Mapping[str, Any] | None = None) -> CursorResult[Any]:
        """Run one statement."""
        return await self._connection.execute(statement, values)

    async def execute_driver_sql(self, sql: str, values: Mapping[str, Any]) -> CursorResult[Any]:
        """Run one statement that is written as psycopg takes it, with ``%(name)s`` for a value."""
        return await self._connection.exec_driver_sql(sql, {**values})

    async def cursor(self) -> Cursor:
        """Give the user's cursor as this write leaves it; to be asked for once, after all that changes anything."""
        return await self._primary.cursor(self._connection, self.user)

    async def commit(self) -> Cursor:
        """Commit now, and give the user's cursor as of then: a round trip less than by `cursor` and the end."""
        return await self._primary.commit(self._connection, self.user)


@asynccontextmanager
async def writing(primary: Primary, user: str) -> AsyncIterator[Write]:
    """Begin a write of ``user``, who is its actor; its first statement waits for the user's turn.

    Raises, there, as `Primary.transaction` does; `InTheWay` where the turn did not come in time, or a row was not let
    go soon. Nothing was written then.
    """
    wait_ms = round(primary.answer_timeout_s * TURN_SHARE * 1000)
    turn = (_TURN, {"wait_ms": str(wait_ms), "user": user})
    async with primary.place(user), primary.transaction(turn) as connection:
        yield Write(primary, connection, user)
