"""What is written in two and sent as one."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from gateway.answers import Answer
from gateway.joining import JOIN, Joining


class Wire:
    """A transport that notes what it is handed, a list for each time that the kernel would be asked."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent.append(data)

    def writelines(self, pieces: tuple[bytes, ...]) -> None:
        self.write(b"".join(pieces))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> str:
        return f"its {name}"


def joining() -> tuple[Joining, Wire]:
    wire = Wire()
    return Joining(cast("asyncio.Transport", wire)), wire


def test_two_writes_are_sent_as_one_whatever_their_size() -> None:
    for size in (0, 1, 1_000, 100_000):
        transport, wire = joining()
        transport.join()
        transport.write(b"head ")
        assert wire.sent == []
        transport.write(b"b" * size)
        assert wire.sent == [b"head " + b"b" * size]


def test_what_is_not_to_be_joined_is_sent_at_once() -> None:
    transport, wire = joining()
    for part in (b"one", b"two"):
        transport.write(part)
    transport.join()
    for part in (b"three ", b"four", b"five"):
        transport.write(part)
    assert wire.sent == [b"one", b"two", b"three four", b"five"]


def test_what_was_kept_is_sent_before_the_end() -> None:
    transport, wire = joining()
    transport.join()
    transport.write(b"head")
    transport.close()
    assert (wire.sent, transport.is_closing()) == ([b"head"], True)


def test_who_closes_what_is_closed_writes_nothing_to_it() -> None:
    """As uvicorn does when an answer fails whose client has gone. uvloop raises where what is closed is written to."""
    for kept in (False, True):
        transport, wire = joining()
        if kept:
            transport.join()
            transport.write(b"head")
        wire.close()
        transport.close()
        assert wire.sent == []


def test_joining_nothing_leaves_the_end_as_it_is() -> None:
    transport, wire = joining()
    transport.join()
    transport.close()
    assert ([part for part in wire.sent if part], wire.closed) == ([], True)


def test_all_else_is_the_transports() -> None:
    transport, _ = joining()
    assert transport.get_extra_info("peer") == "its peer"


async def test_an_answer_is_joined_unless_it_has_no_body_to_wait_for() -> None:
    async def send(message: Any) -> None:
        said.append(message["type"])

    for method, joined in (("GET", ["join"]), ("POST", ["join"]), ("HEAD", [])):
        said: list[str] = []
        scope: Any = {"type": "http", "method": method, JOIN: lambda said=said: said.append("join")}
        await Answer.json(b"{}")(scope, cast("Any", None), send)
        assert said == [*joined, "http.response.start", "http.response.body"]
    said = []
    await Answer.json(b"{}")(cast("Any", {"type": "http", "method": "GET"}), cast("Any", None), send)
    assert said == ["http.response.start", "http.response.body"], "another server than ours has no such thing"
