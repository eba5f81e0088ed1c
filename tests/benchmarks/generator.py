"""A load generator for machines without wrk: ``python -m tests.benchmarks.generator URL FILE CONNECTIONS SECONDS``.

Takes the same file as load.lua and writes the same line of JSON. It knows of HTTP/1.1 only what a server of our
kind answers: a content-length, or no body.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import sys
import time
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import uvloop

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Client(asyncio.Protocol):
    """One connection: asks, waits for the whole answer, asks again."""

    def __init__(self, requests: itertools.cycle[bytes], waits_s: list[float], errors: list[str]) -> None:
        self._requests = requests
        self._waits_s = waits_s
        self._errors = errors
        self._received = bytearray()
        self._asked_at = 0.0
        self._over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._ask()

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        head = received.find(b"\r\n\r\n")
        if head < 0:
            return
        found = _LENGTH.search(received, 0, head)
        if len(received) < head + 4 + (int(found[1]) if found else 0):
            return
        self._waits_s.append(time.perf_counter() - self._asked_at)
        if received[9:10] not in b"23":
            self._errors.append(received[9:12].decode("latin-1"))
        received.clear()
        self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._over:
            self._errors.append("the connection was closed")

    def stop(self) -> None:
        self._over = True
        self._transport.close()

    def _ask(self) -> None:
        if not self._over:
            self._asked_at = time.perf_counter()
            self._transport.write(next(self._requests))


def _request(line: str, host: str) -> bytes:
    path, token, etag = line.split("\t")
    headers = [f"GET {path} HTTP/1.1", f"Host: {host}"]
    if token:
        headers.append(f"Authorization: Bearer {token}")
    if etag:
        headers.append(f"If-None-Match: {etag}")
    return "\r\n".join([*headers, "", ""]).encode()


async def _run(url: str, file: Path, connections: int, seconds: float) -> dict[str, float]:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    host, port = address.hostname, address.port
    lines = await asyncio.to_thread(file.read_text)
    requests = itertools.cycle([_request(line, address.netloc) for line in lines.splitlines()])
    waits_s: list[float] = []
    errors: list[str] = []
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    made = [
        await loop.create_connection(lambda: _Client(requests, waits_s, errors), host, port) for _ in range(connections)
    ]
    await asyncio.sleep(seconds)
    elapsed = time.perf_counter() - began
    for _, client in made:
        client.stop()
    waits_s.sort()
    return {
        "rate": len(waits_s) / elapsed,
        "p50_ms": waits_s[len(waits_s) // 2] * 1e3,
        "p99_ms": waits_s[len(waits_s) * 99 // 100] * 1e3,
        "errors": len(errors),
    }


if __name__ == "__main__":
    _url, _file, _connections, _seconds = sys.argv[1:]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_run(_url, Path(_file), int(_connections), float(_seconds)))))
