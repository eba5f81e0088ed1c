"""I7: a write that is asked for again under its Idempotency-Key has the effect of one, on every route that writes."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
import sqlalchemy as sa

from primary.errors import PrimaryBusy
from primary.once import SWEEP_MAX_ROWS, Asked, Given, KeyReused, once, sweep
from primary.postgres import Primary
from primary.write import Write, writing
from tests.conftest import Serving
from tests.support.gallery_writes import ALBUM_ID, IMAGE_ID, WRITES, asked, furnish, path_of
from tests.support.http import IMAGE, assert_problem, contents, execute, save
from tests.support.server import RunningServer

SYNCS = {"POST /api/sync", "POST /api/images/sync"}  # they write nothing that a user owns
KEPT_S = 86_400


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def owned(database_url: str) -> dict[str, Any]:
    """Everything that users own, and at which versions: without the answers that are kept."""
    return {table: digest for table, digest in (await contents(database_url)).items() if "idempotency" not in table}


# ── Every route ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_every_route_that_writes_is_in_the_table_and_takes_a_key(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/schema/openapi.json")).json()["paths"]
    writes = {
        f"{method.upper()} {path}": operation
        for path, methods in paths.items()
        for method, operation in methods.items()
        if method != "get" and f"{method.upper()} {path}" not in SYNCS
    }
    assert writes.keys() == WRITES.keys(), "add the route to tests.support.gallery_writes.WRITES"
    for route, operation in writes.items():
        headers = {one["name"] for one in operation["parameters"] if one["in"] == "header"}
        assert "Idempotency-Key" in headers, f"{route} is not a WriteOperation"


async def test_every_write_that_is_retried_is_done_once_and_answered_alike(
    server: RunningServer, database_url: str
) -> None:
    for route, write in WRITES.items():
        client = server.client(route)
        await furnish(client)
        before = await owned(database_url)
        method, path = path_of(route)
        first = await client.request(method, path, json=write.body, headers=keyed("k"))
        assert first.status_code in {200, 201}, f"{route}: {first.text}"
        after = await owned(database_url)
        assert after != before, f"{route} changed nothing, so this shows nothing"
        again = await client.request(method, path, json=write.body, headers=keyed("k"))
        assert (again.status_code, again.content) == (first.status_code, first.content), route
        assert (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"]) == (None, "true")
        assert await owned(database_url) == after, f"{route} was done twice"


async def test_a_key_of_another_request_is_refused_on_every_route(server: RunningServer, database_url: str) -> None:
    for route, write in WRITES.items():
        client = server.client(route)
        await furnish(client)
        method, path = path_of(route)
        await asked(client, method, path, write.body, **keyed("k"))
        before = await contents(database_url)
        others: list[tuple[str, str, Any]] = [("POST", "/api/images", IMAGE | {"prompt": "another"})]
        others += [(method, path, write.other)] if write.other is not None else []
        for other_method, other_path, body in others:
            answer = await client.request(other_method, other_path, json=body, headers=keyed("k"))
            assert_problem(answer, 422, "idempotency_key_reused", "Idempotency-Key")
        assert await contents(database_url) == before


async def test_the_same_write_many_times_at_once_is_done_once_on_every_route(
    server: RunningServer, database_url: str
) -> None:
    for route, write in WRITES.items():
        client = server.client(route)
        await furnish(client)
        [(before,)] = await execute(database_url, "SELECT version FROM tidepool.head WHERE user_id = %s", route)
        method, path = path_of(route)
        answers = await asyncio.gather(
            *(client.request(method, path, json=write.body, headers=keyed("k")) for _ in range(6))
        )
        assert len({(answer.status_code, answer.content) for answer in answers}) == 1, route
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1, route
        # The version that all were given is the one that there is: nothing came after it.
        [(after,)] = await execute(database_url, "SELECT version FROM tidepool.head WHERE user_id = %s", route)
        assert answers[0].json()["version"].endswith(f".{after}")
        assert after > before


BAD_KEYS: list[bytes] = [b"", b"k" * 256, b"a\tb", b"\xc3\xa9", b"\xff"]


async def test_a_key_that_is_none_is_refused_on_every_route(server: RunningServer, database_url: str) -> None:
    client = server.client("alice")
    await furnish(client)
    before = await contents(database_url)
    for route, write in WRITES.items():
        method, path = path_of(route)
        for key in BAD_KEYS:
            answer = await client.request(method, path, json=write.body, headers=[(b"Idempotency-Key", key)])
            assert_problem(answer, 422, "invalid_request", "Idempotency-Key")
        twice = [("Idempotency-Key", "a"), ("Idempotency-Key", "a")]
        answer = await client.request(method, path, json=write.body, headers=twice)
        assert_problem(answer, 422, "invalid_request", "Idempotency-Key")
    assert await contents(database_url) == before


# ── What a key is ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_key_is_of_one_user(server: RunningServer) -> None:
    for user in ("alice", "bob"):
        answer = await server.client(user).post("/api/images", json=IMAGE | {"prompt": user}, headers=keyed("k"))
        assert (answer.status_code, answer.json()["prompt"]) == (201, user)
        assert "idempotent-replayed" not in answer.headers


@pytest.mark.parametrize("key", ["k", "k" * 255, "a b", "'; DROP TABLE image; --", "%00", '"quoted"'])
async def test_a_key_is_any_printable_text(client: httpx.AsyncClient, key: str) -> None:
    first = await client.post("/api/images", json=IMAGE, headers=keyed(key))
    again = await client.post("/api/images", json=IMAGE, headers=keyed(key))
    assert (first.status_code, first.content) == (again.status_code, again.content)


async def test_a_request_for_another_row_or_another_state_is_another_request(client: httpx.AsyncClient) -> None:
    one, two = (await save(client))["id"], (await save(client))["id"]
    edit = {"prompt": "edited"}
    await asked(client, "PATCH", f"/api/images/{one}", edit, **keyed("k"), **{"If-Match": '"1"'})
    for path, if_match in ((two, '"1"'), (one, '"2"'), (one, None)):
        headers = keyed("k") | ({"If-Match": if_match} if if_match else {})
        answer = await client.patch(f"/api/images/{path}", json=edit, headers=headers)
        assert_problem(answer, 422, "idempotency_key_reused", "Idempotency-Key")


async def test_what_was_refused_may_be_asked_again_under_its_key(client: httpx.AsyncClient) -> None:
    path = f"/api/images/{IMAGE_ID}/favorite"
    assert_problem(await client.put(path, json={"favorite": True}, headers=keyed("k")), 404, "not_found")
    await save(client, id=IMAGE_ID)
    assert (await asked(client, "PUT", path, {"favorite": True}, **keyed("k")))["is_favorite"] is True


async def test_a_retry_is_answered_as_it_was_although_things_have_changed_since(client: httpx.AsyncClient) -> None:
    await furnish(client)
    toggled = await client.post(f"/api/images/{IMAGE_ID}/favorite", headers=keyed("k"))
    await asked(client, "POST", f"/api/images/{IMAGE_ID}/favorite")
    await asked(client, "DELETE", f"/api/images/{IMAGE_ID}")
    again = await client.post(f"/api/images/{IMAGE_ID}/favorite", headers=keyed("k"))
    assert again.content == toggled.content


async def test_a_retry_outlives_the_server(serving: Serving) -> None:
    async with serving() as server:
        first = await server.client("alice").post("/api/images", json=IMAGE, headers=keyed("k"))
    async with serving() as server:
        again = await server.client("alice").post("/api/images", json=IMAGE, headers=keyed("k"))
    assert again.content == first.content


async def test_an_album_that_is_put_in_order_by_two_at_once_has_one_of_the_two_orders(
    client: httpx.AsyncClient,
) -> None:
    await furnish(client)
    _, path = path_of("PUT /api/albums/{album_id}/images")
    ids = [
        place["image_id"]
        for place in (await asked(client, "PUT", path, WRITES["PUT " + path.replace(ALBUM_ID, "{album_id}")].body))[
            "images"
        ]
    ]
    orders = [{"image_ids": ids}, {"image_ids": ids[::-1]}] * 5
    answers = await asyncio.gather(*(client.put(path, json=order) for order in orders))
    assert all(answer.status_code == 200 for answer in answers)
    for answer, order in zip(answers, orders, strict=True):
        assert [place["image_id"] for place in answer.json()["images"]] == order["image_ids"]


# ── The store of answers ────────────────────────────────────────────────────────────────────────────────────────


WAITS = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
SAVE = sa.text("INSERT INTO image (user_id, prompt, image_url) VALUES (:user, 'p', 'u')")


class _Failed(Exception):
    """The work of a write came to nothing."""


class Work:
    """Work that counts how often it was done, in Postgres, where a rollback undoes it."""

    def __init__(self) -> None:
        self.begun = 0
        self.fails = False

    async def __call__(self, write: Write) -> Given:
        self.begun += 1
        await write.execute(SAVE, {"user": write.user})
        if self.fails:
            raise _Failed
        return Given(201, b"done %d" % self.begun)


async def test_an_answer_is_stored_with_its_write_or_not_at_all(primary: Primary, database_url: str) -> None:
    work = Work()
    work.fails = True
    with pytest.raises(_Failed):
        await once(primary, "ada", Asked("k", b"d"), work, kept_s=KEPT_S)
    assert await execute(database_url, "SELECT count(*) FROM tidepool.idempotency") == [(0,)]
    work.fails = False
    assert await once(primary, "ada", Asked("k", b"d"), work, kept_s=KEPT_S) == Given(201, b"done 2")
    assert await once(primary, "ada", Asked("k", b"d"), work, kept_s=KEPT_S) == Given(201, b"done 2", again=True)
    with pytest.raises(KeyReused):
        await once(primary, "ada", Asked("k", b"e"), work, kept_s=KEPT_S)
    assert await execute(database_url, "SELECT count(*) FROM image") == [(1,)]


async def test_a_retry_waits_for_the_first_to_end_and_does_the_work_if_that_failed(
    primary: Primary, database_url: str
) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(write: Write) -> Given:
        begun.set()
        await go_on.wait()
        raise _Failed

    work = Work()
    first = asyncio.create_task(once(primary, "ada", Asked("k", b"d"), slow, kept_s=KEPT_S))
    await begun.wait()
    second = asyncio.create_task(once(primary, "ada", Asked("k", b"d"), work, kept_s=KEPT_S))
    # Another user's write does not wait for them.
    assert (await once(primary, "bob", Asked("k", b"d"), work, kept_s=KEPT_S)).body == b"done 1"
    assert not second.done()
    go_on.set()
    with pytest.raises(_Failed):
        await first
    assert await second == Given(201, b"done 2")


async def test_an_answer_is_forgotten_after_its_time_swept_or_not(primary: Primary, database_url: str) -> None:
    work = Work()
    for _ in range(2):
        await once(primary, "ada", Asked("k", b"d"), work, kept_s=KEPT_S)
    assert work.begun == 1
    await execute(database_url, f"UPDATE tidepool.idempotency SET created_at = now() - interval '{KEPT_S + 1} s'")
    assert (await once(primary, "ada", Asked("k", b"other"), work, kept_s=KEPT_S)).body == b"done 2"
    assert (await once(primary, "ada", Asked("k", b"other"), work, kept_s=KEPT_S)).again


async def test_a_sweep_takes_what_is_old_and_leaves_the_rest(primary: Primary, database_url: str) -> None:
    await execute(
        database_url,
        "INSERT INTO tidepool.idempotency (user_id, key, digest, status, body, created_at) "
        "SELECT 'u', n::text, '', 200, '', now() - n * interval '1 hour' "
        f"FROM generate_series(1, {SWEEP_MAX_ROWS + 99}) n",
    )
    assert await sweep(primary, kept_s=50 * 3600 + 60) == SWEEP_MAX_ROWS + 49
    assert await execute(database_url, "SELECT count(*) FROM tidepool.idempotency") == [(50,)]
    assert await sweep(primary, kept_s=50 * 3600 + 60) == 0


async def test_a_sweep_waits_for_nobody(primary: Primary, database_url: str) -> None:
    await execute(
        database_url,
        "INSERT INTO tidepool.idempotency (user_id, key, digest, status, body, created_at) "
        "SELECT 'u', n::text, '', 200, '', now() - interval '1 hour' FROM generate_series(1, 3) n",
    )
    async with await psycopg.AsyncConnection.connect(database_url) as psql:
        await psql.execute("SELECT 1 FROM tidepool.idempotency WHERE key = '2' FOR UPDATE")
        async with asyncio.timeout(4):
            assert await sweep(primary, kept_s=60) == 2
    assert await sweep(primary, kept_s=60) == 1


async def test_the_server_sweeps_by_itself(
    serving: Serving, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.once.SWEEP_INTERVAL_S", 0.01)
    async with serving(idempotency_kept_s=1) as server:
        await server.client("alice").post("/api/images", json=IMAGE, headers=keyed(str(uuid4())))
        async with asyncio.timeout(20):
            while await execute(database_url, "SELECT 1 FROM tidepool.idempotency"):
                await asyncio.sleep(0.1)


async def test_a_long_transaction_of_psql_is_waited_for_and_never_made_to_fail(
    client: httpx.AsyncClient, database_url: str
) -> None:
    """Two transactions that each hold what the other wants: Postgres ends one, and it could be the operator's."""
    one, two = [(await save(client))["id"] for _ in range(2)]
    edit = "UPDATE image SET alt_text = 'by psql' WHERE user_id = 'alice' AND id = %s"
    async with await psycopg.AsyncConnection.connect(database_url) as psql:
        await psql.execute(edit, (one,))
        click = asyncio.create_task(client.patch(f"/api/images/{two}", json={"description": "by alice"}))
        async with asyncio.timeout(5):
            while not await execute(database_url, WAITS):
                await asyncio.sleep(0.01)
        await psql.execute(edit, (two,))
    answer = await click
    assert answer.status_code == 200, answer.text
    assert (answer.json()["alt_text"], answer.json()["description"]) == ("by psql", "by alice")


async def test_a_write_gives_way_sooner_than_postgres_looks_for_a_deadlock(primary: Primary) -> None:
    settings = "SELECT setting::int FROM pg_settings WHERE name IN ('deadlock_timeout', 'lock_timeout') ORDER BY name"
    async with writing(primary, "ada") as write:
        (theirs,), (ours,) = (await write.execute(sa.text(settings))).rows
    assert 0 < ours < theirs


async def test_a_statement_of_psql_that_has_the_row_first_is_waited_for(
    client: httpx.AsyncClient, database_url: str
) -> None:
    image = (await save(client))["id"]
    async with await psycopg.AsyncConnection.connect(database_url) as psql:
        await psql.execute("SELECT 1 FROM image WHERE user_id = 'alice' FOR UPDATE")
        click = asyncio.create_task(client.put(f"/api/images/{image}/rating", json={"rating": 5}))
        async with asyncio.timeout(5):
            while not await execute(database_url, WAITS):
                await asyncio.sleep(0.01)
        await psql.execute("UPDATE image SET alt_text = 'by psql' WHERE user_id = 'alice'")
    assert (await click).status_code == 200


async def test_who_waits_for_a_turn_in_vain_is_told_to_try_again(database_url: str) -> None:
    primary = Primary(database_url, answer_timeout_s=1)
    await primary.open()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(write: Write) -> Given:
        await write.execute(sa.text("SELECT 1"))  # the turn is taken with the first statement
        begun.set()
        await go_on.wait()
        return Given(200, b"")

    try:
        other = Primary(database_url)
        await other.open()
        first = asyncio.create_task(once(other, "ada", None, slow, kept_s=KEPT_S))
        await begun.wait()
        with pytest.raises(PrimaryBusy):
            await once(primary, "ada", Asked("k", b"d"), Work(), kept_s=KEPT_S)
        assert primary.reachable, "a user's long queue is no outage"
        go_on.set()
        await first
        await other.close()
    finally:
        await primary.close()


async def test_one_user_who_writes_much_at_once_leaves_connections_to_others(database_url: str) -> None:
    primary = Primary(database_url, pool_max=4)
    await primary.open()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(write: Write) -> Given:
        await write.execute(sa.text("SELECT 1"))  # the turn is taken with the first statement
        begun.set()
        await go_on.wait()
        return Given(200, b"")

    try:
        held_up = asyncio.create_task(once(primary, "ada", None, slow, kept_s=KEPT_S))
        await begun.wait()
        crowd = [asyncio.create_task(once(primary, "ada", None, Work(), kept_s=KEPT_S)) for _ in range(12)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(2):  # less than a connection is waited for
            await once(primary, "bob", None, Work(), kept_s=KEPT_S)
        assert not any(task.done() for task in crowd)
        go_on.set()
        await asyncio.gather(held_up, *crowd)
    finally:
        await primary.close()
    assert await execute(database_url, "SELECT count(*) FROM image") == [(13,)]
