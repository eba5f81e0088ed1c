"""What is sent of a file that fails on the way: an answer that is visibly too short, never a whole one."""

from __future__ import annotations

import asyncio
import io
from contextlib import ExitStack
from typing import Any

import pytest

from gateway.exports.download import PART_BYTES, Download
from gateway.exports.leaving import while_there
from gateway.exports.places import Places
from gateway.problems import Problem
from gateway.protocol import ABORT


class Client:
    """The other side of an answer. ``takes`` says how many messages it takes before it takes nothing any more."""

    def __init__(self, takes: float = float("inf")) -> None:
        self.messages: list[Any] = []
        self.aborted = False
        self.gone = asyncio.Event()
        self._takes = takes
        self.scope: Any = {ABORT: self._abort}

    def _abort(self) -> None:
        self.aborted = True
        self.gone.set()

    async def send(self, message: Any) -> None:
        if len(self.messages) >= self._takes:
            await asyncio.sleep(3_600)
        self.messages.append(message)

    async def receive(self) -> Any:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.messages[1:])

    @property
    def ended(self) -> bool:
        return self.messages[-1].get("more_body") is False


class Failing(io.BytesIO):
    """A disk that fails after the first part."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise OSError(5, "Input/output error")
        return super().read(size)


async def download(client: Client, file: Any, size_bytes: int, stall_max_s: float = 5) -> list[str]:
    """Send a file; give what was closed at the end."""
    closed: list[str] = []
    opened = ExitStack()
    opened.callback(closed.append, "closed")
    answer = Download(file, size_bytes, [(b"content-type", b"x/y")], stall_max_s, opened)
    await answer(client.scope, client.receive, client.send)
    return closed


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES])
async def test_a_file_is_sent_whole_with_its_length(size: int) -> None:
    client, content = Client(), bytes(range(256)) * (size // 256 + 1)
    file = io.BytesIO(content[:size])
    assert await download(client, file, size) == ["closed"]
    assert file.closed
    assert (client.body, client.ended, client.aborted) == (content[:size], True, False)
    assert (b"content-length", b"%d" % size) in client.messages[0]["headers"]


@pytest.mark.parametrize("file", [Failing(bytes(3 * PART_BYTES)), io.BytesIO(bytes(2 * PART_BYTES))])
async def test_a_file_that_cannot_be_read_to_its_end_breaks_the_answer(file: io.BytesIO) -> None:
    client = Client()
    assert await download(client, file, 3 * PART_BYTES) == ["closed"]
    assert client.aborted
    assert not client.ended
    assert 0 < len(client.body) < 3 * PART_BYTES


async def test_who_takes_no_more_is_cut_off() -> None:
    client = Client(takes=2)
    assert await download(client, io.BytesIO(bytes(3 * PART_BYTES)), 3 * PART_BYTES, stall_max_s=0.05) == ["closed"]
    assert (client.aborted, client.ended, len(client.body)) == (True, False, PART_BYTES)


async def test_who_leaves_is_sent_nothing_more() -> None:
    client = Client()
    client.gone.set()
    assert await download(client, io.BytesIO(bytes(300 * PART_BYTES)), 300 * PART_BYTES) == ["closed"]
    assert len(client.body) <= 2 * PART_BYTES


async def test_a_stop_breaks_it_off() -> None:
    client = Client(takes=2)
    sending = asyncio.create_task(download(client, io.BytesIO(bytes(3 * PART_BYTES)), 3 * PART_BYTES))
    while len(client.messages) < 2:
        await asyncio.sleep(0.001)
    sending.cancel()
    assert await sending == ["closed"]
    assert (client.aborted, client.ended) == (True, False)


class Made:
    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


async def test_work_is_given_up_when_the_client_leaves_and_what_it_gave_is_closed() -> None:
    client, made = Client(), Made()

    async def stubborn() -> Made:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            pass  # it was done already
        return made

    waiting = asyncio.create_task(while_there(client.receive, stubborn()))
    await asyncio.sleep(0.01)
    client.gone.set()
    with pytest.raises(Problem, match="the client left"):
        await waiting
    assert made.closed

    client, made = Client(), Made()
    waiting = asyncio.create_task(while_there(client.receive, stubborn()))
    await asyncio.sleep(0.01)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert made.closed


async def test_a_place_is_given_back_whatever_happens() -> None:
    places = Places(per_user_max=1, node_max=2)
    with places.place("ann"):
        with pytest.raises(Problem, match="you have 1 exports"), places.place("ann"):
            pass
        with places.place("bob"), pytest.raises(Problem, match="this server has 2"), places.place("cid"):
            pass
        assert len(places) == 1
    with pytest.raises(KeyError), places.place("ann"):
        raise KeyError
    assert len(places) == 0
