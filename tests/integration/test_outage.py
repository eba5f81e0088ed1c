"""I6: with the primary away, reads of what is replicated go on; when it is back, so is everything, by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest

from gateway import readiness
from primary.embedded import EmbeddedPostgres
from primary.gallery.tables import catalog
from primary.migrate import migrate
from primary.postgres import Primary
from tests.conftest import Serving
from tests.support.http import IMAGE, assert_is_problem, assert_problem, execute, prompts, save
from tests.support.proxy import PostgresProxy
from tests.support.server import RunningServer

# How late a probe may notice; and how long anything may take that is answered without waiting for it.
PROBE_S = 0.2
QUICK_S = 1.0
RECOVERED_S = 4.0

WRITES: list[tuple[str, str, object]] = [
    ("POST", "/api/images", IMAGE),
    ("POST", "/api/images/batch", {"images": [IMAGE]}),
    ("PATCH", "/api/images/3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11", {"prompt": "x"}),
    ("DELETE", "/api/images/3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11", None),
    ("POST", "/api/sync", None),
    ("POST", "/api/images/sync", {}),
]


INSERT = "INSERT INTO image (user_id, prompt, image_url) VALUES ('alice', 'from psql', 'u')"


def next_after(version: str) -> str:
    epoch, _, number = version.rpartition(".")
    return f"{epoch}.{int(number) + 1}"


async def eventually(what: Callable[[], Awaitable[bool]], within_s: float = RECOVERED_S) -> float:
    """Wait until it is so, and tell how long that took."""
    begun = time.monotonic()
    while not await what():
        assert time.monotonic() - begun < within_s, f"not within {within_s} s"
        await asyncio.sleep(0.05)
    return time.monotonic() - begun


async def readies(client: httpx.AsyncClient) -> bool:
    return (await client.get("/health/ready")).status_code == 200


async def writes(client: httpx.AsyncClient) -> bool:
    return (await client.post("/api/images", json=IMAGE)).status_code == 201


async def quickly(asked: Awaitable[httpx.Response], within_s: float = QUICK_S) -> httpx.Response:
    async with asyncio.timeout(within_s):
        return await asked


@pytest.fixture
async def own_url(own_postgres: EmbeddedPostgres) -> str:
    primary = Primary(own_postgres.url)
    await primary.open()
    await migrate(primary, catalog)
    await primary.close()
    return own_postgres.url


@pytest.fixture
async def watchful(serving: Serving, own_url: str) -> AsyncIterator[RunningServer]:
    """A server on a Postgres that can be stopped, which looks after it often."""
    async with serving(database_url=own_url, primary_probe_interval_s=PROBE_S) as server:
        yield server


async def test_reads_go_on_while_postgres_is_stopped_and_all_is_well_when_it_is_back(
    watchful: RunningServer, own_postgres: EmbeddedPostgres, own_url: str
) -> None:
    alice, stranger = watchful.client("alice"), watchful.client("stranger")
    saved = await save(alice)
    version = (await alice.post("/api/sync")).json()["version"]
    fresh = await alice.get("/api/images")
    assert "x-replica-stale" not in fresh.headers
    assert await readies(alice)

    await own_postgres.stop()
    # The very first that is asked, before anybody noticed.
    assert_problem(await quickly(alice.post("/api/images", json=IMAGE)), 503, "primary_unavailable")
    for path in ("/api/images", f"/api/images/{saved['id']}", "/api/me"):
        answer = await quickly(alice.get(path))
        assert (answer.status_code, answer.headers["x-replica-stale"]) == (200, "true")
        assert answer.headers["x-replica-version"] == version
        at_least = await quickly(alice.get(path, headers={"X-Min-Version": version}))
        assert (at_least.status_code, at_least.headers["x-replica-stale"]) == (200, "true")
        unchanged = await quickly(alice.get(path, headers={"If-None-Match": fresh.headers["etag"]}))
        assert (unchanged.status_code, unchanged.headers["x-replica-stale"]) == (304, "true")
    assert (await alice.get("/api/images")).content == fresh.content
    for method, path, body in WRITES:
        answer = await quickly(alice.request(method, path, json=body))
        assert_problem(answer, 503, "primary_unavailable")
        assert "cannot be reached" in answer.json()["detail"], "and not that it is busy"
        assert answer.json()["hint"]
        assert int(answer.headers["retry-after"]) >= 1
    # Who has no replica cannot be served, and gets no empty page either.
    for path in ("/api/images", "/api/me", f"/api/images/{saved['id']}"):
        answer = await quickly(stranger.get(path))
        assert_problem(answer, 503, "primary_unavailable")
        assert answer.headers["retry-after"]
    assert (await quickly(alice.get("/health/live"))).status_code == 200
    ready = await alice.get("/health/ready")
    assert ready.status_code == 503
    checks = ready.json()["checks"]
    assert {name: check["ok"] for name, check in checks.items()} == {
        "primary": False,
        "migrations": False,
        "data_directory": True,
    }
    assert "cannot be reached" in checks["primary"]["detail"]
    assert "tidepool_primary_reachable 0.0" in (await alice.get("/metrics")).text

    await own_postgres.start()
    await eventually(lambda: readies(alice))

    async def no_longer_stale() -> bool:
        return "x-replica-stale" not in (await alice.get("/api/images")).headers

    await eventually(no_longer_stale, QUICK_S)
    later = await save(alice, prompt="after the outage")
    read = await prompts(alice, **{"X-Min-Version": later["version"]})
    assert sorted(read) == [IMAGE["prompt"], "after the outage"]
    assert later["version"].rpartition(".")[0] == version.rpartition(".")[0], "the same primary is the same epoch"
    assert await prompts(stranger) == []
    assert await execute(own_url, "SELECT count(*) FROM image") == [(2,)], "what was refused was not written"


async def test_a_version_that_the_replica_lacks_is_waited_for_through_a_short_outage(
    watchful: RunningServer, own_postgres: EmbeddedPostgres, own_url: str
) -> None:
    alice = watchful.client("alice")
    version = (await alice.get("/api/images")).headers["x-replica-version"]
    await own_postgres.stop()
    waiting = asyncio.create_task(alice.get("/api/images", headers={"X-Min-Version": next_after(version)}))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    await own_postgres.start()
    await execute(own_url, INSERT)
    answer = await waiting
    assert (answer.status_code, len(answer.json()["images"])) == (200, 1)


async def test_a_version_that_the_replica_lacks_is_504_when_the_outage_lasts(
    serving: Serving, own_url: str, own_postgres: EmbeddedPostgres
) -> None:
    async with serving(database_url=own_url, primary_probe_interval_s=PROBE_S, min_version_wait_ms=500) as server:
        alice = server.client("alice")
        version = (await alice.get("/api/images")).headers["x-replica-version"]
        await own_postgres.stop()
        for path in ("/api/images", "/api/me"):
            asked = alice.get(path, headers={"X-Min-Version": next_after(version)})
            answer = await quickly(asked, 0.5 + QUICK_S)
            assert_problem(answer, 504, "version_not_reached")
            assert "cannot be reached" in answer.json()["detail"]


async def test_a_server_that_is_started_without_its_primary_serves_what_it_has(
    serving: Serving, own_url: str, own_postgres: EmbeddedPostgres
) -> None:
    async with serving(database_url=own_url) as server:
        await save(server.client("alice"))
        assert len(await prompts(server.client("alice"))) == 1
    await own_postgres.stop()
    async with serving(database_url=own_url, primary_probe_interval_s=PROBE_S) as server:
        alice = server.client("alice")
        answer = await quickly(alice.get("/api/images"))
        assert (answer.status_code, len(answer.json()["images"])) == (200, 1)
        refused = await alice.post("/api/images", json=IMAGE)
        assert_problem(refused, 503, "primary_unavailable")
        assert "cannot be reached" in refused.json()["detail"]
        assert (await alice.get("/api/images")).headers["x-replica-stale"] == "true"
        assert not await readies(alice)
        await own_postgres.start()
        await eventually(lambda: readies(alice))
        assert await save(alice)


@pytest.mark.alone
async def test_many_at_once_are_all_answered_quickly_in_an_outage(
    watchful: RunningServer, own_postgres: EmbeddedPostgres
) -> None:
    """Nobody queues behind connections that cannot be had: forty writers and readers, all within the bound."""
    clients = [watchful.client(f"user {n}") for n in range(40)]
    await asyncio.gather(*(save(client) for client in clients))
    await asyncio.gather(*(client.post("/api/sync") for client in clients))
    await own_postgres.stop()
    begun = time.monotonic()
    writes = [client.post("/api/images", json=IMAGE) for client in clients]
    reads = [client.get("/api/images") for client in clients]
    answers = await asyncio.gather(*writes, *reads)
    assert time.monotonic() - begun < 3
    for answer in answers[: len(writes)]:
        assert_problem(answer, 503, "primary_unavailable")
    assert {answer.status_code for answer in answers[len(writes) :]} == {200}
    await own_postgres.start()
    await eventually(lambda: readies(clients[0]))
    assert {(await client.post("/api/images", json=IMAGE)).status_code for client in clients} == {201}


async def test_a_connection_that_breaks_in_a_write_gives_its_place_in_the_pool_back(
    serving: Serving, proxy: PostgresProxy
) -> None:
    async with serving(database_url=proxy.url, primary_pool_max=1, primary_probe_interval_s=PROBE_S) as server:
        alice = server.client("alice")
        for _ in range(3):  # each would be the last, if it were not for that
            await eventually(lambda: writes(alice))
            await proxy.cut()
            assert_problem(await quickly(alice.post("/api/images", json=IMAGE)), 503, "primary_unavailable")
            await proxy.resume()
        await eventually(lambda: writes(alice))


# ── Connections that are not closed, and yet dead ───────────────────────────────────────────────────────────────

ANSWER_S = 1.0


@pytest.fixture
async def impatient(
    serving: Serving, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunningServer]:
    """A server behind the proxy, whose bounds are those of a test."""
    bounds = {"answer_timeout_s": ANSWER_S, "connect_timeout_s": ANSWER_S, "pool_timeout_s": ANSWER_S}
    monkeypatch.setattr(Primary.__init__, "__kwdefaults__", (Primary.__init__.__kwdefaults__ or {}) | bounds)
    monkeypatch.setattr(readiness, "CHECK_TIMEOUT_S", ANSWER_S / 2)
    async with serving(database_url=proxy.url, primary_probe_interval_s=PROBE_S) as server:
        yield server
        await proxy.resume()


@pytest.mark.parametrize("fault", ["stall", "deafen", "cut"])
async def test_a_dead_link_hangs_no_request_and_all_recovers_when_it_lives(
    impatient: RunningServer, proxy: PostgresProxy, fault: str
) -> None:
    alice, stranger = impatient.client("alice"), impatient.client("stranger")
    await save(alice)
    await alice.post("/api/sync")
    match fault:
        case "stall":
            proxy.stall()
        case "deafen":
            await proxy.deafen()
        case _:
            await proxy.cut()
    bound_s = 2 * ANSWER_S + 1 + QUICK_S  # for a connection, for an answer from it, and for breaking it off

    async def write(method: str, path: str, body: object) -> None:
        answer = await quickly(alice.request(method, path, json=body), bound_s)
        assert_problem(answer, 503, "primary_unavailable")

    async def build() -> None:
        assert_problem(await quickly(stranger.get("/api/images"), bound_s), 503, "primary_unavailable")

    async def read() -> None:
        for _ in range(20):
            answer = await quickly(alice.get("/api/images"))
            assert (answer.status_code, len(answer.json()["images"])) == (200, 1)
            await asyncio.sleep(0.05)

    await asyncio.gather(*(write(*one) for one in WRITES), build(), read())
    assert (await quickly(alice.get("/api/images"))).headers["x-replica-stale"] == "true"
    ready = await quickly(alice.get("/health/ready"), ANSWER_S + QUICK_S)
    assert (ready.status_code, ready.json()["checks"]["primary"]["ok"]) == (503, False)
    assert (await quickly(alice.get("/health/live"))).status_code == 200

    await proxy.resume()
    await eventually(lambda: readies(alice))
    saved = await save(alice, prompt="after it")
    assert "after it" in await prompts(alice, **{"X-Min-Version": saved["version"]})
    # What was refused may have been written, for its commit can have been under way; what was read is all there is.
    assert len(await prompts(stranger)) == 0


async def test_a_stop_is_not_held_up_by_a_dead_link(
    serving: Serving, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(database_url=proxy.url, primary_probe_interval_s=PROBE_S) as server:
        alice = server.client("alice")
        await save(alice)
        assert len(await prompts(alice)) == 1  # so that the tail looks, and is in the middle of it
        proxy.stall()
        asking = [
            asyncio.create_task(asked)
            for asked in (
                alice.post("/api/images", json=IMAGE),
                alice.post("/api/sync"),
                server.client("stranger").get("/api/images"),
            )
        ]
        await asyncio.sleep(0.3)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    for each in asking:
        try:
            assert_is_problem(await each)
        except httpx.TransportError:
            pass  # it was broken off, as it may be
    await proxy.resume()
