"""Whole answers, as they arrive at the transport of a connection."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway.answers import Answer
from gateway.observe.metrics import Metrics
from gateway.observe.middleware import Observe
from gateway.protocol import Protocol
from gateway.whole import WHOLE, Header


class Wire:
    """A transport that notes what it is handed, an entry for each time that the kernel would be asked."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, _: str) -> None:
        return None

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """A connection to an application that gives one and the same answer."""

    def __init__(self, answer: Answer, observed: Callable[[Any], Any] | None = None) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await answer(scope, receive, send)

        self.state = ServerState()
        config = uvicorn.Config(
            observed(app) if observed else app, lifespan="off", server_header=False, log_config=None
        )
        config.load()
        self.protocol = Protocol(config, self.state, {})
        self.wire = Wire()
        self.protocol.connection_made(cast("asyncio.Transport", self.wire))

    async def ask(self, method: str = "GET", version: str = "1.1", headers: str = "") -> list[bytes]:
        self.protocol.data_received(f"{method} / HTTP/{version}\r\nHost: x\r\n{headers}\r\n".encode())
        await self.ended()
        return self.wire.sent

    async def ended(self) -> None:
        while self.state.tasks:
            await asyncio.gather(*self.state.tasks)


def of(size: int, *headers: Header) -> Answer:
    return Answer.json(b"b" * size, headers=headers)


@pytest.mark.parametrize("size", [0, 1, 1_000, 100_000])
async def test_head_and_body_are_one_write(size: int) -> None:
    (sent,) = await Connection(of(size, (b"x-one", b"1"))).ask()
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 200 OK",
        b"content-type: application/json",
        b"content-length: %d" % size,
        b"x-one: 1",
    ]
    assert body == b"b" * size


async def test_what_the_server_says_in_every_answer_is_in_it() -> None:
    connection = Connection(of(2))
    connection.state.default_headers = [(b"date", b"today")]
    (sent,) = await connection.ask()
    assert b"\r\ndate: today\r\n" in sent


async def test_an_answer_without_a_body_has_no_length() -> None:
    assert await Connection(Answer(304, ((b"etag", b'"1"'),))).ask() == [
        b'HTTP/1.1 304 Not Modified\r\netag: "1"\r\n\r\n'
    ]


async def test_a_connection_is_kept_or_ended_as_the_client_has_it() -> None:
    for version, headers, kept in (
        ("1.1", "", True),
        ("1.1", "Connection: close\r\n", False),
        ("1.0", "", False),
    ):
        connection = Connection(of(2))
        (sent,) = await connection.ask(version=version, headers=headers)
        assert (b"connection: close" in sent) is not kept
        assert connection.wire.closed is not kept
        if kept:
            assert len(await connection.ask()) == 2


async def test_an_answer_to_head_goes_the_ordinary_way() -> None:
    sent = b"".join(await Connection(of(7)).ask("HEAD"))
    assert sent.endswith(b"content-length: 7\r\n\r\n")


async def test_while_the_other_side_does_not_read_an_answer_waits() -> None:
    connection = Connection(of(7))
    connection.protocol.pause_writing()
    connection.protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(5):
        await asyncio.sleep(0)
    assert connection.wire.sent == []
    connection.protocol.resume_writing()
    await connection.ended()
    assert b"".join(connection.wire.sent).endswith(b"\r\n\r\nbbbbbbb")


async def test_nothing_is_written_to_who_has_gone() -> None:
    connection = Connection(of(7))
    connection.protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.protocol.connection_lost(None)
    await connection.ended()
    assert connection.wire.sent == []


async def test_who_has_gone_before_an_earlier_answer_is_no_error_of_ours() -> None:
    """Of two requests that are sent at once, uvicorn tells the one that is answered nothing of it."""
    connection = Connection(of(7))
    connection.protocol.data_received(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    connection.wire.close()
    await connection.ended()
    assert connection.wire.sent == []


async def test_a_request_is_freed_when_it_ends() -> None:
    """And not by the collector, which may come for it late, and holds everybody up when it comes."""
    connection = Connection(of(7), lambda app: Observe(app, Metrics()))
    gc.disable()
    try:
        cycles = []
        for _ in range(3):
            await connection.ask()
            cycles.append(weakref.ref(connection.protocol.cycle))
        assert [cycle() is None for cycle in cycles] == [True, True, False]
    finally:
        gc.enable()


@pytest.mark.parametrize("value", [b"1\r\nx-two: 2", b"1\nx-two: 2", b"1\rx-two: 2", b"1\r\n\r\nbody"])
async def test_a_header_of_more_than_one_line_is_not_sent(value: bytes) -> None:
    sent = b"".join(await Connection(of(7, (b"x-one", value))).ask())
    assert sent.startswith(b"HTTP/1.1 500 ")
    assert b"x-one" not in sent


async def test_another_server_than_ours_is_handed_asgis_messages() -> None:
    said: list[str] = []

    async def send(message: Any) -> None:
        said.append(message["type"])

    for scope in ({"type": "http", "method": "GET"}, {"type": "http", "method": "GET", WHOLE: lambda *_: False}):
        said.clear()
        await Answer.json(b"{}")(cast("Any", scope), cast("Any", None), send)
        assert said == ["http.response.start", "http.response.body"]
