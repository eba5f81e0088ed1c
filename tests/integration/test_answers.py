"""Answers as they arrive on a connection: whole, and in the order in which they were asked for."""

from __future__ import annotations

import asyncio
import json
import time
from urllib.parse import urlsplit

import httpx
import pytest

from gateway import listening
from tests.conftest import Serving
from tests.support.http import IMAGE, save, until_metric
from tests.support.server import RunningServer, token

Wire = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connected(server: RunningServer) -> Wire:
    parts = urlsplit(server.url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def told(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one answer that has a length."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r")[0] or 0)
    return int(head[9:12]), await reader.readexactly(length)


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


async def test_who_leaves_with_more_asked_than_answered_leaves_nothing_behind(serving: Serving) -> None:
    async with serving(event_heartbeat_s=0.1) as server:
        reader, writer = await connected(server)
        head = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\n\r\n"
        writer.write(f"GET /api/events HTTP/1.1\r\n{head}".encode())
        await reader.readuntil(b"event: version")
        writer.write(f"GET /health/live HTTP/1.1\r\n{head}".encode() * 3)
        await asyncio.sleep(0.05)
        writer.close()
        await until_metric(server.client(None), "tidepool_event_streams", 0, within_s=1)


async def test_who_asks_without_end_ahead_of_the_answers_is_answered_a_bound_of_them(
    server: RunningServer, client: httpx.AsyncClient
) -> None:
    reader, writer = await connected(server)
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 30_000)
    await asyncio.sleep(0.01)
    began = time.monotonic()
    assert (await client.get("/health/live")).status_code == 200
    assert time.monotonic() - began < 0.5  # others are not held up by it
    answers = 0
    try:
        async with asyncio.timeout(10):
            while True:
                assert (await told(reader))[0] == 200
                answers += 1
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    writer.close()
    assert 1 <= answers <= 200


async def test_what_is_no_request_is_told_between_two_answers_and_never_within_one(server: RunningServer) -> None:
    who = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\n\r\n"
    async with asyncio.timeout(10):
        reader, writer = await connected(server)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await told(reader))[0] == 200
        writer.write(b"HELLO\r\n\r\n")
        assert (await told(reader))[0] == 400
        assert await reader.read() == b""
        writer.close()

        reader, writer = await connected(server)
        writer.write(f"GET /api/events HTTP/1.1\r\n{who}".encode())
        await reader.readuntil(b"event: version")
        writer.write(b"HELLO\r\n\r\n")
        assert b"400" not in (await reader.read()).partition(b"\n\n")[2]
        writer.close()


async def test_what_is_no_request_is_not_told_in_the_place_of_an_answer_that_is_owed(server: RunningServer) -> None:
    """A write would be told as refused, and be done: a body that is longer than it says is enough for that."""
    who = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\n"
    image = json.dumps(IMAGE)
    write = f"POST /api/images HTTP/1.1\r\nContent-Length: {len(image)}\r\n{who}\r\n{image}"
    async with asyncio.timeout(10):
        reader, writer = await connected(server)
        writer.write(f"GET /api/me HTTP/1.1\r\n{who}\r\n{write}HELLO\r\n\r\n".encode())
        assert [(await told(reader))[0] for _ in range(2)] == [200, 201]
        assert await reader.read() == b""
        writer.close()


async def test_a_body_that_nobody_can_read_is_refused_in_its_turn(serving: Serving) -> None:
    who = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\n"
    async with serving(event_age_max_s=1) as server, asyncio.timeout(10):
        reader, writer = await connected(server)
        writer.write(f"GET /api/events HTTP/1.1\r\n{who}\r\n".encode())
        await reader.readuntil(b"event: version")
        writer.write(f"POST /api/sync HTTP/1.1\r\nTransfer-Encoding: chunked\r\n{who}\r\nHELLO\r\n".encode())
        assert b"400" not in await reader.readuntil(b"\r\n0\r\n\r\n")  # until the stream ends by itself
        assert (await told(reader))[0] == 400
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(("version", "header"), [("1.1", "Connection: close\r\n"), ("1.0", "")])
@pytest.mark.parametrize(("user", "status"), [("alice", 413), ("nobody", 401)])
async def test_who_sends_a_body_that_is_refused_can_send_all_of_it(
    serving: Serving, version: str, header: str, user: str, status: int
) -> None:
    """Python's own client, and a proxy that speaks HTTP/1.0, look for an answer when they have."""
    size = 8 << 20  # more than the system takes for who does not read
    who = f"Host: x\r\nAuthorization: Bearer {token(user) if user == 'alice' else 'none'}\r\n"
    async with serving(request_body_max_bytes=1 << 20) as server, asyncio.timeout(20):
        reader, writer = await connected(server)
        writer.write(f"POST /api/images HTTP/{version}\r\n{header}{who}Content-Length: {size}\r\n\r\n".encode())
        assert (await told(reader))[0] == status
        assert await reader.read() == b""
        writer.write(b"x" * size)
        writer.transport.set_write_buffer_limits(0)
        await writer.drain()  # raises where the server has gone
        writer.close()
        await writer.wait_closed()


async def test_who_never_ends_sending_what_was_refused_is_not_listened_to_for_ever(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def send_on() -> None:
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    monkeypatch.setattr(listening, "KEEP_ALIVE_S", 0.3)
    async with serving() as server, asyncio.timeout(10):
        reader, writer = await connected(server)
        writer.write(b"POST /api/images HTTP/1.0\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert (await told(reader))[0] == 401
        with pytest.raises(ConnectionError):
            await send_on()
        writer.close()


async def test_what_follows_a_body_is_no_header_of_its_request(server: RunningServer) -> None:
    """Whether it was taken for one depended on when it came."""
    begun = b"POST /api/sync HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    behind = f"Authorization: Bearer {token('alice')}\r\n\r\n".encode()
    async with asyncio.timeout(10):
        reader, writer = await connected(server)
        for _ in range(2):
            writer.write(begun + behind)
            assert (await told(reader))[0] == 401
        writer.close()


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("parts", [1, 2, 40])
async def test_a_body_is_read_though_another_protocol_is_offered(
    server: RunningServer, parts: int, chunked: bool
) -> None:
    """Java's client offers HTTP/2 with the first request of each connection. It need not be taken."""
    reader, writer = await connected(server)
    body = json.dumps({"prompt": "x" * 500, "image_url": "u"}).encode()
    framing = b"Content-Length: %d" % len(body)
    if chunked:
        framing, body = b"Transfer-Encoding: chunked", b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    head = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\nContent-Type: application/json\r\n".encode()
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    asked = b"POST /api/images HTTP/1.1\r\n%b%b%b\r\n\r\n%b" % (head, offer, framing, body)
    asked += b"GET /health/live HTTP/1.1\r\nHost: x\r\n%b\r\n" % offer
    asked += b"POST /api/sync HTTP/1.1\r\n%b\r\n" % head
    size = -(-len(asked) // parts)
    for begin in range(0, len(asked), size):
        writer.write(asked[begin : begin + size])
        await asyncio.sleep(0.002)
    async with asyncio.timeout(10):
        assert [(await told(reader))[0] for _ in range(3)] == [201, 200, 200]
    writer.close()


@pytest.mark.parametrize(
    "begun", ["", "GET /health/live HT", "POST /api/sync HTTP/1.1\r\nContent-Length: 9\r\n{}\r\n{{"]
)
async def test_who_begins_a_request_and_is_not_heard_of_again_is_not_waited_for(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, begun: str
) -> None:
    monkeypatch.setattr(listening, "KEEP_ALIVE_S", 0.3)
    who = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\n"
    async with serving() as server, asyncio.timeout(5):
        await server.client("alice").get("/api/me")
        reader, writer = await connected(server)
        writer.write(begun.format(who).encode())
        assert await reader.read() == b""
        writer.close()

        reader, writer = await connected(server)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await told(reader))[0] == 200
        writer.write(begun.format(who).encode())
        assert await reader.read() == b""
        writer.close()


async def test_a_body_that_was_begun_behind_another_request_is_waited_for_from_its_turn_on(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "KEEP_ALIVE_S", 0.5)
    who = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\n"
    behind = f"POST /api/sync HTTP/1.1\r\nContent-Length: 2\r\n{who}\r\n"
    async with serving(event_heartbeat_s=0.1, event_age_max_s=1.5) as server, asyncio.timeout(10):
        await server.client("alice").get("/api/me")
        reader, writer = await connected(server)
        writer.write(f"GET /api/me HTTP/1.1\r\n{who}\r\n{behind}".encode())
        assert (await told(reader))[0] == 200
        assert await reader.read() == b""
        writer.close()

        reader, writer = await connected(server)
        writer.write(f"GET /api/events HTTP/1.1\r\n{who}\r\n{behind}".encode())
        await reader.readuntil(b"\r\n0\r\n\r\n")  # until the stream ends by itself, which takes longer
        writer.write(b"{}")
        assert (await told(reader))[0] == 200
        writer.close()


async def test_a_body_that_nobody_can_read_is_refused_though_another_protocol_is_offered(server: RunningServer) -> None:
    reader, writer = await connected(server)
    offer = b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: gzip\r\n"
    writer.write(b"POST /api/sync HTTP/1.1\r\nHost: x\r\n%b\r\n" % offer)
    async with asyncio.timeout(10):
        assert (await told(reader))[0] == 400
        assert await reader.read() == b""
    writer.close()


async def test_who_sends_a_head_a_little_at_a_time_is_not_waited_for(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "KEEP_ALIVE_S", 0.3)
    async with serving() as server, asyncio.timeout(5):
        reader, writer = await connected(server)
        writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await told(reader))[0] == 200
        writer.write(b"GET /health/live HTTP/1.1\r\nX-Long: ")
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            writer.write(b"a")
            await asyncio.wait([ended], timeout=0.05)
        assert isinstance(ended.exception(), ConnectionError) or ended.result() == b""
        writer.close()


async def test_who_sends_a_body_slowly_is_waited_for(serving: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "KEEP_ALIVE_S", 0.3)
    who = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\n"
    body = b'{"min_version": null}'
    async with serving() as server, asyncio.timeout(10):
        reader, writer = await connected(server)
        for _ in range(2):
            head = f"POST /api/sync HTTP/1.1\r\nContent-Length: {len(body)}\r\n{who}\r\n"
            for part in (head.encode(), body[:5], body[5:10], body[10:15], body[15:]):
                await asyncio.sleep(0.15)
                writer.write(part)
            assert (await told(reader))[0] == 200
        writer.close()


async def test_who_sent_a_body_in_parts_is_answered_however_long_the_answer_takes(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "KEEP_ALIVE_S", 0.3)
    who = f"Host: x\r\nAuthorization: Bearer {token('alice')}\r\n"
    async with serving(min_version_wait_ms=900) as server, asyncio.timeout(10):
        at, _, version = (await save(server.client("alice")))["version"].rpartition(".")
        body = json.dumps({"min_version": f"{at}.{int(version) + 1}"}).encode()
        reader, writer = await connected(server)
        writer.write(f"POST /api/sync HTTP/1.1\r\nContent-Length: {len(body)}\r\n{who}\r\n".encode() + body[:5])
        await asyncio.sleep(0.1)  # for two parts to be received as two
        writer.write(body[5:])
        began = time.monotonic()
        assert (await told(reader))[0] == 504
        assert time.monotonic() - began > 0.5
        writer.close()
