"""Hearts, ratings and counts: no count is lost, none is doubled, and none says other than its history."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest

from tests.support.gallery_writes import IMAGE_ID, OTHER_ID, asked, furnish, reads
from tests.support.http import assert_problem, contents, execute, save
from tests.support.server import RunningServer

PATH = f"/api/images/{IMAGE_ID}"
KINDS = {"view": "views", "o": "o", "usage": "usage"}

# Every total that is not what its history says, whoever wrote it.
DRIFT = """
SELECT a.image_id, a.view_count, a.o_count, a.usage_count, a.last_viewed_at FROM image_activity AS a
LEFT JOIN (
  SELECT user_id, image_id, count(*) FILTER (WHERE kind = 'view') AS views, count(*) FILTER (WHERE kind = 'o') AS os,
    count(*) FILTER (WHERE kind = 'usage') AS usages, max(occurred_at) FILTER (WHERE kind = 'view') AS last
  FROM image_event GROUP BY 1, 2
) AS e USING (user_id, image_id)
WHERE (a.view_count, a.o_count, a.usage_count) <> (coalesce(views, 0), coalesce(os, 0), coalesce(usages, 0))
  OR a.last_viewed_at IS DISTINCT FROM last"""


@pytest.fixture
async def alice(client: httpx.AsyncClient) -> httpx.AsyncClient:
    for id_ in (IMAGE_ID, OTHER_ID):
        await save(client, id=id_)
    return client


# ── Counting ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", KINDS.values())
async def test_of_fifty_counts_at_once_none_is_lost(alice: httpx.AsyncClient, database_url: str, name: str) -> None:
    answers = await asyncio.gather(*(alice.post(f"{PATH}/{name}") for _ in range(50)))
    field = {"views": "view_count", "o": "o_count", "usage": "usage_count"}[name]
    assert sorted(answer.json()[field] for answer in answers) == list(range(1, 51))
    alone, listed = await reads(alice, IMAGE_ID)
    assert alone[field] == listed[field] == 50
    assert await execute(database_url, DRIFT) == []


async def test_counts_and_taking_back_at_once_end_where_they_must(alice: httpx.AsyncClient, database_url: str) -> None:
    for _ in range(30):
        await alice.post(f"{PATH}/o")
    asks = [alice.post(f"{PATH}/o") for _ in range(10)] + [alice.delete(f"{PATH}/o") for _ in range(20)]
    assert {answer.status_code for answer in await asyncio.gather(*asks)} == {200}
    assert (await reads(alice, IMAGE_ID))[0]["o_count"] == 20
    assert await execute(database_url, DRIFT) == []


async def test_an_event_that_is_reported_again_is_counted_once(alice: httpx.AsyncClient) -> None:
    event = {"client_event_id": "e1", "occurred_at": "2025-01-01T00:00:00Z"}
    answers = await asyncio.gather(*(alice.post(f"{PATH}/views", json=event) for _ in range(8)))
    assert {answer.json()["view_count"] for answer in answers} == {1}
    assert len({answer.content for answer in answers}) == 1


async def test_an_o_that_was_taken_back_is_not_counted_again_by_a_report_of_it_that_comes_late(
    alice: httpx.AsyncClient,
) -> None:
    event = {"client_event_id": "e1"}
    assert (await asked(alice, "POST", f"{PATH}/o", event))["o_count"] == 1
    assert (await asked(alice, "DELETE", f"{PATH}/o"))["o_count"] == 0
    assert (await asked(alice, "POST", f"{PATH}/o", event))["o_count"] == 0
    assert (await reads(alice, IMAGE_ID))[0]["o_count"] == 0
    answer = await alice.post(f"{PATH}/views", json=event)
    assert_problem(answer, 409, "client_event_id_taken", "client_event_id")
    assert (await asked(alice, "POST", f"{PATH}/o", {"client_event_id": "e2"}))["o_count"] == 1
    assert (await alice.delete(f"/api/images/{IMAGE_ID}")).status_code == 200
    await save(alice, id=IMAGE_ID)
    assert (await asked(alice, "POST", f"{PATH}/o", event))["o_count"] == 1, "of another image, though of its id"


async def test_an_event_id_is_not_given_to_another_event(alice: httpx.AsyncClient, database_url: str) -> None:
    await asked(alice, "POST", f"{PATH}/views", {"client_event_id": "e1"})
    before = await contents(database_url)
    for path in (f"{PATH}/o", f"{PATH}/usage", f"/api/images/{OTHER_ID}/views"):
        answer = await alice.post(path, json={"client_event_id": "e1"})
        assert_problem(answer, 409, "client_event_id_taken", "client_event_id")
    assert await contents(database_url) == before


async def test_an_event_id_is_of_one_user(server: RunningServer, alice: httpx.AsyncClient) -> None:
    bob = server.client("bob")
    await save(bob, id=IMAGE_ID)
    for client in (alice, bob):
        assert (await asked(client, "POST", f"{PATH}/o", {"client_event_id": "e"}))["o_count"] == 1


async def test_what_is_set_as_it_is_already_changes_nothing(alice: httpx.AsyncClient) -> None:
    for path, body in (
        ("favorite", {"favorite": False}),
        ("rating", {"rating": None}),
        ("favorite", {"favorite": True}),
        ("rating", {"rating": 5}),
    ):
        first = await asked(alice, "PUT", f"{PATH}/{path}", body)
        assert await asked(alice, "PUT", f"{PATH}/{path}", body) == first, "not even the version"


async def test_of_many_toggles_at_once_each_counts(alice: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(alice.post(f"{PATH}/favorite") for _ in range(15)))
    assert sorted(answer.json()["is_favorite"] for answer in answers) == [False] * 7 + [True] * 8
    assert (await reads(alice, IMAGE_ID))[0]["is_favorite"] is True


# ── Totals, whoever writes the events ───────────────────────────────────────────────────────────────────────────


def statement(rng: random.Random) -> str:
    """Give a statement over many rows: events that come, go, and move to another image or kind; cascades too.

    Ids follow from those before, and with them which rows it is about: what is drawn is all that is left to chance.
    """
    r, n, m = rng.randrange(999), rng.randrange(1, 4), rng.randrange(3)
    drawn = rng.getrandbits(64)
    some = f"hashtext(id::text || '{r}') % 4 = {m}"
    return rng.choice(
        [
            (
                "INSERT INTO image_event (user_id, id, image_id, kind, occurred_at) "
                f"SELECT user_id, md5('{drawn}' || id || n)::uuid, id, "
                f"(ARRAY['view', 'o', 'usage'])[1 + (n + {r}) % 3], now() - n * {r} * interval '1 min' "
                f"FROM image, generate_series(1, {n}) AS n WHERE {some}"
            ),
            f"DELETE FROM image_event WHERE {some}",
            (
                f"UPDATE image_event AS e SET kind = 'view', occurred_at = now() - {r} * interval '1 hour', "
                "image_id = (SELECT id FROM image AS i WHERE i.user_id = e.user_id "
                f"ORDER BY hashtext(id::text || '{r}') LIMIT 1) WHERE {some}"
            ),
            f"UPDATE image_activity SET rating = {m} WHERE hashtext(image_id::text || '{r}') % 2 = 0",
            (
                f"WITH gone AS (DELETE FROM image WHERE {some} AND hashtext(id::text) % 3 = {m} RETURNING user_id, id) "
                "INSERT INTO image (user_id, id, prompt, image_url) "
                f"SELECT user_id, md5('{drawn}' || id)::uuid, 'again', 'u' FROM gone"
            ),
        ]
    )


async def test_no_total_ever_says_other_than_the_history(database_url: str) -> None:
    rng = random.Random(20260)
    seen = 0
    async with await psycopg.AsyncConnection.connect(database_url) as connection:
        await connection.execute(
            "INSERT INTO image (user_id, id, prompt, image_url) SELECT u, md5(u || n)::uuid, 'p', 'u' "
            "FROM unnest(ARRAY['ada', 'bob']) AS u, generate_series(1, 6) AS n"
        )
        for _ in range(150):
            await connection.execute("SAVEPOINT step")
            sql = statement(rng)
            await connection.execute(sql.encode())
            if rng.random() < 0.15:
                await connection.execute("ROLLBACK TO step")
            assert await (await connection.execute(DRIFT.encode())).fetchall() == [], sql
            found = await connection.execute("SELECT count(*) FROM image_activity WHERE view_count > 0 AND o_count > 0")
            seen += sum(count for (count,) in await found.fetchall())
    assert seen > 100, "there was hardly anything to drift"


async def test_a_total_without_a_history_is_gone_on_from(alice: httpx.AsyncClient, database_url: str) -> None:
    """Who comes from elsewhere may have counted 40 and know of no single one."""
    await execute(
        database_url, f"INSERT INTO image_activity (user_id, image_id, o_count) VALUES ('alice', '{IMAGE_ID}', 40)"
    )
    assert (await asked(alice, "POST", f"{PATH}/o"))["o_count"] == 41
    assert (await asked(alice, "DELETE", f"{PATH}/o"))["o_count"] == 40
    assert (await asked(alice, "DELETE", f"{PATH}/o"))["o_count"] == 40, "there is none to take back"


# ── What cannot be taken ────────────────────────────────────────────────────────────────────────────────────────


NO_BOOLEAN: list[Any] = [None, 1, "true", [], {}]
NO_RATING: list[Any] = [-1, 101, 50.5, "50", True, [], 2**70]
NO_EVENT_ID: list[Any] = ["", "e" * 256, None, 7, "a\0b", ["e"]]
NO_TIME: list[Any] = [None, 0, "", "now", "2025-01-01", "2025-01-01T00:00:00", "infinity", "9999-12-31T23:59:59-23:59"]

BAD: list[tuple[str, str, Any, str]] = [
    *[("PUT", "favorite", {"favorite": value}, "favorite") for value in NO_BOOLEAN],
    ("PUT", "favorite", {}, "favorite"),
    ("PUT", "favorite", {"favorite": True, "rating": 5}, "rating"),
    ("POST", "favorite", {"favorite": True}, "favorite"),
    *[("PUT", "rating", {"rating": value}, "rating") for value in NO_RATING],
    ("PUT", "rating", {}, "rating"),
    ("PUT", "rating", {"rating": 5, "user_id": "eve"}, "user_id"),
    *[
        ("POST", name, {"client_event_id": value}, "client_event_id")
        for name in KINDS.values()
        for value in NO_EVENT_ID
    ],
    *[("POST", name, {"occurred_at": value}, "occurred_at") for name in KINDS.values() for value in NO_TIME],
    *[("POST", name, {"count": 5}, "count") for name in KINDS.values()],
]


async def test_what_cannot_be_taken_is_named_and_nothing_is_written(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    before = await contents(database_url)
    for method, name, body, field in BAD:
        assert_problem(await alice.request(method, f"{PATH}/{name}", json=body), 422, "invalid_request", field)
    for method, name in (("PUT", "favorite"), ("PUT", "rating"), ("POST", "views"), ("DELETE", "o")):
        answer = await alice.request(method, f"/api/images/x/{name}", json={"rating": 1, "favorite": True})
        assert answer.status_code == 422
    assert await contents(database_url) == before


async def test_a_view_of_tomorrow_has_not_come_yet(alice: httpx.AsyncClient, database_url: str) -> None:
    before = await contents(database_url)
    tomorrow = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    answer = await alice.post(f"{PATH}/views", json={"occurred_at": tomorrow})
    assert_problem(answer, 422, "invalid_request", "occurred_at")
    assert await contents(database_url) == before
    soon = (datetime.now(UTC) + timedelta(seconds=60)).isoformat()  # a clock that goes fast
    assert (await asked(alice, "POST", f"{PATH}/views", {"occurred_at": soon}))["view_count"] == 1


async def test_an_image_that_is_not_there_has_no_activity(client: httpx.AsyncClient, database_url: str) -> None:
    await furnish(client)
    await asked(client, "DELETE", PATH)
    before = await contents(database_url)
    for method, name, body in (
        ("PUT", "favorite", {"favorite": True}),
        ("POST", "favorite", None),
        ("PUT", "rating", {"rating": 5}),
        *(("POST", name, {"client_event_id": "e"}) for name in KINDS.values()),
        ("DELETE", "o", None),
    ):
        assert_problem(await client.request(method, f"{PATH}/{name}", json=body), 404, "not_found")
    assert await contents(database_url) == before
