"""Following: what is read keeps itself current, whoever wrote; what cannot be vouched for is not served as current."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from primary.cursor import Cursor
from primary.feed import Feed
from primary.postgres import Primary
from primary.postgres_tail import PostgresTail
from primary.write import writing
from replica.follower import Follower
from replica.location import DataDirectory
from replica.results import FollowLimits, StoreLimits, SyncResult
from replica.store import Store
from tests.conftest import Serving
from tests.support.bay import Bay, opened
from tests.support.http import execute, metric, prompts, save, until_followed, until_metric, until_prompts
from tests.support.proxy import PostgresProxy
from tests.support.replicas import grow_all, touch_all
from tests.support.server import RunningServer, ServerProcess
from tests.support.sse import listening

INSERT = "INSERT INTO image (user_id, prompt, image_url) VALUES (%s, %s, 'u')"
SILENCE_MAX_S = FollowLimits().silence_max_s


async def stale(client: httpx.AsyncClient) -> bool:
    return (await client.get("/api/images?limit=1")).headers.get("x-replica-stale") == "true"


async def until_fresh(client: httpx.AsyncClient, within_s: float = 6) -> None:
    async with asyncio.timeout(within_s):
        while await stale(client):
            await asyncio.sleep(0.02)


# ── Over HTTP ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_write_through_this_node_is_in_the_next_read_without_being_asked_for(
    client: httpx.AsyncClient,
) -> None:
    assert await prompts(client) == []
    await until_followed(client)
    for n in range(5):
        await save(client, prompt=f"{n}")
        assert sorted(await prompts(client)) == [f"{m}" for m in range(n + 1)]
    assert await metric(client, "tidepool_rebuilds_total") == 1


async def test_a_burst_of_writes_is_followed_to_its_end_and_in_fewer_syncs(
    client: httpx.AsyncClient, database_url: str
) -> None:
    assert await prompts(client) == []
    await until_followed(client)
    before = await metric(client, "tidepool_syncs_total")

    async def write(n: int) -> None:
        for m in range(20):
            await execute(database_url, INSERT, "alice", f"{n}.{m}")

    await asyncio.gather(*(write(n) for n in range(5)))
    await until_prompts(client, [f"{n}.{m}" for n in range(5) for m in range(20)])
    assert await metric(client, "tidepool_syncs_total") - before <= 100


@pytest.mark.parametrize("fault", ["cut", "stall"])
async def test_a_tail_that_stops_makes_reads_say_so_and_they_recover_by_themselves(
    serving: Serving, proxy: PostgresProxy, database_url: str, fault: str
) -> None:
    """Whatever breaks the line between node and primary: no read is served as current that is not."""
    async with serving(database_url=proxy.url, primary_probe_interval_s=0.2) as server, AsyncExitStack() as stack:
        client = server.client("alice")
        await save(client, prompt="before")
        await until_followed(client)
        stream = await stack.enter_async_context(listening(client))
        await stream.next()
        if fault == "stall":
            proxy.stall()
        else:
            await proxy.cut()
        broken_at = time.monotonic()
        await execute(database_url, INSERT, "alice", "meanwhile")
        written_at = time.monotonic()
        while (now := time.monotonic()) < broken_at + 2 * SILENCE_MAX_S + 0.3:
            answer = await client.get("/api/images")
            assert answer.status_code == 200
            assert time.monotonic() - now < 1.2, "a read does not wait for a primary that is away"
            assert len(answer.json()["images"]) == 1
            if now - written_at > 2 * SILENCE_MAX_S:
                assert answer.headers["x-replica-stale"] == "true"
            await asyncio.sleep(0.02)
        assert await metric(client, "tidepool_tail_silent_seconds") > 1
        await proxy.resume()
        event = await stream.next(within_s=8)
        assert event.name == "version", "who listened was told, though nobody read"
        await until_fresh(client)
        assert sorted(await prompts(client)) == ["before", "meanwhile"]
        await until_followed(client)
        assert await metric(client, "tidepool_tail_silent_seconds") < 1


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """When it is set, no look of a tail comes to its end any more."""
    hangs = asyncio.Event()
    poll = PostgresTail.poll

    async def hanging(self: PostgresTail) -> Any:
        if hangs.is_set():
            await asyncio.Event().wait()
        return await poll(self)

    monkeypatch.setattr(PostgresTail, "poll", hanging)
    return hangs


async def test_a_write_through_this_node_is_told_without_the_tail(hangs: asyncio.Event, serving: Serving) -> None:
    async with serving() as server:
        client = server.client("alice")
        async with listening(client) as stream:
            await stream.next()
            await until_followed(client)
            hangs.set()
            for _ in range(3):
                saved = await save(client)
                assert (await stream.next(within_s=2)).id == saved["version"]


async def test_a_read_looks_first_where_only_the_tail_is_lost(
    hangs: asyncio.Event, serving: Serving, database_url: str
) -> None:
    async with serving() as server:
        client = server.client("alice")
        assert await prompts(client) == []
        await until_followed(client)
        hangs.set()
        await asyncio.sleep(SILENCE_MAX_S + 0.1)
        for n in range(3):
            await execute(database_url, INSERT, "alice", f"{n}")
            assert len(await prompts(client)) == n + 1, "at once"
            assert not await stale(client)


async def test_a_node_that_was_stopped_for_a_while_serves_nothing_old_as_current(
    server_process: ServerProcess, database_url: str
) -> None:
    """SIGSTOP, a write meanwhile, SIGCONT: the requests that wait at the door come before the tail has said a word."""
    await server_process.start()
    clients = [server_process.client("alice") for _ in range(4)]
    async with AsyncExitStack() as stack:
        for client in clients:
            await stack.enter_async_context(client)
            assert await prompts(client) == []
        await until_followed(clients[0])
        for n in range(1, 3):
            os.kill(server_process.pid, signal.SIGSTOP)
            await execute(database_url, INSERT, "alice", f"{n}")
            reading = [asyncio.create_task(client.get("/api/images")) for client in clients]
            await asyncio.sleep(SILENCE_MAX_S + 0.2)
            os.kill(server_process.pid, signal.SIGCONT)
            for answer in await asyncio.gather(*reading):
                assert answer.status_code == 200
                assert len(answer.json()["images"]) == n or answer.headers["x-replica-stale"] == "true"
            await until_prompts(clients[0], [f"{m + 1}" for m in range(n)])
            await until_fresh(clients[0])


async def test_who_is_not_read_for_long_is_let_go_and_with_the_last_the_primary_is_left_alone(
    serving: Serving, proxy: PostgresProxy
) -> None:
    others = {"primary_probe_interval_s": 3_600, "mirror_poll_interval_s": 3_600}  # who ask for reasons of their own
    async with serving(database_url=proxy.url, follow_idle_s=0.2, **others) as server:
        alice, watcher = server.client("alice"), server.client(None)
        await save(alice)
        await alice.get("/api/images")
        assert await metric(watcher, "tidepool_followed_users") == 1
        await until_metric(watcher, "tidepool_followed_users", 0)
        looks, asked = await metric(watcher, "tidepool_tail_looks_total"), proxy.round_trips
        await asyncio.sleep(0.5)
        assert (await metric(watcher, "tidepool_tail_looks_total"), proxy.round_trips) == (looks, asked)
        async with listening(alice) as stream:  # who listens is not let go, though nobody reads
            await stream.next()
            await asyncio.sleep(1.5)
            assert await metric(watcher, "tidepool_followed_users") == 1
            saved = await save(alice)
            await stream.until(saved["version"])


# ── Many users ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def bay(primary: Primary, catalog: Any, feed: Feed) -> AsyncIterator[Bay]:
    async with opened(primary, catalog, feed, StoreLimits(replica_open_max=16)) as made:
        yield made


class Quiet:
    """Replicas of many users that are there, as the feed would have them: each sync is counted, and a query each."""

    def __init__(self, epoch: str) -> None:
        self.at = Cursor(epoch, 1)
        self.syncs = 0

    async def cursor(self, user: str) -> Cursor:
        return self.at

    async def sync(self, user: str, *, at_least: Cursor | None = None) -> SyncResult:
        self.syncs += 1
        return SyncResult(self.at, 0, False)


class Noted:
    """A store, with a note of each sync that it was asked for."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.asked: list[str] = []

    async def cursor(self, user: str) -> Cursor:
        return await self._store.cursor(user)

    async def sync(self, user: str, *, at_least: Cursor | None = None) -> SyncResult:
        self.asked.append(user)
        return await self._store.sync(user, at_least=at_least)


async def test_two_thousand_followed_users_cost_one_look_and_no_query_each(
    proxy: PostgresProxy, database_url: str
) -> None:
    users = [f"user {n}" for n in range(2_000)]
    primary = Primary(proxy.url)
    await primary.open()
    try:
        await grow_all(primary, users, 1)
        async with writing(primary, "user 0") as write:
            quiet = Quiet((await write.cursor()).epoch)
        limits = FollowLimits(look_idle_s=0.02, silence_max_s=30)  # a machine that is busy is not silent
        follower = Follower(quiet, PostgresTail(primary), limits, lambda: False)
        async with follower.running():
            follower.serves(users[0])
            await settled(lambda: follower.counts().looks > 0)
            for user in users:
                follower.serves(user)
                await follower.check(user)
            await settled(lambda: quiet.syncs >= len(users))
            assert all(follower.serves(user) for user in users)
            syncs, looks, asked = quiet.syncs, follower.counts().looks, proxy.round_trips
            await settled(lambda: follower.counts().looks >= looks + 20)
            assert all(follower.serves(user) for user in users)
            assert quiet.syncs == syncs
            assert proxy.round_trips - asked <= follower.counts().looks - looks + 1
            await execute(database_url, "UPDATE image SET prompt = 'moved' WHERE user_id IN ('user 7', 'user 1999')")
            await settled(lambda: quiet.syncs > syncs)
            await asyncio.sleep(0.1)
            assert quiet.syncs == syncs + 2
    finally:
        await primary.close()


async def settled(what: Callable[[], bool], within_s: float = 10) -> None:
    async with asyncio.timeout(within_s):
        while not what():
            await asyncio.sleep(0.005)


async def test_after_an_outage_two_hundred_users_who_moved_are_synced_a_few_at_a_time_and_who_listens_first(
    bay: Bay, primary: Primary, proxy: PostgresProxy
) -> None:
    users = [f"user {n:03}" for n in range(200)]
    await grow_all(primary, users, 1)
    limits = FollowLimits(follow_concurrency=3)
    seen = Primary(proxy.url)
    await seen.open()
    store = Noted(bay.store)
    follower = Follower(store, PostgresTail(seen, answer_timeout_s=1), limits, lambda: False)

    async def join(user: str) -> None:
        while not follower.serves(user):
            await follower.check(user)
            await asyncio.sleep(0.01)

    try:
        async with follower.running():
            with follower.stream(users[150]), follower.stream(users[199]):
                await settled(lambda: follower.serves(users[150]) and follower.serves(users[199]))
                await asyncio.gather(*(join(user) for user in users))  # each by its check, for the tail has looked
                await proxy.cut()
                await settled(lambda: not follower.serves(users[0]))
                await touch_all(primary, users)
                store.asked.clear()
                bay.feed.most_at_once = 0
                await proxy.resume()
                await settled(lambda: {*store.asked} == {*users}, 20)
                assert {*store.asked[:2]} == {users[150], users[199]}
                await settled(lambda: all(follower.serves(user) for user in users))
                assert bay.feed.most_at_once <= limits.follow_concurrency
    finally:
        await seen.close()
    await bay.assert_same(users[0], users[150], users[199])


async def test_who_listens_to_a_replica_that_is_lost_and_rebuilt_is_told_right(server: RunningServer) -> None:
    """Rebuilt at the same state, nothing is told; changes that the new file does not know of are a reset."""
    client = server.client("alice")
    file = DataDirectory(server.settings.data_dir).of("alice").database
    await save(client, prompt="one")
    async with listening(client, changes="true") as stream, listening(client) as plain:
        assert {(await stream.next()).name, (await plain.next()).name} == {"version"}
        file.unlink()
        assert await prompts(client) == ["one"]
        saved = await save(client, prompt="two")
        told = await stream.until(saved["version"])
        assert [change["row"]["prompt"] for event in told for change in event.data["changes"]] == ["two"]
        file.unlink()
        saved = await save(client, prompt="three")
        event = await stream.next()
        assert (event.name, event.id) == ("reset", saved["version"])
        assert sorted(await prompts(client)) == ["one", "three", "two"]
        saved = await save(client, prompt="four")
        assert [event.name for event in await stream.until(saved["version"])] == ["changes"]
        assert {event.name for event in await plain.until(saved["version"])} == {"version"}
    assert await metric(client, "tidepool_doubts_total") == 2
