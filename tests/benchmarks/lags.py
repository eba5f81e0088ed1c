"""A write, and how long until it is with those who listen.

Clock, writer and clients live in this process, beside the server and Postgres on the same cores: what is measured
includes what they take from each other.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import psycopg

from tests.benchmarks.data import insert_image, user_name
from tests.support.raw import RawConnection, connected, read_told

GAP_S = 0.03  # between two writes, as in the other server's runs; up to half as much more or less, lest it keep time
WATCHERS = 20
EVENTS = "/api/events"
CHANGES = "/api/events?changes=true"
_REST_S = 0.5  # after many rows, until the disk has what they left to it
_IMAGE = json.dumps({"prompt": "a heron at low water", "image_url": "https://images.example/heron.png"}).encode()
_BEFORE = 1_000  # rows of a user's, before many come
_MANY = {
    "image": """
INSERT INTO image (user_id, prompt, image_url, model, seed, steps)
SELECT %(user)s, 'burst row with a prompt of ordinary length, 8k', 'https://images.example/x.png', 'sdxl', n, 20
FROM generate_series(1, %(rows)s) AS n""",
    "images": """
INSERT INTO images (user_id, id, prompt, image_url, model, seed, steps, created_at)
SELECT %(user)s, gen_random_uuid(), 'burst row with a prompt of ordinary length, 8k', 'https://images.example/x.png',
  'sdxl', n, 20, now()
FROM generate_series(1, %(rows)s) AS n""",
}

Connection = psycopg.AsyncConnection[tuple[object, ...]]


class Lag:
    """One write: how long after its start and its acknowledgement, in ms, it was with all."""

    def __init__(self, began: float, acknowledged: float, at: float) -> None:
        self.after_start = (at - began) * 1e3
        self.after_ack = (at - acknowledged) * 1e3


async def one_row(url: str, connection: Connection, times: int, path: str = CHANGES) -> tuple[list[Lag], list[Lag]]:
    """Write a row, by psql and through the server, and wait until a client that listens is told of it."""
    user = user_name(0)
    async with listening(url, user, path) as stream, connected(url, user) as asking:

        async def insert() -> None:
            await insert_image(connection, user)

        async def save() -> None:
            status, _ = await asking.ask("POST", "/api/images", _IMAGE)
            assert status == 201, status

        await _lags(20, insert, [stream])
        await _lags(20, save, [stream])
        return await _lags(times, insert, [stream]), await _lags(times, save, [stream])


async def fan_out(url: str, connection: Connection, times: int) -> list[Lag]:
    """Write a row, and wait until it is with the last of `WATCHERS` clients of one user."""
    user = user_name(1)
    async with AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(listening(url, user)) for _ in range(WATCHERS)]

        async def insert() -> None:
            await insert_image(connection, user)

        await _lags(10, insert, streams)
        return await _lags(times, insert, streams)


async def many_rows(
    url: str, connection: Connection, rows: int, path: str, rounds: int, table: str = "image"
) -> list[Lag]:
    """Write many rows in one commit, and wait until a stream has told of them to the end; a new user in each round.

    Each has `_BEFORE` rows already. (What was deleted stays in a full-text index for a while, and is not to be timed.)
    """
    lags = []
    for number in range(rounds):
        user = f"many-{rows}-{path}-{number}"
        await insert_many(connection, user, _BEFORE, table)
        async with listening(url, user, path) as stream:
            lags += await _lags(1, partial(insert_many, connection, user, rows, table), [stream])
        await delete_all(connection, user, table)
        await asyncio.sleep(_REST_S)
    return lags


async def insert_many(connection: Connection, user: str, rows: int, table: str = "image") -> None:
    """Write many images of a user's in one commit, into one of the tables that have them."""
    await connection.execute(_MANY[table].encode(), {"user": user, "rows": rows})


async def delete_all(connection: Connection, user: str, table: str = "image") -> None:
    """Delete a user's images."""
    await connection.execute(f"DELETE FROM {table} WHERE user_id = %s".encode(), (user,))


@asynccontextmanager
async def listening(url: str, user: str, path: str = CHANGES) -> AsyncIterator[RawConnection]:
    """A stream that has told where the user stands."""
    async with connected(url, user) as stream:
        await stream.listen(path)
        read_told((await stream.next()).data)
        yield stream


async def received(stream: RawConnection) -> float:
    """Wait until a stream has told of an advance, to its end; say when that was."""
    while (event := await stream.next()).id is None:
        pass
    return event.at


def percentile(values: Sequence[float], percent: int) -> float:
    """Give the value that so many percent of them stay below."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


async def _lags(times: int, write: Callable[[], Awaitable[None]], streams: Sequence[RawConnection]) -> list[Lag]:
    now = time.perf_counter
    rest = partial(random.Random(times).uniform, 0.5 * GAP_S, 1.5 * GAP_S)
    lags = []
    for _ in range(times):
        receiving = [asyncio.create_task(received(stream)) for stream in streams]
        await asyncio.sleep(rest())
        began = now()
        await write()
        acknowledged = now()
        lags.append(Lag(began, acknowledged, max(await asyncio.gather(*receiving))))
    return lags
