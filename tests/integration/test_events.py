"""Event streams: who listens is told of each advance, can go on where they were, and costs what a bound says."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
import tracemalloc
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from gateway.events.stream import _event
from tests.conftest import Serving
from tests.support.http import assert_problem, deaf, execute, metric, save, until_metric
from tests.support.raw import talk
from tests.support.server import RunningServer, client_of, token
from tests.support.sse import Event, Stream, listening

STREAMS = "tidepool_event_streams"
INSERT = "INSERT INTO image (user_id, prompt, image_url) VALUES (%s, %s, 'u')"
BIG = (
    "INSERT INTO image (user_id, prompt, image_url, meta) SELECT 'alice', 'p', 'u', "
    "jsonb_build_object('pad', repeat(md5(random()::text), 900)) FROM generate_series(1, 40) AS i"
)
MANY = "INSERT INTO image (user_id, prompt, image_url) SELECT %s, 'of many ' || i, 'u' FROM generate_series(1, %s) AS i"


def number(version: str) -> int:
    return int(version.rpartition(".")[2])


def earlier(version: str, by: int = 1) -> str:
    return f"{version.rpartition('.')[0]}.{number(version) - by}"


async def current(client: httpx.AsyncClient) -> str:
    version: str = (await client.post("/api/sync")).json()["version"]
    return version


# ── What is told ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_tells_where_the_replica_is_and_then_of_each_advance(
    client: httpx.AsyncClient, database_url: str
) -> None:
    saved = await save(client)
    async with listening(client) as stream:
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.response.headers["cache-control"] == "no-store"
        assert stream.response.headers["x-accel-buffering"] == "no"
        first = await stream.next()
        assert (first.name, first.id, first.data) == ("version", saved["version"], {"version": saved["version"]})
        for n in range(3):
            if n % 2:
                version = (await save(client))["version"]
            else:
                await execute(database_url, INSERT, "alice", "from psql")
                version = earlier(first.id or "", -1 - n)
            event = await stream.next()
            assert (event.name, event.id, event.data) == ("version", version, {"version": version})
        assert stream.events == []


def of_images(event: Event) -> list[dict[str, Any]]:
    """Give the changes of images, without those of their history, which go along with them."""
    return [change for change in event.data["changes"] if change["table"] == "image"]


@pytest.mark.parametrize("by", ["last_event_id", "since"])
async def test_who_comes_back_with_the_last_id_has_missed_nothing(
    client: httpx.AsyncClient, database_url: str, by: str
) -> None:
    async with listening(client, changes="true") as stream:
        left_at = (await stream.next()).id
    assert left_at is not None
    for n in range(3):
        await execute(database_url, INSERT, "alice", f"missed {n}")
    async with listening(client, changes="true", **{by: left_at}) as stream:
        missed: list[dict[str, Any]] = []
        told = left_at
        while number(told) < number(left_at) + 3:  # once, or not: who is followed is not compared before it is told of
            event = await stream.next()
            assert (event.name, event.data["more"]) == ("changes", False)
            missed += event.data["changes"]
            told = event.id or ""
        assert [change["row"]["prompt"] for change in missed] == [f"missed {n}" for n in range(3)]
        await execute(database_url, "UPDATE image SET prompt = 'again' WHERE prompt = 'missed 1'")
        (edited,) = of_images(await stream.next())
        assert (edited["table"], edited["key"], edited["row"]["prompt"]) == ("image", [edited["row"]["id"]], "again")
        await execute(database_url, "DELETE FROM image WHERE prompt = 'again'")
        (gone,) = of_images(await stream.next())
        assert gone == {"table": "image", "key": edited["key"], "deleted": True}


async def test_the_header_says_more_than_the_parameter_for_only_it_is_renewed(client: httpx.AsyncClient) -> None:
    old = await current(client)
    new = (await save(client))["version"]
    async with listening(client, since=old, last_event_id=new) as stream:
        event = await stream.next()
        assert (event.name, event.id) == ("version", new)


async def test_a_version_is_told_anew_to_who_knows_it(client: httpx.AsyncClient) -> None:
    version = await current(client)
    async with listening(client, last_event_id=version, changes="true") as stream:
        event = await stream.next()
        assert (event.name, event.id) == ("version", version)


@pytest.mark.parametrize("changes", ["true", "false"])
async def test_an_id_that_leads_nowhere_is_answered_by_a_reset(client: httpx.AsyncClient, changes: str) -> None:
    await save(client)
    for since in ("a-b-c-d.1", earlier(await current(client), -5)):
        version = await current(client)
        async with listening(client, changes=changes, since=since) as stream:
            event = await stream.next()
            assert (event.name, event.id, event.data) == ("reset", version, {"version": version})
            later = await save(client)
            event = (await stream.until(later["version"]))[-1]
            assert event.name == ("changes" if changes == "true" else "version")


async def test_who_is_too_far_behind_for_changes_is_told_to_read_everything_again(
    client: httpx.AsyncClient, database_url: str
) -> None:
    await execute(database_url, MANY, "alice", 5)
    built = await current(client)  # a file that was built at this version knows of nothing before it
    async with listening(client, changes="true", since=earlier(built)) as stream:
        event = await stream.next()
        assert (event.name, event.id) == ("reset", built)
        await save(client)
        assert (await stream.next()).name == "changes"
    async with listening(client, since=earlier(built)) as stream:
        assert (await stream.next()).name == "version"  # for which it is not too far


async def test_many_streams_under_many_writers_end_at_their_users_heads_and_tell_of_nobody_else(
    server: RunningServer, database_url: str
) -> None:
    users = [f"user {n}" for n in range(12)]
    async with AsyncExitStack() as stack:
        streams = [
            (user, await stack.enter_async_context(listening(server.client(user), changes="true")))
            for user in users * 2
        ]

        async def write(writer: int) -> None:
            for step in range(8):
                user = users[(writer + step * 7) % len(users)]
                if writer % 2:
                    await save(server.client(user), prompt=f"{user}: {writer}.{step}")
                else:
                    await execute(database_url, INSERT, user, f"{user}: {writer}.{step}")

        await asyncio.gather(*(write(writer) for writer in range(10)))
        for user, stream in streams:
            head = await current(server.client(user))
            events = await stream.until(head)
            assert events[-1].id == head
            seen = [number(event.id) for event in events if event.id is not None]
            assert seen == sorted(set(seen))
            told = [change["row"]["prompt"] for event in events for change in event.data.get("changes", ())]
            assert len(told) == len(set(told)) == number(head) - seen[0]
            assert all(prompt.startswith(f"{user}: ") for prompt in told)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"changes": "perhaps"}, "changes"),
        ({"changes": ""}, "changes"),
        ({"since": "x"}, "since"),
        ({"since": "a-b-c-d.-1"}, "since"),
        ({"user": "bob"}, "user"),
        ({"min_version": "a-b-c-d.1"}, "min_version"),
    ],
)
async def test_what_cannot_be_meant_is_refused_by_name(
    client: httpx.AsyncClient, asked: dict[str, str], field: str
) -> None:
    assert_problem(await client.get("/api/events", params=asked), 422, "invalid_request", field)
    answer = await client.get("/api/events", headers={b"Last-Event-ID": "\U0001f30a".encode()})
    assert_problem(answer, 422, "invalid_request", "Last-Event-ID")
    assert await metric(client, STREAMS) == 0


async def test_a_browsers_own_event_source_is_let_in_by_its_cookie(server: RunningServer) -> None:
    """It can set no header, and sends none of ours. A page of another site sends no cookie (SameSite), and could not
    read the answer if it did: nothing here lets another origin."""
    headers = {"Cookie": f"tidepool_token={token('alice')}", "Accept": "text/event-stream", "Last-Event-ID": ""}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as browser, listening(browser) as stream:
        first = await stream.next()
        saved = await save(server.client("alice"))
        assert [event.id for event in await stream.until(saved["version"])] == [saved["version"]]
        assert first.id != saved["version"]
        assert not [name for name in stream.response.headers if name.startswith("access-control-")]


# ── A copy that is kept right by changes alone ──────────────────────────────────────────────────────────────────

TABLES = ("image", "image_activity", "album", "album_image", "profile", "image_edit")


class Copy:
    """What a client that listens has: each row by its table and key."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, tuple[str, ...]], dict[str, Any]] = {}
        self.at = ""
        self.parts = 0
        self.resets = 0

    def take_in(self, event: Event) -> None:
        self.parts += event.name == "changes"
        self.resets += event.name == "reset"
        for change in event.data.get("changes", ()):
            place = change["table"], tuple(change["key"])
            if change.get("deleted"):
                self.rows.pop(place, None)
            else:
                self.rows[place] = change["row"]
        if event.id is not None:
            self.at = event.id

    def held(self) -> dict[str, Counter[str]]:
        held: dict[str, Counter[str]] = {table: Counter() for table in TABLES}
        for (table, _), row in self.rows.items():
            held.setdefault(table, Counter())[digest(row)] += 1
        return {table: rows for table, rows in held.items() if rows}


def digest(row: dict[str, Any]) -> str:
    return repr(sorted((name, value) for name, value in row.items() if name in {"id", "title", "prompt", "caption"}))


async def truth(database_url: str, user: str) -> dict[str, Counter[str]]:
    """Give the same of Postgres' rows, read with SQL of our own."""
    found: dict[str, Counter[str]] = {}
    for table in TABLES:
        rows = await execute(database_url, f"SELECT to_jsonb(t) FROM {table} AS t WHERE user_id = %s", user)
        if rows:
            found[table] = Counter(digest(row) for (row,) in rows)
    return found


SOME = "SELECT user_id, id FROM image WHERE user_id = 'alice'"
UNBOUND = " UNION ALL ".join(
    f"SELECT image_id FROM {table}" for table in ("image_activity", "album_image", "image_edit")
)
ALBUM = "SELECT id FROM album WHERE user_id = 'alice' LIMIT 1"
STEPS = [
    "INSERT INTO image (user_id, prompt, image_url) VALUES ('alice', 'p' || random(), 'u')",
    "INSERT INTO image (user_id, prompt, image_url) SELECT 'alice', 'many ' || i, 'u' FROM generate_series(1, 40) AS i",
    f"UPDATE image SET prompt = E'line\\r\\nbreak \\u2028 ' || random() WHERE (user_id, id) IN ({SOME} LIMIT 3)",
    f"UPDATE image SET id = gen_random_uuid() WHERE (user_id, id) IN ({SOME} AND id NOT IN ({UNBOUND}) LIMIT 2)",
    f"DELETE FROM image WHERE (user_id, id) IN ({SOME} ORDER BY prompt LIMIT 2)",
    (
        f"INSERT INTO image_activity (user_id, image_id) {SOME} LIMIT 5 ON CONFLICT (user_id, image_id) DO UPDATE SET "
        "view_count = image_activity.view_count + 1"
    ),
    "INSERT INTO album (user_id, title) VALUES ('alice', 't' || random())",
    (
        f"INSERT INTO album_image (user_id, album_id, image_id, caption) SELECT i.user_id, a.id, i.id, 'c' "
        f"FROM ({ALBUM}) AS a, ({SOME} LIMIT 3) AS i ON CONFLICT DO NOTHING"
    ),
    f"DELETE FROM album WHERE user_id = 'alice' AND id IN ({ALBUM})",
    "INSERT INTO profile (user_id, username) VALUES ('alice', 'a') ON CONFLICT (user_id) DO UPDATE SET username = 'b'",
]


async def test_a_copy_that_takes_in_each_change_is_the_primarys_whatever_happens(
    server: RunningServer, database_url: str, client: httpx.AsyncClient
) -> None:
    """Transactions of several statements and tables, deletions, changed keys, a commit of 1,200 rows that comes in
    parts, a lost connection; and in the end each row is the same."""
    copy = Copy()
    rng = random.Random(3)
    started = await current(client)

    async def write(psql: psycopg.AsyncConnection, rounds: int) -> None:
        for _ in range(rounds):
            async with psql.transaction():
                for step in rng.choices(STEPS, k=rng.randint(1, 4)):
                    await psql.execute(step.encode())

    async def take_in(stream: Stream, until: str) -> None:
        while not copy.at or number(copy.at) < number(until):
            copy.take_in(await stream.next())

    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as psql:
        async with listening(client, changes="true", since=started) as stream:
            await asyncio.gather(write(psql, 25), take_in(stream, earlier(started, -8)))
        left_at = copy.at
        await write(psql, 5)
        await execute(database_url, MANY, "alice", 1_200)
        async with listening(client, changes="true", last_event_id=left_at) as stream:
            parts = copy.parts
            await take_in(stream, await current(client))
            assert copy.parts - parts >= 3
            await write(psql, 5)
            await take_in(stream, await current(client))
    assert copy.resets == 0
    assert copy.held() == await truth(database_url, "alice")
    assert sum(copy.held()["image"].values()) > 1_000


async def test_an_id_comes_only_with_what_is_whole(client: httpx.AsyncClient, database_url: str) -> None:
    started = await current(client)
    await execute(database_url, MANY, "alice", 1_200)
    version = await current(client)
    async with listening(client, changes="true", since=started) as stream:
        events = await stream.until(version)
    assert [(event.id, event.data["more"]) for event in events] == [(None, True), (None, True), (version, False)]
    assert sum(len(event.data["changes"]) for event in events) == 1_200


async def test_an_event_ends_where_its_rows_are_large(client: httpx.AsyncClient, database_url: str) -> None:
    started = await current(client)
    await execute(database_url, MANY, "alice", 30)
    await execute(database_url, "UPDATE image SET meta = jsonb_build_object('pad', repeat('x', 100000))")
    version = await current(client)
    async with listening(client, changes="true", since=started) as stream:
        events = await stream.until(version)
    assert sum(len(of_images(event)) for event in events) == 30
    assert all(len(json.dumps(event.data)) < 1_200_000 for event in events)


def test_a_line_break_within_json_does_not_end_what_is_told():
    assert _event(b"changes", None, b"[1,\r\n2,\r3]") == b"event: changes\ndata: [1,  2, 3]\n\n"


# ── The life of a stream ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_stream_without_news_shows_that_it_lives(serving: Serving) -> None:
    async with serving(event_heartbeat_s=0.05) as server, listening(server.client("alice")) as stream:
        await stream.next()
        for _ in range(3):
            await stream.beat()
        assert stream.events == []


async def test_a_stream_ends_at_its_age_as_an_answer_does(serving: Serving) -> None:
    async with serving(event_age_max_s=0.3) as server, listening(server.client("alice")) as stream:
        begun = time.monotonic()
        await stream.next()
        await stream.end()
        assert time.monotonic() - begun >= 0.25
        assert stream.failure is None, "the answer came to its end"
        await until_metric(server.client("alice"), STREAMS, 0)


@pytest.mark.parametrize(("version", "chunked"), [(b"1.0", False), (b"1.1", True)])
async def test_a_client_that_knows_no_chunks_gets_none_and_the_end_of_its_connection(
    serving: Serving, version: bytes, chunked: bool
) -> None:
    ask = b"GET /api/events HTTP/%b\r\nHost: x\r\nAuthorization: Bearer %b\r\nConnection: close\r\n\r\n"
    async with serving(event_age_max_s=0.2) as server:
        answer = await talk(server.url, ask % (version, token("alice").encode()))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert (b"\r\ntransfer-encoding: chunked" in head) is chunked
        assert (b"\r\n" in body) is chunked
        assert body.startswith(b"retry: 1000\n\n") is not chunked
        assert b"\nevent: version\n" in body
        await until_metric(server.client("alice"), STREAMS, 0)


async def test_a_stream_lives_no_longer_than_the_token(server: RunningServer) -> None:
    headers = {"Authorization": f"Bearer {token('alice', ttl_s=1)}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers) as client, listening(client) as stream:
        await stream.next()
        await stream.end(within_s=3)
        assert_problem(await client.get("/api/events"), 401, "token_expired")


async def test_a_stop_ends_each_stream_as_an_answer_does_and_quickly(serving: Serving) -> None:
    async with AsyncExitStack() as stack:
        streams: list[Stream] = []
        async with serving() as server:
            for user in ("alice", "alice", "bob"):
                client = client_of(server.url, user)  # whose connection outlives the server's
                await stack.enter_async_context(client)
                streams.append(await stack.enter_async_context(listening(client)))
                await streams[-1].next()
            begun = time.monotonic()
        assert time.monotonic() - begun < 2.5
        for stream in streams:
            await stream.end(within_s=1)
            assert stream.failure is None, "the answer came to its end"


async def test_one_user_has_no_more_streams_than_the_bound_and_all_together_neither(serving: Serving) -> None:
    async with serving(event_streams_per_user_max=2, event_streams_max=3) as server, AsyncExitStack() as stack:
        alice, bob = server.client("alice"), server.client("bob")
        one = await stack.enter_async_context(listening(alice))
        async with listening(alice):
            refused = await alice.get("/api/events")
            assert_problem(refused, 429, "too_many_event_streams")
            assert "2 event streams" in refused.json()["detail"]
            assert int(refused.headers["retry-after"]) > 0
            async with listening(bob):
                refused = await bob.get("/api/events")
                assert_problem(refused, 429, "too_many_event_streams")
                assert "this server has 3" in refused.json()["detail"]
        await until_metric(alice, STREAMS, 1)
        async with listening(alice) as again:  # a place that was given back can be taken
            await again.next()
            saved = await save(alice)
            for stream in (one, again):
                await stream.until(saved["version"])


async def test_a_client_that_leaves_leaves_nothing_behind(serving: Serving) -> None:
    async with serving(event_heartbeat_s=0.1, follow_idle_s=0) as server:
        watcher = server.client(None)

        async def come_and_go() -> None:
            async with AsyncExitStack() as stack:
                for user in ("alice", "alice", "bob"):
                    client = await stack.enter_async_context(client_of(server.url, user))
                    stream = await stack.enter_async_context(listening(client, changes="true"))
                    await stream.next()
                assert await metric(watcher, STREAMS) == 3
            await until_metric(watcher, STREAMS, 0, within_s=1)
            await until_metric(watcher, "tidepool_followed_users", 0)

        def held() -> tuple[int, int]:
            return len(asyncio.all_tasks()), len([*Path("/proc/self/fd").iterdir()])

        await come_and_go()  # which leaves the two replicas open
        before = held()
        for _ in range(2):
            await come_and_go()
        async with asyncio.timeout(2):  # for connections that are still being closed
            while any(now > then for now, then in zip(held(), before, strict=True)):
                await asyncio.sleep(0.02)


# ── A client that does not read ─────────────────────────────────────────────────────────────────────────────────


async def test_who_never_reads_costs_a_bounded_memory_and_in_the_end_nothing(
    serving: Serving, database_url: str
) -> None:
    """16 commits of 1 MB each, of which not one is read: what is kept is a part of one, and no queue."""
    async with serving(event_stall_max_s=2, event_heartbeat_s=0.5) as server:
        client = server.client("alice")
        await current(client)
        async with deaf(server, "alice", "/api/events?changes=true") as connection:
            await until_metric(client, STREAMS, 1)
            assert _established(connection)
            await execute(database_url, BIG)
            await current(client)
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                for _ in range(15):
                    await execute(database_url, BIG)
                    await client.post("/api/sync")
                grown = tracemalloc.get_traced_memory()[0] - before
            finally:
                tracemalloc.stop()
            assert grown < 6 << 20, f"{grown >> 20} MiB"
            await until_metric(client, STREAMS, 0, within_s=5)
            async with asyncio.timeout(5):
                while _established(connection):
                    await asyncio.sleep(0.01)


def _established(connection: socket.socket) -> bool:
    """Tell whether the server still has its side of a connection."""
    ours, theirs = (f"{name[1]:04X}" for name in (connection.getsockname(), connection.getpeername()))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, *_ = line.split()
        if (local[-4:], remote[-4:], state) == (theirs, ours, "01"):
            return True
    return False


async def test_a_stop_is_not_held_up_by_who_does_not_read(serving: Serving, database_url: str) -> None:
    async with AsyncExitStack() as stack:
        async with serving() as server:
            client = server.client("alice")
            await current(client)
            await stack.enter_async_context(deaf(server, "alice", "/api/events?changes=true"))
            await until_metric(client, STREAMS, 1)
            for _ in range(5):
                await execute(database_url, BIG)
                await current(client)
            begun = time.monotonic()
        assert time.monotonic() - begun < 5


async def test_who_reads_late_is_told_of_the_latest_state_alone(serving: Serving, database_url: str) -> None:
    async with serving() as server:
        client = server.client("alice")
        await current(client)
        async with deaf(server, "alice", "/api/events?changes=true") as connection:
            await until_metric(client, STREAMS, 1)
            pad = "UPDATE image SET meta = jsonb_build_object('pad', repeat('x', 50000)) WHERE user_id = 'alice'"
            await execute(database_url, MANY, "alice", 40)
            for _ in range(30):
                await execute(database_url, pad)
                await current(client)
            last = await current(client)
            received = bytearray()
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(10):
                while f"id: {last}\n".encode() not in received:
                    received += await loop.sock_recv(connection, 1 << 20)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            versions = received.count(b"\nid: ")
            assert versions < 20, "coalesced"
