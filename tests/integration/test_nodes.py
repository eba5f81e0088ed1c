"""Several nodes, each with its own data directory, on one primary: any of them serves any user, and serves right."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from replica.results import FollowLimits
from tests.conftest import Serving
from tests.support.http import execute, prompts, save, until_followed, until_prompts
from tests.support.proxy import PostgresProxy
from tests.support.server import RunningServer, client_of
from tests.support.sse import listening

# A look is at most 100 ms late, and a sync takes a few; on a machine that does much else besides.
VISIBLE_S = 2.0
SILENCE_MAX_S = FollowLimits().silence_max_s


@asynccontextmanager
async def nodes(serving: Serving, data_dir: Path, count: int) -> AsyncIterator[list[RunningServer]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(serving(data_dir=data_dir / f"{n}")) for n in range(count)]


@pytest.mark.parametrize("count", [2, 3])
async def test_what_is_written_on_one_node_is_read_on_every_other(serving: Serving, data_dir: Path, count: int) -> None:
    async with nodes(serving, data_dir, count) as servers:
        clients = [server.client("alice") for server in servers]
        for client in clients:
            assert await prompts(client) == []
            await until_followed(client)
        written: list[str] = []
        for n, client in enumerate(clients * 2):
            saved = await save(client, prompt=f"{n}")
            written.append(f"{n}")
            begun = time.monotonic()
            await asyncio.gather(*(until_prompts(other, written, within_s=VISIBLE_S) for other in clients))
            for other in clients:
                answer = await other.get("/api/images", headers={"X-Min-Version": saved["version"]})
                assert answer.headers["x-replica-version"] == saved["version"]
                assert "x-replica-stale" not in answer.headers
            assert time.monotonic() - begun < VISIBLE_S
        pages = [(await client.get("/api/images")).json() for client in clients]
        assert all(page == pages[0] for page in pages)


async def test_a_node_that_has_never_seen_a_user_serves_what_another_wrote(serving: Serving, data_dir: Path) -> None:
    async with nodes(serving, data_dir, 2) as (one, other):
        for user in ("alice", "bob"):
            await save(one.client(user), prompt=f"of {user}")
        for user in ("bob", "alice"):
            assert await prompts(other.client(user)) == [f"of {user}"]
        assert await prompts(other.client("carol")) == []


async def test_a_stream_on_one_node_tells_of_a_write_on_another(serving: Serving, data_dir: Path) -> None:
    async with nodes(serving, data_dir, 2) as (one, other):
        writer, reader = one.client("alice"), other.client("alice")
        async with listening(reader, changes="true") as stream:
            await stream.next()
            for n in range(3):
                saved = await save(writer, prompt=f"{n}")
                (event,) = await stream.until(saved["version"], within_s=VISIBLE_S)
                assert event.id == saved["version"]
                assert [change["row"]["prompt"] for change in event.data["changes"]] == [f"{n}"]


async def test_what_a_version_promises_holds_on_every_node(serving: Serving, data_dir: Path) -> None:
    """Clients that hand back the last version they saw, at a node of chance each time: never back, own writes seen."""
    async with nodes(serving, data_dir, 3) as servers:

        async def wander(number: int) -> None:
            rng = random.Random(number)
            clients = [server.client(f"user {number % 3}") for server in servers]
            seen = 0
            last = ""
            mine: set[str] = set()
            for step in range(25):
                client = rng.choice(clients)
                if rng.random() < 0.4:
                    last = (await save(client, prompt=f"{number}.{step}"))["version"]
                    mine.add(f"{number}.{step}")
                elif rng.random() < 0.3:
                    body = {"min_version": last} if last else {}
                    last = (await client.post("/api/sync", json=body)).json()["version"]
                else:
                    headers = {"X-Min-Version": last} if last else {}
                    answer = await client.get("/api/images", params={"limit": 500}, headers=headers)
                    assert answer.status_code == 200, answer.text
                    last = answer.headers["x-replica-version"]
                    assert mine <= {image["prompt"] for image in answer.json()["images"]}
                now = int(last.rpartition(".")[2])
                assert now >= seen
                seen = now

        await asyncio.gather(*(wander(number) for number in range(6)))


async def test_who_goes_to_another_node_when_theirs_stops_has_missed_nothing(
    serving: Serving, data_dir: Path, database_url: str
) -> None:
    async with AsyncExitStack() as stack:
        other = await stack.enter_async_context(serving(data_dir=data_dir / "other"))
        assert await prompts(other.client("alice")) == []  # without a file from before, it would have to say: reset
        async with serving(data_dir=data_dir / "one") as one:
            client = await stack.enter_async_context(client_of(one.url, "alice"))
            stream = await stack.enter_async_context(listening(client, changes="true"))
            first = await stream.next()
            saved = await save(other.client("alice"), prompt="first")
            events = await stream.until(saved["version"])
        await stream.end()
        assert stream.failure is None
        await execute(database_url, "INSERT INTO image (user_id, prompt, image_url) VALUES ('alice', 'second', 'u')")
        async with listening(other.client("alice"), changes="true", last_event_id=saved["version"]) as stream:
            events += [await stream.next()]
            told = [change["row"]["prompt"] for event in events for change in event.data["changes"]]
            assert told == ["first", "second"]
        assert first.name == "version"


async def test_a_node_that_is_behind_sends_nobody_back(
    serving: Serving, data_dir: Path, database_url: str, proxy: PostgresProxy
) -> None:
    """Who was further on another node is told nothing while this one's line is dead, and what is new afterwards."""
    behind_it = {"database_url": proxy.url, "primary_probe_interval_s": 0.2, "min_version_wait_ms": 300}
    async with serving(data_dir=data_dir / "near") as near, serving(data_dir=data_dir / "far", **behind_it) as far:
        here, there = near.client("alice"), far.client("alice")
        await save(here, prompt="known to both")
        assert await prompts(there) == ["known to both"]
        await until_followed(there)
        await proxy.cut()
        saved = await save(here, prompt="known to one")
        async with asyncio.timeout(SILENCE_MAX_S + VISIBLE_S):
            while "x-replica-stale" not in (await there.get("/api/images")).headers:
                await asyncio.sleep(0.02)
        refused = await there.get("/api/images", headers={"X-Min-Version": saved["version"]})
        assert refused.status_code == 504
        async with listening(there, changes="true", last_event_id=saved["version"]) as stream:
            await asyncio.sleep(0.3)
            assert stream.events == []
            await proxy.resume()
            later = await save(here, prompt="known to both again")
            (event,) = await stream.until(later["version"])
            assert [change["row"]["prompt"] for change in event.data["changes"]] == ["known to both again"]
