"""Whole answers, as they arrive at the transport of a connection."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from gateway import whole
from gateway.answers import Answer
from gateway.observe.metrics import Metrics
from gateway.observe.middleware import Observe
from gateway.protocol import Protocol
from gateway.whole import WHOLE, Header, Outgoing


class Wire:
    """A transport that notes what it is handed, an entry for each time that the kernel would be asked."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False
        self.ended = False

    def write(self, data: bytes) -> None:
        self.sent.append(data)

    def writelines(self, pieces: Sequence[bytes]) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def write_eof(self) -> None:
        self.ended = True

    def get_extra_info(self, _: str) -> None:
        return None

    def abort(self) -> None: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


class Connection:
    """A connection to an application that gives one and the same answer."""

    def __init__(
        self,
        answer: Answer,
        observed: Callable[[Any], Any] | None = None,
        outgoing: Outgoing | None = None,
        before: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            if before is not None:
                await before()
            await answer(scope, receive, send)

        self.state = ServerState()
        config = uvicorn.Config(
            observed(app) if observed else app, lifespan="off", server_header=False, log_config=None
        )
        config.load()
        self.protocol = Protocol(config, self.state, {}, outgoing=outgoing or Outgoing())
        self.wire = Wire()
        self.protocol.connection_made(cast("asyncio.Transport", self.wire))

    def begin(self, times: int = 1, *, method: str = "GET", version: str = "1.1", headers: str = "") -> None:
        self.protocol.data_received(f"{method} / HTTP/{version}\r\nHost: x\r\n{headers}\r\n".encode() * times)

    async def ask(self, method: str = "GET", version: str = "1.1", headers: str = "") -> list[bytes]:
        self.begin(method=method, version=version, headers=headers)
        await self.ended()
        return self.wire.sent

    async def ended(self) -> None:
        while self.state.tasks:
            await asyncio.gather(*self.state.tasks)
            await asyncio.sleep(0)  # which is when the server forgets those that ended


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


async def test_an_answer_that_comes_before_the_end_of_its_request_has_the_rest_read() -> None:
    for method in ("POST", "HEAD"):  # the latter goes the ordinary way
        connection = Connection(of(2))
        sent = b"".join(await connection.ask(method, headers="Connection: close\r\nContent-Length: 9\r\n"))
        assert b"connection: close" in sent
        assert (connection.wire.ended, connection.wire.closed) == (True, False)
        connection.protocol.data_received(b"123456789")
        connection.begin()
        assert not connection.state.tasks, "nothing is begun behind it"
        connection.protocol.shutdown()
        assert connection.wire.closed


async def test_an_answer_to_head_goes_the_ordinary_way() -> None:
    sent = b"".join(await Connection(of(7)).ask("HEAD"))
    assert sent.endswith(b"content-length: 7\r\n\r\n")


async def test_while_the_other_side_does_not_read_an_answer_waits() -> None:
    connection = Connection(of(7))
    connection.protocol.pause_writing()
    connection.begin()
    for _ in range(5):
        await asyncio.sleep(0)
    assert connection.wire.sent == []
    connection.protocol.resume_writing()
    await connection.ended()
    assert b"".join(connection.wire.sent).endswith(b"\r\n\r\nbbbbbbb")


async def test_nothing_is_written_to_who_has_gone() -> None:
    connection = Connection(of(7))
    connection.begin()
    connection.protocol.connection_lost(None)
    await connection.ended()
    assert connection.wire.sent == []


async def test_who_has_gone_before_an_earlier_answer_is_no_error_of_ours() -> None:
    """Of two requests that are sent at once, uvicorn tells the one that is answered nothing of it."""
    connection = Connection(of(7))
    connection.begin(2)
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


@pytest.mark.parametrize("version", ["1.1", "1.0"])  # the latter is what nginx speaks with whom it stands before
@pytest.mark.parametrize("headers", ["", "Content-Length: 9\r\n"])
async def test_a_request_is_freed_with_its_connection(version: str, headers: str) -> None:
    connection = Connection(of(7), lambda app: Observe(app, Metrics()))
    gc.disable()
    try:
        await connection.ask(version=version, headers=headers)
        connection.protocol.connection_lost(None)
        cycle = weakref.ref(connection.protocol.cycle)
        del connection
        assert cycle() is None
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


# ── Answers that are made together ──────────────────────────────────────────────────────────────────────────────


@pytest.fixture(autouse=True)
def time_stands_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a loaded machine a pass takes longer than an answer is held."""
    monkeypatch.setattr(whole, "monotonic", lambda: 0.0)


class Several:
    """Connections of one server, and a turn that a request can be made to wait for."""

    def __init__(self, number: int, size: int = 7) -> None:
        self.outgoing = Outgoing()
        self.turn = asyncio.Event()
        self.found: list[int] = []  # on all wires, as each application was asked
        self.connections = [
            Connection(of(size), outgoing=self.outgoing, before=partial(self.before, n)) for n in range(number)
        ]
        self.slow: set[int] = set()

    async def before(self, number: int) -> None:
        if number in self.slow:
            await self.turn.wait()
        self.found.append(sum(self.sent))

    @property
    def sent(self) -> list[int]:
        return [len(connection.wire.sent) for connection in self.connections]

    def begin(self) -> None:
        for connection in self.connections:
            connection.begin()

    async def ended(self) -> None:
        for connection in self.connections:
            await connection.ended()


async def passes(number: int = 3) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_what_is_asked_at_once_is_answered_right_after_each_other() -> None:
    several = Several(4)
    for rounds in (1, 2):
        several.found.clear()
        several.begin()
        await passes(1)
        assert several.found == [4 * (rounds - 1)] * 4, "no answer was sent before the last was made"
        assert several.sent == [rounds] * 4, "with the last, all were"
    await several.ended()


async def test_who_takes_longer_holds_nobody_up() -> None:
    several = Several(3)
    several.slow = {1}
    several.begin()
    await passes()
    assert several.sent == [1, 0, 1]
    several.turn.set()
    await several.ended()
    assert several.sent == [1, 1, 1]
    several.slow.clear()
    several.found.clear()
    several.begin()
    await passes(1)
    assert several.found == [3] * 3, "nothing of it is left to those who come next"
    assert several.sent == [2] * 3


async def test_while_someone_takes_long_others_are_answered_together_still() -> None:
    several = Several(3)
    several.slow = {0}
    several.connections[0].begin()
    await passes()
    for number in (3, 1):  # at first it is not known who takes long
        several.found.clear()
        sent = several.sent
        for connection in several.connections[1:]:
            connection.begin()
        await passes(number)
        assert several.found == [sum(sent)] * 2
        assert several.sent == [0, sent[1] + 1, sent[2] + 1]
    several.turn.set()
    await several.ended()
    assert several.sent == [1, 2, 2]


async def test_many_bytes_wait_for_nobody() -> None:
    size = whole._HELD_MAX_BYTES // 2
    several = Several(4, size)
    for before in (0, 4):
        several.found.clear()
        several.begin()
        await several.ended()
        assert several.found == [before, before, before, before + 3], "three are more than are kept"


async def test_an_answer_waits_for_a_moment_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([10.0, 10.0 + whole._HELD_MAX_S / 2, 10.0 + whole._HELD_MAX_S * 2, 20.0])
    monkeypatch.setattr(whole, "monotonic", lambda: next(moments))
    several = Several(4)
    several.begin()
    await several.ended()
    assert several.found == [0, 0, 0, 3]


async def test_what_is_about_to_be_sent_is_sent_before_its_connection_is_ended() -> None:
    for end in ("shutdown", "eof_received"):
        several = Several(2)
        several.slow = {1}
        several.begin()
        await passes(1)
        first = several.connections[0]
        assert first.wire.sent == []
        getattr(first.protocol, end)()
        assert len(first.wire.sent) == 1
        assert first.wire.closed is (end == "shutdown")
        several.turn.set()
        await several.ended()
        assert several.sent == [1, 1]


async def test_the_next_request_of_a_connection_comes_behind_what_is_about_to_be_sent() -> None:
    several = Several(2)
    several.slow = {1}
    several.begin()
    await passes(1)
    assert several.sent == [0, 0]
    several.connections[0].begin()
    assert several.sent == [1, 0]
    several.turn.set()
    await several.ended()
    assert several.sent == [2, 1]


async def test_behind_an_answer_that_ends_its_connection_nothing_is_begun() -> None:
    several = Several(2)
    several.slow = {1}
    first = several.connections[0]
    first.begin(version="1.0", headers="Connection: keep-alive\r\n")  # which it is not, but the parser reads on
    several.connections[1].begin()
    await passes(1)
    assert (first.wire.closed, several.sent) == (False, [0, 0])
    first.begin()
    assert (first.wire.closed, several.sent) == (True, [1, 0])
    several.turn.set()
    await several.ended()
    assert (len(several.found), several.sent) == (2, [1, 1])


async def test_who_goes_before_it_is_sent_takes_nobody_elses_along() -> None:
    several = Several(3)
    several.slow = {2}
    several.begin()
    await passes(1)
    several.connections[0].wire.close()
    several.connections[0].protocol.connection_lost(None)
    await passes()
    assert several.sent == [0, 1, 0]
    several.turn.set()
    await several.ended()


async def test_of_a_connection_all_are_answered_in_order_whatever_else_is_asked() -> None:
    several = Several(3)
    for connection in several.connections:
        connection.begin(5)
    await passes(30)
    assert several.sent == [5, 5, 5]
