"""What the server shows of itself: every request counted, the lines that are worth writing, nothing without end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from litestar import Litestar, get, post
from litestar.params import FromPath
from litestar.testing import AsyncTestClient

from gateway.observe import middleware
from gateway.observe.metrics import Metrics
from gateway.observe.middleware import Observe
from gateway.problems import answer
from gateway.readiness import Check, NotReady, Readiness
from primary.errors import MigrationsPending, PrimaryUnavailable

Client = AsyncTestClient[Litestar]


class Lines:
    """A logger that keeps its lines."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    def info(self, event: str, **values: Any) -> None:
        self.told.append(("info", values))

    def debug(self, event: str, **values: Any) -> None:
        self.told.append(("debug", values))


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    made = Lines()
    monkeypatch.setattr(middleware, "_log", made)
    return made


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def client(metrics: Metrics) -> AsyncIterator[Client]:
    @get("/things/{name:str}")
    async def read(name: FromPath[str]) -> str:
        if name == "broken":
            raise RuntimeError
        return name

    @post("/things")
    async def write() -> str:
        return "written"

    app = Litestar([read, write], exception_handlers={Exception: answer}, openapi_config=None, logging_config=None)
    app.asgi_handler = Observe(app.asgi_handler, metrics)
    async with AsyncTestClient(app, raise_server_exceptions=False) as subject:
        yield subject


async def test_writes_and_failures_are_told_and_ordinary_reads_are_not(client, lines):
    await client.get("/things/a")
    await client.get("/nothing")
    assert lines.told == []
    await client.post("/things")
    await client.get("/things/broken")
    told = [(level, values["method"], values["route"], values["status"]) for level, values in lines.told]
    assert told == [("info", "POST", "/things", 201), ("info", "GET", "/things/{name}", 500)]


async def test_a_slow_read_is_told(client, lines, monkeypatch):
    monkeypatch.setattr(middleware, "SLOW_S", 0.0)
    await client.get("/things/a")
    assert len(lines.told) == 1


async def test_requests_are_counted_by_route_and_not_by_path(client, metrics):
    for name in ("a", "b", "c"):
        await client.get(f"/things/{name}")
        await client.get(f"/no/such/{name}")
        await client.request("BREW", f"/no/such/{name}")
    text = metrics.text().decode()
    assert 'tidepool_http_requests_total{method="GET",route="/things/{name}",status="200"} 3.0' in text
    assert 'tidepool_http_requests_total{method="GET",route="unmatched",status="404"} 3.0' in text
    assert 'tidepool_http_requests_total{method="other",route="unmatched",status="404"} 3.0' in text
    assert 'tidepool_http_request_duration_seconds_count{method="GET",route="/things/{name}"} 3.0' in text
    assert "/no/such" not in text


def test_logs_are_json_with_the_request_id_and_the_traceback_in_one_line():
    program = """
import logging, structlog
from gateway.observe.logs import configure_logs
from gateway.observe.request_ids import current
configure_logs("info", "json")
current.set("abc")
structlog.get_logger("ours").info("hello", n=1)
structlog.get_logger("ours").debug("too quiet")
structlog.get_logger("ours").warning("odd", text="caf\\udce9", number=2**70, thing=logging)
try:
    1 / 0
except ZeroDivisionError as error:
    logging.getLogger("theirs").exception("oh")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    first, odd, second = map(json.loads, ended.stderr.splitlines())
    assert (first["event"], first["n"], first["level"], first["logger"]) == ("hello", 1, "info", "ours")
    assert first["request_id"] == second["request_id"] == "abc"
    assert datetime.now(UTC) - datetime.fromisoformat(first["timestamp"]) < timedelta(minutes=1)
    assert (odd["level"], odd["text"], odd["number"]) == ("warning", "caf\udce9", 2**70)
    assert "logging" in odd["thing"]
    assert (second["event"], second["level"], second["logger"]) == ("oh", "error", "theirs")
    assert "ZeroDivisionError" in second["exception"]
    assert ended.stdout == ""


def test_a_line_that_cannot_be_written_stops_nobody():
    program = """
import structlog
from gateway.observe.logs import configure_logs
configure_logs("info", "json")
structlog.get_logger("ours").info("to nobody")
print("goes on")
"""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=writing, text=True)
    finally:
        os.close(writing)
    assert ended.stdout == "goes on\n"


async def test_readiness_names_what_is_missing_and_tells_no_path():
    async def fine() -> str:
        return "fine"

    def failing(error: Exception) -> Any:
        async def check() -> str:
            raise error

        return check

    readiness = Readiness(
        {
            "fine": fine,
            "away": failing(PrimaryUnavailable("connection to /run/x failed")),
            "old": failing(MigrationsPending()),
            "full": failing(OSError(28, "No space left on device", "/data/x")),
            "told": failing(NotReady("2 pending")),
        }
    )
    checks = await readiness.check()
    assert checks["fine"] == Check(True, "fine")
    assert [name for name, check in checks.items() if not check.ok] == ["away", "old", "full", "told"]
    assert checks["full"].detail == "No space left on device"
    assert not any("/" in check.detail for check in checks.values())


async def test_readiness_asked_often_is_checked_seldom():
    asked = 0

    async def check() -> str:
        nonlocal asked
        asked += 1
        return ""

    readiness = Readiness({"it": check})
    for _ in range(50):
        await readiness.check()
    assert asked == 1
