"""What tests of HTTP share: a minimal image, what a problem looks like, and what there is in Postgres."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg

from tests.support.server import RunningServer, token

IMAGE: dict[str, Any] = {"prompt": "a tide pool", "image_url": "https://images.example/1.png"}

JSON = {"Content-Type": "application/json"}

# What must never reach a client: where our files lie, our SQL, our classes.
_SECRETS = re.compile(
    r"Traceback|/tmp/|site-packages|\.py\b|\bSELECT\b|\bINSERT\b|psycopg|sqlalchemy|sqlite3\b|sqlite_|msgspec"
)

_TABLES = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('public', 'tidepool')"
_DIGEST = "SELECT '{0}', count(*), coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {0} AS t"

Contents = dict[str, tuple[int, str]]
"""By table: how many rows there are, and a digest of them all."""


def assert_problem(answer: httpx.Response, status: int, code: str, *fields: str) -> None:
    """Check that the answer is a whole problem of that code, at exactly those fields, and tells nothing of us."""
    asked = f"{answer.request.method} {answer.request.url}"
    assert answer.status_code == status, f"{asked}: {answer.text}"
    problem = assert_is_problem(answer)
    assert problem["code"] == code, f"{asked}: {problem}"
    assert [error["field"] for error in problem.get("errors", ())] == list(fields), f"{asked}: {problem}"


def assert_is_problem(answer: httpx.Response) -> dict[str, Any]:
    """Check that the answer is a whole problem, whichever, and give it."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == answer.status_code
    assert problem["type"] == f"urn:tidepool:problem:{problem['code']}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == f"urn:tidepool:request:{answer.headers['x-request-id']}"
    assert not (found := _SECRETS.search(answer.text)), found
    return problem


async def contents(database_url: str) -> Contents:
    """Tell what Postgres holds, the marks of capture included: equal before and after means nothing was written."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        listed = await connection.execute(_TABLES)
        tables = [name for (name,) in await listed.fetchall()]
        assert tables
        found = await connection.execute(" UNION ALL ".join(map(_DIGEST.format, tables)).encode())
        return {name: (count, digest) for name, count, digest in await found.fetchall()}


async def execute(database_url: str, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Do as psql does: run one statement in a transaction of its own, and give its rows, if it has any."""
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        cursor = await connection.execute(sql.encode(), values or None)
        return await cursor.fetchall() if cursor.description else []


async def save(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """Save an image, and give what was answered."""
    answer = await client.post("/api/images", json=IMAGE | fields)
    assert answer.status_code == 201, answer.text
    saved: dict[str, Any] = answer.json()
    return saved


async def prompts(client: httpx.AsyncClient, **headers: str) -> list[str]:
    """Give the prompts of the first page."""
    answer = await client.get("/api/images", params={"limit": 500}, headers=headers)
    assert answer.status_code == 200, answer.text
    return [image["prompt"] for image in answer.json()["images"]]


async def metric(client: httpx.AsyncClient, name: str) -> float:
    """Give what the server counts under a name that has no labels."""
    lines = (await client.get("/metrics")).text.splitlines()
    (found,) = [line for line in lines if line.startswith(f"{name} ")]
    return float(found.rpartition(" ")[2])


async def until_metric(client: httpx.AsyncClient, name: str, value: float, within_s: float = 5) -> None:
    """Wait until the server counts so many."""
    async with asyncio.timeout(within_s):
        while await metric(client, name) != value:
            await asyncio.sleep(0.01)


async def until_followed(client: httpx.AsyncClient) -> None:
    """Wait until a read of the client's user, twice in a row, has asked the primary for nothing."""
    calm = 0
    async with asyncio.timeout(10):
        while calm < 2:
            before = await metric(client, "tidepool_syncs_total")
            assert (await client.get("/api/images?limit=1")).status_code == 200
            calm = calm + 1 if await metric(client, "tidepool_syncs_total") == before else 0
            await asyncio.sleep(0.01)


async def until_prompts(client: httpx.AsyncClient, expected: list[str], within_s: float = 5) -> None:
    """Wait until the first page has these prompts, in whatever order."""
    async with asyncio.timeout(within_s):
        while sorted(await prompts(client)) != sorted(expected):
            await asyncio.sleep(0.005)


@asynccontextmanager
async def deaf(server: RunningServer, user: str, path: str) -> AsyncIterator[socket.socket]:
    """Ask for something on a bare connection, and read nothing of it."""
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.setblocking(False)
    with connection:
        loop = asyncio.get_running_loop()
        await loop.sock_connect(connection, (host, int(port)))
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token(user)}\r\n\r\n"
        await loop.sock_sendall(connection, head.encode())
        yield connection
