"""Answers as they arrive on a connection: whole, and in the order in which they were asked for."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from tests.support.http import save
from tests.support.server import RunningServer, token


async def test_answers_on_one_connection_are_whole_and_in_order(server: RunningServer) -> None:
    """With a body, without one, refused, to HEAD, larger than a packet, and the last one before the end."""
    client = server.client("alice")
    for number in range(60):
        await save(client, prompt=f"{number} " + "x" * 1_000)
    page = await client.get("/api/images?limit=50")
    head = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\n"
    asked = [
        "GET /api/images?limit=50 HTTP/1.1\r\n",
        f"GET /api/images?limit=50 HTTP/1.1\r\nIf-None-Match: {page.headers['etag']}\r\n",
        "GET /api/images?limit=50 HTTP/1.1\r\n",
        "GET /api/images/no-id HTTP/1.1\r\n",
        "HEAD /api/images HTTP/1.1\r\n",
        "GET /nowhere HTTP/1.1\r\n",
        "GET /api/images?limit=50 HTTP/1.1\r\nConnection: close\r\n",
    ]
    parts = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write("".join(f"{each}{head}\r\n" for each in asked).encode())
    statuses = []
    bodies = []
    async with asyncio.timeout(10):
        for each in asked:
            told = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(told.partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
            statuses.append(int(told[9:12]))
            bodies.append(b"" if each.startswith("HEAD") else await reader.readexactly(length))
        assert await reader.read() == b""
    writer.close()
    assert statuses == [200, 304, 200, 422, 405, 404, 200]
    assert bodies[0] == bodies[2] == bodies[-1] == page.content
    assert bodies[1] == b""
    assert len(page.content) > 50_000
