"""I3 over HTTP: who hands back a version never reads an older state; who does not reads what there is now."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import Serving
from tests.support.http import (
    IMAGE,
    assert_problem,
    execute,
    metric,
    prompts,
    save,
    until_followed,
    until_metric,
    until_prompts,
)
from tests.support.proxy import PostgresProxy
from tests.support.server import RunningServer

READS = ["/api/images", "/api/images/{id}", "/api/me"]

INSERT = "INSERT INTO image (user_id, prompt, image_url) VALUES (%s, %s, 'u') RETURNING id::text"


def ahead_of(version: str, by: int = 1) -> str:
    epoch, _, number = version.rpartition(".")
    return f"{epoch}.{int(number) + by}"


# ── Without a version: as of now ────────────────────────────────────────────────────────────────────────────────


async def test_a_write_from_psql_is_seen_without_a_sync(client: httpx.AsyncClient, database_url: str) -> None:
    await execute(database_url, INSERT, "alice", "from the beginning")
    assert await prompts(client) == ["from the beginning"]  # who was not seen before gets all there is
    await until_followed(client)
    await execute(database_url, INSERT, "alice", "from psql")
    await until_prompts(client, ["from the beginning", "from psql"])
    version = (await client.get("/api/images")).headers["x-replica-version"]
    for path in ("/api/sync", "/api/images/sync"):  # which had nothing to do any more
        assert (await client.post(path)).json() == {"version": version, "applied": 0, "rebuilt": False}


async def test_a_read_of_who_was_not_read_for_long_looks_first(serving: Serving, database_url: str) -> None:
    async with serving(follow_idle_s=0) as server:
        client = server.client("alice")
        assert await prompts(client) == []
        await until_metric(client, "tidepool_followed_users", 0)
        await execute(database_url, INSERT, "alice", "meanwhile")
        assert await prompts(client) == ["meanwhile"], "no tail could have told of it"


async def test_what_is_brought_for_one_user_is_theirs_alone(server: RunningServer, database_url: str) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    assert await prompts(alice) == await prompts(bob) == []
    await execute(database_url, INSERT, "alice", "alice's")
    await execute(database_url, INSERT, "bob", "bob's")
    await until_prompts(alice, ["alice's"])
    await until_prompts(bob, ["bob's"])


async def test_a_read_of_who_is_followed_costs_the_primary_nothing(serving: Serving, proxy: PostgresProxy) -> None:
    async with serving(database_url=proxy.url, primary_probe_interval_s=3_600) as server:
        client = server.client("alice")
        saved = await save(client)
        version = (await client.post("/api/sync")).json()["version"]
        await until_followed(client)
        names = ("tidepool_syncs_total", "tidepool_tail_looks_total")
        syncs, looks = [await metric(client, name) for name in names]
        asked = proxy.round_trips
        for path in READS:
            for headers in ({}, {"X-Min-Version": version}, {"If-None-Match": '"x"'}, {"If-None-Match": "*"}):
                answer = await client.get(path.replace("{id}", saved["id"]), headers=headers)
                assert answer.status_code in {200, 304}
                assert "x-replica-stale" not in answer.headers
        asked = proxy.round_trips - asked
        assert await metric(client, "tidepool_syncs_total") == syncs
        looks = await metric(client, "tidepool_tail_looks_total") - looks
        assert asked <= looks + 1, "the tail's looks are all that it was asked for"


# ── With a version: that state or a later one ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("by", ["header", "parameter", "sync"])
async def test_who_hands_back_the_version_of_a_write_reads_it(client: httpx.AsyncClient, by: str) -> None:
    assert await prompts(client) == []
    saved = await save(client)
    match by:
        case "header":
            answer = await client.get("/api/images", headers={"X-Min-Version": saved["version"]})
        case "parameter":
            answer = await client.get("/api/images", params={"min_version": saved["version"]})
        case _:
            synced = await client.post("/api/sync", json={"min_version": saved["version"]})
            assert synced.json()["version"] == saved["version"]
            answer = await client.get("/api/images")
    assert [image["id"] for image in answer.json()["images"]] == [saved["id"]]
    assert answer.headers["x-replica-version"] == answer.json()["version"] == saved["version"]


async def test_every_read_of_a_write_that_many_make_at_once_has_it(server: RunningServer) -> None:
    async def writer(n: int) -> None:
        client = server.client(f"user {n % 3}")
        for step in range(6):
            saved = await save(client, prompt=f"{n}.{step}")
            at_least = {"X-Min-Version": saved["version"]}
            assert f"{n}.{step}" in await prompts(client, **at_least)
            path = f"/api/images/{saved['id']}"
            edited = (await client.patch(path, json={"prompt": f"{n}.{step} edited"})).json()
            one = await client.get(path, params={"include": ""}, headers={"X-Min-Version": edited["version"]})
            assert one.json() | {"version": ""} == edited | {"version": ""}
            if step % 2:
                gone = (await client.delete(path)).json()
                assert_problem(await client.get(path, headers={"X-Min-Version": gone["version"]}), 404, "not_found")

    await asyncio.gather(*(writer(n) for n in range(8)))


async def test_no_later_answer_is_older_than_an_earlier_one(server: RunningServer, database_url: str) -> None:
    """The versions that one client reads, at any number of requests at once and syncs in between, never go back."""
    client = server.client("alice")
    done = asyncio.Event()

    async def write() -> None:
        for n in range(40):
            await execute(database_url, INSERT, "alice", f"{n}")
            await client.post("/api/sync")
        done.set()

    async def read() -> None:
        seen = 0
        while not done.is_set():
            answer = await client.get("/api/images?limit=500")
            version = int(answer.headers["x-replica-version"].rpartition(".")[2])
            assert len(answer.json()["images"]) == version  # one statement each: exactly the rows of its version
            assert version >= seen
            seen = version

    await asyncio.gather(write(), *(read() for _ in range(4)))


async def test_a_version_that_comes_while_it_is_waited_for_is_served(
    client: httpx.AsyncClient, database_url: str
) -> None:
    version = (await client.get("/api/images")).headers["x-replica-version"]
    waiting = asyncio.create_task(client.get("/api/images", headers={"X-Min-Version": ahead_of(version)}))
    await asyncio.sleep(0.2)
    assert not waiting.done()
    await execute(database_url, INSERT, "alice", "at last")
    answer = await waiting
    assert answer.status_code == 200
    assert [image["prompt"] for image in answer.json()["images"]] == ["at last"]


@pytest.mark.parametrize("path", [*READS, "/api/sync"])
async def test_a_version_of_the_future_is_504_within_its_bound(serving: Serving, path: str) -> None:
    async with serving(min_version_wait_ms=300) as server:
        client = server.client("alice")
        saved = await save(client)
        future = ahead_of(saved["version"], 5)

        async def ask() -> httpx.Response:
            if path == "/api/sync":
                return await client.post(path, json={"min_version": future})
            return await client.get(path.replace("{id}", saved["id"]), headers={"X-Min-Version": future})

        begun = time.monotonic()
        waiting = asyncio.create_task(ask())
        await asyncio.sleep(0.1)
        assert await prompts(client) == [IMAGE["prompt"]], "who does not ask for it does not wait"
        answer = await waiting
        took_s = time.monotonic() - begun
        assert_problem(answer, 504, "version_not_reached")
        assert future in answer.json()["detail"]
        assert 0.3 <= took_s < 1.5
        # What there is by then can be read.
        assert (await client.get("/api/images", headers={"X-Min-Version": saved["version"]})).status_code == 200


@pytest.mark.parametrize("path", [*READS, "/api/sync"])
async def test_a_version_of_another_primary_is_409_at_once(client: httpx.AsyncClient, path: str) -> None:
    saved = await save(client)
    system, _, rest = saved["version"].partition("-")
    promoted = f"{system}-2{rest[1:]}"  # of the timeline after ours, with our own version number
    for foreign in (promoted, "a-b-c-d.1"):
        begun = time.monotonic()
        if path == "/api/sync":
            answer = await client.post(path, json={"min_version": foreign})
        else:
            answer = await client.get(path.replace("{id}", saved["id"]), headers={"X-Min-Version": foreign})
        assert_problem(answer, 409, "cursor_epoch_changed")
        assert "hint" in answer.json()
        assert time.monotonic() - begun < 1


# ── What a client has need not be sent again ────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", READS)
async def test_an_etag_stands_for_one_state_and_is_answered_304(client: httpx.AsyncClient, path: str) -> None:
    saved = await save(client)
    path = path.replace("{id}", saved["id"])
    first = await client.get(path)
    version, etag = first.headers["x-replica-version"], first.headers["etag"]
    assert version == saved["version"] == first.json()["version"]
    for tag in (etag, f"W/{etag}", f'"a", {etag}', f'W/"a",W/{etag} , "b"', f'"a",{etag}'):
        same = await client.get(path, headers={"If-None-Match": tag})
        assert (same.status_code, same.content) == (304, b""), tag
        assert (same.headers["etag"], same.headers["x-replica-version"]) == (etag, version)
        assert "content-length" not in same.headers or same.headers["content-length"] == "0"
    in_two_lines = await client.get(path, headers=[("If-None-Match", '"a"'), ("If-None-Match", etag)])
    assert in_two_lines.status_code == 304
    for tag in ('"a"', etag.strip('"'), etag[:-2] + '"', etag.upper(), "W/", ""):
        answer = await client.get(path, headers={"If-None-Match": tag})
        assert (answer.status_code, answer.content) == (200, first.content), tag

    edited = (await client.patch(f"/api/images/{saved['id']}", json={"prompt": "edited"})).json()
    later = await client.get(path, headers={"If-None-Match": etag, "X-Min-Version": edited["version"]})
    assert later.status_code == 200
    assert later.headers["etag"] != etag
    assert later.content != first.content


async def test_a_star_matches_what_is_there_whatever_it_is(client: httpx.AsyncClient) -> None:
    for path in ("/api/images", "/api/me"):
        assert (await client.get(path, headers={"If-None-Match": "*"})).status_code == 304


async def test_a_304_is_given_only_of_the_state_that_was_asked_for(client: httpx.AsyncClient) -> None:
    first = await client.get("/api/images")
    saved = await save(client)
    both = {"If-None-Match": first.headers["etag"], "X-Min-Version": saved["version"]}
    answer = await client.get("/api/images", headers=both)
    assert (answer.status_code, len(answer.json()["images"])) == (200, 1)


async def test_the_etag_outlives_a_restart_and_a_rebuild(serving: Serving) -> None:
    """They stand for a state of the primary, not for a file: the same state may be said to be unchanged."""
    async with serving() as server:
        client = server.client("alice")
        await save(client)
        etag = (await client.get("/api/images")).headers["etag"]
    async with serving() as server:
        client = server.client("alice")
        assert (await client.get("/api/images", headers={"If-None-Match": etag})).status_code == 304


# ── Pages hold still while rows come and go ─────────────────────────────────────────────────────────────────────

# Few moments for many rows: the id has to tell them apart.
MOMENTS = [f"2024-01-01T00:00:0{second}Z" for second in range(4)]


async def walk(client: httpx.AsyncClient, limit: int) -> AsyncIterator[list[dict[str, Any]]]:
    """Follow the pages from the first to the last."""
    cursor: str | None = None
    while True:
        asked = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        answer = await client.get("/api/images", params=asked)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["images"]) <= limit
        yield page["images"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def in_order(images: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(images, key=lambda image: (image["created_at"], image["id"]), reverse=True)


def assert_whole(walked: list[dict[str, Any]], throughout: set[str]) -> None:
    """Check that no image came twice, all came in order, and those that were there all along came all."""
    ids = [image["id"] for image in walked]
    assert len(set(ids)) == len(ids), "an image came twice"
    assert walked == in_order(walked), "the order is broken"
    assert throughout <= set(ids), "an image that was there all along did not come"


STEPS = st.lists(
    st.tuples(st.sampled_from(["insert", "delete", "edit"]), st.integers(0, 3), st.integers(1, 3)), max_size=4
)
names = itertools.count()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(0, 14), limit=st.integers(1, 5), between=st.lists(STEPS, max_size=8), seed=st.integers(0, 999))
async def test_a_walk_through_all_pages_gives_what_was_there_all_along_once_and_in_order(
    server: RunningServer, database_url: str, rows: int, limit: int, between: list[Any], seed: int
) -> None:
    chance = random.Random(seed)
    user = f"walker {next(names)}"
    client = server.client(user)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as psql:

        async def insert(moment: str, count: int) -> set[str]:
            found = await psql.execute(
                "INSERT INTO image (user_id, prompt, image_url, created_at) "
                "SELECT %s, 'p', 'u', %s FROM generate_series(1, %s) RETURNING id::text",
                [user, moment, count],
            )
            return {id_ for (id_,) in await found.fetchall()}

        all_along = set().union(*[await insert(chance.choice(MOMENTS), 1) for _ in range(rows)])
        await client.post("/api/sync")
        walked: list[dict[str, Any]] = []
        schedule = iter(between)
        async for page in walk(client, limit):
            walked += page
            for what, moment, count in next(schedule, []):
                match what:
                    case "insert":
                        await insert(MOMENTS[moment], count)
                    case "delete":
                        # The image that the next page begins after may be among them.
                        gone = [image["id"] for image in page[-count:]] + chance.sample(
                            sorted(all_along), min(count, len(all_along))
                        )
                        await psql.execute(
                            "DELETE FROM image WHERE user_id = %s AND id = ANY(%s::uuid[])", [user, gone]
                        )
                        all_along -= set(gone) - {image["id"] for image in walked}
                    case _:
                        await psql.execute(
                            "UPDATE image SET prompt = prompt || '!' WHERE user_id = %s AND created_at = %s",
                            [user, MOMENTS[moment]],
                        )
            await client.post("/api/sync")
        assert_whole(walked, all_along)


async def test_walks_hold_while_others_write_and_sync_all_the_while(server: RunningServer, database_url: str) -> None:
    client = server.client("alice")
    stay = await execute(
        database_url,
        "INSERT INTO image (user_id, prompt, image_url, created_at) SELECT 'alice', 'stays', 'u', "
        "timestamptz '2024-01-01' + (i / 5) * interval '1 second' FROM generate_series(1, 300) AS i RETURNING id::text",
    )
    throughout = {id_ for (id_,) in stay}
    await client.post("/api/sync")
    done = asyncio.Event()

    async def disturb(seed: int) -> None:
        chance = random.Random(seed)
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as psql:
            while not done.is_set():
                at = f"2024-01-01 00:00:{chance.randrange(60):02}+00"
                await psql.execute(
                    "INSERT INTO image (user_id, prompt, image_url, created_at) VALUES ('alice', 'passes', 'u', %s)",
                    [at],
                )
                await psql.execute(
                    "DELETE FROM image WHERE user_id = 'alice' AND prompt = 'passes' AND created_at <> %s", [at]
                )
                await client.post("/api/sync")

    async def walker(limit: int) -> None:
        for _ in range(3):
            assert_whole([image async for page in walk(client, limit) for image in page], throughout)

    disturbing = [asyncio.create_task(disturb(seed)) for seed in range(2)]
    try:
        await asyncio.gather(*(walker(limit) for limit in (7, 20, 41)))
    finally:
        done.set()
        await asyncio.gather(*disturbing)
