"""Images over HTTP, on a real server and a real Postgres."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest

from primary.gallery.image import Image
from primary.postgres import Primary
from tests.support.server import RunningServer

NEW: dict[str, Any] = {"prompt": "a pool 🏊", "image_url": "https://images.example/1.png"}
FULL: dict[str, Any] = NEW | {
    "negative_prompt": "",
    "model": "sdxl",
    "seed": -(2**63),
    "steps": 30,
    "width": 1,
    "height": 65_535,
    "source": "scheduler",
    "persona_id": "p1",
    "persona_name": "مرحبا",
    "alt_text": 'quotes " and \\ and \u2028',
    "description": "a\nb\tc",
    "meta": {"a": [1, 2.5, None, {"b": "é"}]},
    "created_at": "2024-02-29T23:59:59.123456+01:00",
}
FIELDS = [*Image.__struct_fields__, "version"]


async def save(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/api/images", json=NEW | fields)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def read(client: httpx.AsyncClient, image: dict[str, Any]) -> httpx.Response:
    """Read an image, without its history, at the version of the write that answered it, or later."""
    headers = {"X-Min-Version": image["version"]}
    return await client.get(f"/api/images/{image['id']}", params={"include": ""}, headers=headers)


def without_version(image: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in image.items() if name != "version"}


async def count_rows(primary: Primary) -> int:
    async with primary.connection() as connection:
        [(count,)] = await (await connection.execute("SELECT count(*) FROM image")).fetchall()
    return int(count)


def assert_problem(answer: httpx.Response, status: int, code: str, *fields: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["status"], problem["code"]) == (status, code)
    assert [error["field"] for error in problem.get("errors", [])] == list(fields)


# ── Saving ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("sent", [NEW, FULL], ids=["only what is needed", "every field"])
async def test_a_read_of_a_saved_image_is_the_answer_to_its_save(
    client: httpx.AsyncClient, sent: dict[str, Any]
) -> None:
    saved = await save(client, **sent)
    assert sorted(saved) == sorted(FIELDS)
    assert {name: saved[name] for name in sent if name != "created_at"} == {
        name: value for name, value in sent.items() if name != "created_at"
    }
    assert sent is NEW or saved["created_at"] == "2024-02-29T22:59:59.123456Z"
    assert (await read(client, saved)).json() == saved
    page = (await client.get("/api/images")).json()
    assert page == {"images": [without_version(saved)], "next_cursor": None, "version": saved["version"]}


@pytest.mark.parametrize("zone", ["+23:59", "-16:00"])
async def test_a_time_is_taken_in_every_zone_that_can_be_written(client: httpx.AsyncClient, zone: str) -> None:
    sent = NEW | {"id": str(uuid4()), "created_at": f"2025-03-01T08:00:00{zone}"}
    saved = await save(client, **sent)
    moment = datetime.fromisoformat(saved["created_at"])
    assert saved["created_at"].endswith("Z")
    assert moment == datetime.fromisoformat(sent["created_at"])
    assert (await client.post("/api/images", json=sent)).status_code == 200
    together = await client.post("/api/images/batch", json={"images": [NEW, sent | {"id": str(uuid4())}]})
    assert together.json()["images"][1]["created_at"] == saved["created_at"]


async def test_an_image_with_an_id_can_be_sent_again_without_harm(client: httpx.AsyncClient, primary: Primary) -> None:
    sent = FULL | {"id": str(uuid4())}
    first = await client.post("/api/images", json=sent)
    again = await client.post("/api/images", json=sent)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert await count_rows(primary) == 1


async def test_the_same_image_sent_many_times_at_once_is_saved_once(
    client: httpx.AsyncClient, primary: Primary
) -> None:
    sent = NEW | {"id": str(uuid4())}
    answers = await asyncio.gather(*(client.post("/api/images", json=sent) for _ in range(12)))
    assert sorted(answer.status_code for answer in answers) == [200] * 11 + [201]
    assert await count_rows(primary) == 1


@pytest.mark.parametrize("change", [{"prompt": "else"}, {"model": "m"}, {"meta": {"a": 1}}, {"source": "else"}])
async def test_an_id_is_not_given_to_another_image(client: httpx.AsyncClient, change: dict[str, Any]) -> None:
    saved = await save(client, id=str(uuid4()))
    assert_problem(await client.post("/api/images", json=NEW | {"id": saved["id"]} | change), 409, "id_taken", "id")
    assert (await read(client, saved)).json() == saved


async def test_a_late_retry_gives_the_image_as_it_was_edited_since(client: httpx.AsyncClient) -> None:
    saved = await save(client, id=str(uuid4()))
    edited = (await client.patch(f"/api/images/{saved['id']}", json={"prompt": "else"})).json()
    retried = await client.post("/api/images", json=NEW | {"id": saved["id"]})
    assert (retried.status_code, retried.json()) == (200, edited)


async def test_two_users_may_make_the_same_id(server: RunningServer) -> None:
    id_ = str(uuid4())
    for user in ("alice", "bob"):
        saved = await save(server.client(user), id=id_, prompt=user)
        assert (await read(server.client(user), saved)).json()["prompt"] == user


# ── Saving together ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_batch_is_saved_in_one_step_and_keeps_its_order(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/images/batch", json={"images": [NEW | {"seed": n} for n in range(1_000)]})
    assert answer.status_code == 201
    saved = answer.json()
    assert [image["seed"] for image in saved["images"]] == list(range(1_000))
    headers = {"X-Min-Version": saved["version"]}
    page = (await client.get("/api/images?limit=500", headers=headers)).json()
    assert [image["seed"] for image in page["images"]] == list(range(999, 499, -1))
    assert page["images"] == saved["images"][:499:-1]
    # One statement is one version.
    assert saved["version"].endswith(".1")


async def test_a_batch_that_is_sent_again_is_answered_alike(client: httpx.AsyncClient, primary: Primary) -> None:
    sent = {"images": [NEW | {"id": str(uuid4()), "seed": n} for n in range(3)]}
    first = await client.post("/api/images/batch", json=sent)
    again = await client.post("/api/images/batch", json=sent)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert await count_rows(primary) == 3


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ({"prompt": ""}, "images[1].prompt"),
        ({"prompt": " "}, "images[1].prompt"),
        ({"seed": "1"}, "images[1].seed"),
        ({"sede": 1}, "images[1].sede"),
        ({"meta": {"a": "\0"}}, "images[1].meta"),
    ],
)
async def test_of_a_batch_with_a_fault_nothing_is_saved(
    client: httpx.AsyncClient, primary: Primary, bad: dict[str, Any], field: str
) -> None:
    sent = {"images": [NEW, NEW | bad, NEW]}
    assert_problem(await client.post("/api/images/batch", json=sent), 422, "invalid_request", field)
    assert await count_rows(primary) == 0


async def test_of_a_batch_with_a_taken_id_nothing_is_saved(client: httpx.AsyncClient, primary: Primary) -> None:
    taken = (await save(client, id=str(uuid4())))["id"]
    sent = {"images": [NEW, NEW | {"id": taken, "prompt": "else"}]}
    assert_problem(await client.post("/api/images/batch", json=sent), 409, "id_taken", "images[1].id")
    assert await count_rows(primary) == 1


@pytest.mark.parametrize("count", [0, 1_001])
async def test_a_batch_has_bounds(client: httpx.AsyncClient, primary: Primary, count: int) -> None:
    answer = await client.post("/api/images/batch", json={"images": [NEW] * count})
    assert_problem(answer, 422, "invalid_request", "images")
    assert await count_rows(primary) == 0


# ── What cannot be saved ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("body", "status", "code", "fields"),
    [
        (b"", 400, "malformed_json", ()),
        (b"{", 400, "malformed_json", ()),
        (b'{"prompt": NaN}', 400, "malformed_json", ()),
        (b'{"prompt": "\xff"}', 400, "malformed_json", ()),
        (b'{"meta": {"a": ' + b"[" * 100_000, 400, "malformed_json", ()),
        (b"[]", 422, "invalid_request", ("",)),
        (b"null", 422, "invalid_request", ("",)),
        (b'{"prompt": "p"}', 422, "invalid_request", ("image_url",)),
        (json.dumps(NEW | {"colour": 1}).encode(), 422, "invalid_request", ("colour",)),
        (json.dumps(NEW | {"user_id": "eve"}).encode(), 422, "invalid_request", ("user_id",)),
        (json.dumps(NEW | {"steps": -1}).encode(), 422, "invalid_request", ("steps",)),
        (json.dumps(NEW | {"steps": True}).encode(), 422, "invalid_request", ("steps",)),
        (json.dumps(NEW | {"seed": 2**63}).encode(), 422, "invalid_request", ("seed",)),
        (json.dumps(NEW | {"id": "x"}).encode(), 422, "invalid_request", ("id",)),
        (json.dumps(NEW | {"prompt": "a\0"}).encode(), 422, "invalid_request", ("prompt",)),
        (json.dumps(NEW | {"created_at": "2024-01-01"}).encode(), 422, "invalid_request", ("created_at",)),
        (json.dumps(NEW | {"meta": {"a": [1e300] * 500}}).encode(), 422, "invalid_request", ("meta",)),
    ],
)
async def test_a_bad_body_is_refused_by_its_field_and_nothing_is_written(
    client: httpx.AsyncClient, primary: Primary, body: bytes, status: int, code: str, fields: tuple[str, ...]
) -> None:
    answer = await client.post("/api/images", content=body, headers={"content-type": "application/json"})
    assert_problem(answer, status, code, *fields)
    assert await count_rows(primary) == 0


# ── Editing and deleting ────────────────────────────────────────────────────────────────────────────────────────


async def test_an_edit_changes_what_is_given_and_null_empties(client: httpx.AsyncClient) -> None:
    saved = await save(client, **FULL)
    answer = await client.patch(f"/api/images/{saved['id']}", json={"alt_text": "new", "model": None})
    edited = answer.json()
    assert answer.status_code == 200
    changed = {name for name in FIELDS if edited[name] != saved[name]}
    assert changed == {"alt_text", "model", "updated_at", "row_version", "version"}
    assert (edited["alt_text"], edited["model"], edited["row_version"]) == ("new", None, 2)
    assert (await read(client, edited)).json() == edited


async def test_what_the_owner_thinks_of_an_image_is_in_the_answer_to_an_edit(
    client: httpx.AsyncClient, primary: Primary
) -> None:
    saved = await save(client)
    activity = (
        "INSERT INTO image_activity (user_id, image_id, is_favorite, rating, o_count, last_viewed_at) "
        "VALUES ('alice', %s, true, 70, 3, '2024-01-01T00:00:00Z')"
    )
    async with primary.connection() as connection:
        await connection.execute(activity, [saved["id"]])
    edited = (await client.patch(f"/api/images/{saved['id']}", json={"prompt": "else"})).json()
    told = {name: edited[name] for name in ("is_favorite", "rating", "view_count", "o_count", "last_viewed_at")}
    assert told == {
        "is_favorite": True,
        "rating": 70,
        "view_count": 0,
        "o_count": 3,
        "last_viewed_at": "2024-01-01T00:00:00.000000Z",
    }
    assert (await read(client, edited)).json() == edited


async def test_an_edit_meant_for_an_older_state_is_refused_and_tells_what_there_is(client: httpx.AsyncClient) -> None:
    saved = await save(client)
    path = f"/api/images/{saved['id']}"
    first = await client.patch(path, json={"prompt": "first"}, headers={"If-Match": '"1"'})
    assert first.status_code == 200
    second = await client.patch(path, json={"prompt": "second"}, headers={"If-Match": '"1"'})
    assert_problem(second, 412, "row_version_conflict")
    assert second.json()["current"] == without_version(first.json())
    third = await client.patch(path, json={"prompt": "third"}, headers={"If-Match": '"2"'})
    assert third.json()["row_version"] == 3


async def test_of_edits_at_once_with_one_expectation_one_is_made(client: httpx.AsyncClient) -> None:
    saved = await save(client)
    edits = [
        client.patch(f"/api/images/{saved['id']}", json={"prompt": f"edit {n}"}, headers={"If-Match": '"1"'})
        for n in range(8)
    ]
    statuses = sorted(answer.status_code for answer in await asyncio.gather(*edits))
    assert statuses == [200] + [412] * 7


@pytest.mark.parametrize(
    ("body", "fields"),
    [({}, [""]), ({"prompt": None}, ["prompt"]), ({"id": str(uuid4())}, ["id"]), ({"meta": 1}, ["meta"])],
)
async def test_a_bad_edit_changes_nothing(client: httpx.AsyncClient, body: dict[str, Any], fields: list[str]) -> None:
    saved = await save(client)
    assert_problem(await client.patch(f"/api/images/{saved['id']}", json=body), 422, "invalid_request", *fields)
    assert (await read(client, saved)).json() == saved


async def test_a_bad_if_match_is_refused(client: httpx.AsyncClient) -> None:
    saved = await save(client)
    answer = await client.patch(f"/api/images/{saved['id']}", json={"prompt": "x"}, headers={"If-Match": '"soon"'})
    assert_problem(answer, 422, "invalid_request", "If-Match")


async def test_a_deleted_image_is_gone_from_every_read(client: httpx.AsyncClient) -> None:
    saved, kept = await save(client), await save(client)
    answer = await client.delete(f"/api/images/{saved['id']}")
    assert (answer.status_code, answer.json()["id"]) == (200, saved["id"])
    gone = answer.json()
    assert_problem(await read(client, gone), 404, "not_found")
    page = (await client.get("/api/images")).json()
    assert [image["id"] for image in page["images"]] == [kept["id"]]
    assert_problem(await client.delete(f"/api/images/{saved['id']}"), 404, "not_found")


async def test_another_users_image_cannot_be_read_changed_or_deleted(server: RunningServer) -> None:
    alice, eve = server.client("alice"), server.client("eve")
    saved = await save(alice)
    path = f"/api/images/{saved['id']}"
    assert_problem(await eve.get(path), 404, "not_found")
    assert_problem(await eve.patch(path, json={"prompt": "mine"}), 404, "not_found")
    assert_problem(await eve.patch(path, json={"prompt": "mine"}, headers={"If-Match": '"9"'}), 404, "not_found")
    assert_problem(await eve.delete(path), 404, "not_found")
    assert (await eve.get("/api/images")).json()["images"] == []
    assert (await read(alice, saved)).json() == saved


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
@pytest.mark.parametrize("id_", ["1", "%00", "..%2F..%2Fetc%2Fpasswd", "' OR 1=1", "a" * 2_000])
async def test_what_is_no_id_is_refused_on_every_route(client: httpx.AsyncClient, method: str, id_: str) -> None:
    answer = await client.request(method, f"/api/images/{id_}", json={"prompt": "x"} if method == "PATCH" else None)
    assert answer.status_code in {404, 422}
    assert answer.json()["code"] in {"not_found", "invalid_request"}


# ── Pages ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def pages(client: httpx.AsyncClient, limit: int) -> list[list[dict[str, Any]]]:
    found, cursor = [], None
    while True:
        parameters = {"limit": str(limit)} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/api/images", params=parameters)).json()
        found.append(page["images"])
        cursor = page["next_cursor"]
        if cursor is None:
            return found


@pytest.mark.parametrize(("limit", "sizes"), [(3, [3, 3, 1]), (7, [7]), (500, [7]), (1, [1] * 7)])
async def test_pages_show_every_image_once_the_newest_first(
    client: httpx.AsyncClient, limit: int, sizes: list[int]
) -> None:
    # Two were made at the same moment: the id decides.
    days = [3, 1, 2, 2, 5, 4, 6]
    saved = [await save(client, created_at=f"2024-01-0{day}T00:00:00Z") for day in days]
    await client.post("/api/sync")
    found = await pages(client, limit)
    assert [len(page) for page in found] == sizes
    newest_first = sorted(
        map(without_version, saved), key=lambda image: (image["created_at"], image["id"]), reverse=True
    )
    assert [image for page in found for image in page] == newest_first


async def test_pages_stay_whole_while_images_come_and_go(client: httpx.AsyncClient) -> None:
    saved = [await save(client, seed=n) for n in range(10)]
    await client.post("/api/sync")
    first = (await client.get("/api/images?limit=4")).json()
    assert [image["seed"] for image in first["images"]] == [9, 8, 7, 6]
    await save(client, seed=10)
    for n in (6, 4):  # the very image that the cursor names, and one that is still to come
        await client.delete(f"/api/images/{saved[n]['id']}")
    await client.post("/api/sync")
    second = (await client.get("/api/images", params={"limit": 4, "cursor": first["next_cursor"]})).json()
    assert [image["seed"] for image in second["images"]] == [5, 3, 2, 1]
    third = (await client.get("/api/images", params={"limit": 4, "cursor": second["next_cursor"]})).json()
    assert ([image["seed"] for image in third["images"]], third["next_cursor"]) == ([0], None)


async def test_a_user_without_images_has_an_empty_page(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/images")
    assert answer.status_code == 200
    assert answer.json() == {"images": [], "next_cursor": None, "version": answer.headers["x-replica-version"]}


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=501", "limit"), ("limit=x", "limit"), ("cursor=x", "cursor"), ("sort=up", "sort")],
)
async def test_a_bad_query_is_refused_by_its_parameter(client: httpx.AsyncClient, query: str, field: str) -> None:
    assert_problem(await client.get(f"/api/images?{query}"), 422, "invalid_request", field)


async def test_a_read_tells_its_version_and_is_not_sent_twice(client: httpx.AsyncClient) -> None:
    saved = await save(client)
    first = await read(client, saved)
    assert first.headers["x-replica-version"] == saved["version"] == first.json()["version"]
    for path in (f"/api/images/{saved['id']}", "/api/images"):
        again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    edited = (await client.patch(f"/api/images/{saved['id']}", json={"prompt": "else"})).json()
    headers = {"If-None-Match": first.headers["etag"], "X-Min-Version": edited["version"]}
    assert (await client.get("/api/images", headers=headers)).status_code == 200


# ── Who am I ────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_me_is_the_profile_and_the_state_of_the_replica(client: httpx.AsyncClient, primary: Primary) -> None:
    stranger = (await client.get("/api/me")).json()
    assert (stranger["user"], stranger["admin"], stranger["profile"]) == ("alice", False, None)
    saved = await save(client)
    async with primary.connection() as connection:
        await connection.execute(
            "INSERT INTO profile (user_id, username, settings) VALUES ('alice', 'al', '{\"a\": 1}')"
        )
    await client.post("/api/sync")
    answer = await client.get("/api/me")
    me = answer.json()
    assert (
        me["profile"].items()
        >= {"username": "al", "first_name": None, "sync_upstream": False, "settings": {"a": 1}}.items()
    )
    assert (me["replica"]["rows"]["image"], me["replica"]["rows"]["profile"]) == (1, 1)
    assert me["replica"]["size_bytes"] > 0
    assert me["version"] == me["replica"]["version"] == answer.headers["x-replica-version"] != saved["version"]


# ── What the description promises ───────────────────────────────────────────────────────────────────────────────


async def test_every_route_is_described_with_its_answers_and_an_example(client: httpx.AsyncClient) -> None:
    described = (await client.get("/schema/openapi.json")).json()
    for path, method, status in [
        ("/api/images", "get", "200"),
        ("/api/images", "post", "201"),
        ("/api/images/batch", "post", "201"),
        ("/api/images/{image_id}", "get", "200"),
        ("/api/images/{image_id}", "patch", "200"),
        ("/api/images/{image_id}", "delete", "200"),
        ("/api/me", "get", "200"),
    ]:
        content = described["paths"][path][method]["responses"][status]["content"]["application/json"]
        [example] = content["examples"].values()
        schema = described["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
        assert schema["required"]
        assert set(example["value"]) <= set(schema["properties"])
    saved = await save(client)
    assert set(described["components"]["schemas"]["ImageAnswer"]["properties"]) == set(saved)
