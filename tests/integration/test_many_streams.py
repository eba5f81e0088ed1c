"""Hundreds of event streams on one node while many write: each tells of all its own user's rows, and no other's."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import psycopg

from primary.cursor import Cursor
from tests.support.http import execute
from tests.support.raw import RawConnection, connected, read_told
from tests.support.server import ServerProcess

STREAMS, WRITERS, WRITES_EACH = 500, 50, 10
USERS = [f"user-{number}" for number in range(100)]
OPENED_AT_ONCE = 25

_INSERT = "INSERT INTO image (user_id, prompt, image_url) VALUES (%s, %s, 'https://images.example/1.png')"


async def _write(url: str, number: int) -> None:
    """Write as psql does, each time for another user, whose name is in the row."""
    rng = random.Random(number)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for _ in range(WRITES_EACH):
            user = rng.choice(USERS)
            await connection.execute(_INSERT, [user, user])


class _Stream:
    """An event stream, read to the end of what its user has."""

    def __init__(self, user: str, connection: RawConnection, *, changes: bool) -> None:
        self.user = user
        self.changes = changes
        self.at = -1
        self.rows = 0
        self._connection = connection

    async def open(self) -> None:
        await self._connection.listen(f"/api/events?changes={'true' if self.changes else 'false'}")
        await self.read_until(0)

    async def read_until(self, version: int) -> None:
        """Read until the stream has told of that version."""
        while self.at < version:
            event = await self._connection.next()
            told = read_told(event.data)
            for change in told.changes:
                assert change["row"]["prompt"] == self.user, f"{self.user} was told of {change}"
                self.rows += 1
            if event.id is not None:
                assert event.name != "reset"
                now = Cursor.parse(told.version).version
                assert now > self.at, f"{self.user} was told of {now} after {self.at}"
                self.at = now


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[list[_Stream]]:
    """Open streams, of each user as many, every other one with the rows."""
    async with AsyncExitStack() as stack:
        streams = [
            _Stream(user, await stack.enter_async_context(connected(url, user)), changes=turn % 2 == 0)
            for turn in range(STREAMS // len(USERS))
            for user in USERS
        ]
        room = asyncio.Semaphore(OPENED_AT_ONCE)

        async def opening(stream: _Stream) -> None:
            async with room:
                await stream.open()

        async with asyncio.TaskGroup() as group:
            for stream in streams:
                group.create_task(opening(stream))
        yield streams


async def test_five_hundred_streams_end_at_their_users_heads_and_none_sees_anothers_rows(
    server_process: ServerProcess, database_url: str
) -> None:
    url = await server_process.start()
    async with _opened(url) as streams:
        async with asyncio.TaskGroup() as writing:
            for number in range(WRITERS):
                writing.create_task(_write(database_url, number))
        heads: dict[str, int] = dict(await execute(database_url, "SELECT user_id, version FROM tidepool.head"))
        written: Counter[str] = Counter(
            dict(await execute(database_url, "SELECT user_id, count(*) FROM image GROUP BY user_id"))
        )
        assert written.total() == WRITERS * WRITES_EACH
        async with asyncio.timeout(30), asyncio.TaskGroup() as reading:
            for stream in streams:
                reading.create_task(stream.read_until(heads.get(stream.user, 0)))
        for stream in streams:
            assert stream.at == heads.get(stream.user, 0)
            if stream.changes:  # every row, each once: no row was written twice
                assert stream.rows == written[stream.user]
