"""Many images edited or deleted at once: all of them, or none and each that stands in the way named."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.conftest import Serving
from tests.support.gallery_writes import IMAGE_ID, OTHER_ID, THIRD_ID, asked, furnish
from tests.support.http import IMAGE, assert_problem, contents, execute

MISSING = "00000000-0000-4000-8000-000000000000"
EVERY_FIELD: dict[str, Any] = {
    "prompt": "p",
    "image_url": "u",
    "negative_prompt": "n",
    "model": "m",
    "seed": -(2**63),
    "steps": 1,
    "width": 65_535,
    "height": 1,
    "source": "s",
    "persona_id": "i",
    "persona_name": "مرحبا",
    "alt_text": 'quotes " and \\',
    "description": "a\nb",
    "meta": {"a": [1, 2.5, None, {"b": "é"}]},
}
NULLABLE = sorted(EVERY_FIELD.keys() - {"prompt", "image_url", "source", "meta"})


@pytest.fixture
async def alice(client: httpx.AsyncClient) -> httpx.AsyncClient:
    await furnish(client)
    return client


async def edit(client: httpx.AsyncClient, *images: dict[str, Any]) -> httpx.Response:
    return await client.patch("/api/images", json={"images": list(images)})


async def delete(client: httpx.AsyncClient, *ids: str) -> httpx.Response:
    return await client.request("DELETE", "/api/images", json={"ids": list(ids)})


async def test_each_image_gets_its_own_changes_and_keeps_the_rest(alice: httpx.AsyncClient) -> None:
    await asked(alice, "PUT", f"/api/images/{OTHER_ID}/rating", {"rating": 70})
    answer = await edit(
        alice, {"id": THIRD_ID, "alt_text": "third"}, {"id": IMAGE_ID, **EVERY_FIELD}, {"id": OTHER_ID, "steps": 9}
    )
    assert answer.status_code == 200, answer.text
    third, first, second = answer.json()["images"]
    assert (third["id"], third["alt_text"], third["prompt"]) == (THIRD_ID, "third", IMAGE["prompt"])
    assert {name: first[name] for name in EVERY_FIELD} == EVERY_FIELD
    assert (second["steps"], second["alt_text"], second["rating"], second["row_version"]) == (9, None, 70, 2)
    # They are what a read gives, and what a single edit would have answered.
    headers = {"X-Min-Version": answer.json()["version"]}
    for image in (third, first, second):
        read = (await alice.get(f"/api/images/{image['id']}", headers=headers)).json()
        assert {name: read[name] for name in image} == image


async def test_null_empties_a_field_in_many_as_in_one(alice: httpx.AsyncClient) -> None:
    await edit(alice, {"id": IMAGE_ID, **EVERY_FIELD})
    answer = await edit(alice, {"id": IMAGE_ID, **dict.fromkeys(NULLABLE)})
    [image] = answer.json()["images"]
    assert {name: image[name] for name in NULLABLE} == dict.fromkeys(NULLABLE)
    assert image["prompt"] == "p"


async def test_a_thousand_edits_are_one_version_and_a_thousand_lines_of_history(
    client: httpx.AsyncClient, database_url: str
) -> None:
    ids = [str(uuid4()) for _ in range(1_000)]
    saved = await asked(client, "POST", "/api/images/batch", {"images": [IMAGE | {"id": id_} for id_ in ids]})
    answer = await edit(client, *({"id": id_, "description": f"of {n}"} for n, id_ in enumerate(ids)))
    edited = answer.json()
    assert [image["description"] for image in edited["images"]] == [f"of {n}" for n in range(1_000)]
    told = await execute(
        database_url, "SELECT count(*), count(DISTINCT image_id), count(DISTINCT edited_at) FROM image_edit"
    )
    assert told == [(1_000, 1_000, 1)]
    # One for the images, one for their history.
    assert version(edited) == version(saved) + 2
    gone = await delete(client, *ids)
    assert (gone.status_code, gone.json()["ids"]) == (200, ids)
    assert await execute(database_url, "SELECT count(*) FROM image_edit") == [(0,)]


def version(answer: dict[str, Any]) -> int:
    return int(answer["version"].rpartition(".")[2])


async def test_of_edits_of_which_some_cannot_be_made_none_is_made(alice: httpx.AsyncClient, database_url: str) -> None:
    before = await contents(database_url)
    good = {"id": IMAGE_ID, "prompt": "edited", "row_version": 1}
    stale = {"id": OTHER_ID, "prompt": "edited", "row_version": 7}
    missing = {"id": MISSING, "prompt": "edited"}
    answer = await edit(alice, good, stale, {"id": THIRD_ID, "prompt": "edited"})
    assert_problem(answer, 412, "row_version_conflict", "images[1]")
    assert [image["id"] for image in answer.json()["current"]] == [OTHER_ID]
    assert answer.json()["current"][0]["row_version"] == 1
    answer = await edit(alice, missing, good, stale, missing | {"id": str(uuid4())})
    assert_problem(answer, 404, "not_found", "images[0]", "images[2]", "images[3]")
    assert await contents(database_url) == before


async def test_of_deletions_of_which_some_cannot_be_made_none_is_made(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    before = await contents(database_url)
    answer = await delete(alice, IMAGE_ID, MISSING, OTHER_ID, str(uuid4()))
    assert_problem(answer, 404, "not_found", "ids[1]", "ids[3]")
    assert await contents(database_url) == before


async def test_deleted_images_are_gone_from_lists_albums_and_history(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    await asked(alice, "PATCH", "/api/albums/b3c1d5a0-40f5-4f0e-8e0a-2f2b5d1f7a10", {"cover_image_id": IMAGE_ID})
    gone = await delete(alice, IMAGE_ID, OTHER_ID)
    headers = {"X-Min-Version": gone.json()["version"]}
    assert [image["id"] for image in (await alice.get("/api/images", headers=headers)).json()["images"]] == [THIRD_ID]
    for table in ("image_activity", "image_event", "image_edit", "album_image"):
        assert await execute(database_url, f"SELECT count(*) FROM {table}") == [(0,)], table
    assert await execute(database_url, "SELECT cover_image_id FROM album") == [(None,)]


BAD_EDITS: list[tuple[Any, list[str]]] = [
    ({}, ["images"]),
    ({"images": []}, ["images"]),
    ({"images": None}, ["images"]),
    ({"images": [{"prompt": "p"}]}, ["images[0].id"]),
    ({"images": [{"id": "x", "prompt": "p"}]}, ["images[0].id"]),
    ({"images": [{"id": IMAGE_ID}]}, ["images[0]"]),
    ({"images": [{"id": IMAGE_ID, "row_version": 1}]}, ["images[0]"]),
    ({"images": [{"id": IMAGE_ID, "prompt": "p", "row_version": 0}]}, ["images[0].row_version"]),
    ({"images": [{"id": IMAGE_ID, "prompt": "p", "row_version": 2**63}]}, ["images[0].row_version"]),
    ({"images": [{"id": IMAGE_ID, "prompt": "p", "row_version": None}]}, ["images[0].row_version"]),
    ({"images": [{"id": IMAGE_ID, "prompt": None}]}, ["images[0].prompt"]),
    ({"images": [{"id": IMAGE_ID, "rating": 5}]}, ["images[0].rating"]),
    ({"images": [{"id": IMAGE_ID, "user_id": "eve"}]}, ["images[0].user_id"]),
    ({"images": [{"id": IMAGE_ID, "prompt": "p"}], "more": 1}, ["more"]),
    (
        {"images": [{"id": IMAGE_ID, "prompt": " "}, {"id": OTHER_ID}, {"id": IMAGE_ID, "model": "a\0"}]},
        ["images[0].prompt", "images[1]", "images[2].model", "images[2].id"],
    ),
    ({"images": [{"id": IMAGE_ID, "meta": {"x": [1e308] * 1_000}}]}, ["meta"]),  # only the database finds it too large
    ({"images": [{"id": MISSING, "prompt": "p"}] * 1_001}, ["images"]),
]
BAD_DELETIONS: list[tuple[Any, list[str]]] = [
    ({}, ["ids"]),
    ({"ids": []}, ["ids"]),
    ({"ids": ["x"]}, ["ids[0]"]),
    ({"ids": [IMAGE_ID, 7]}, ["ids[1]"]),
    ({"ids": [IMAGE_ID, OTHER_ID, IMAGE_ID.upper()]}, ["ids[2]"]),
    ({"ids": [IMAGE_ID], "all": True}, ["all"]),
    ({"ids": [MISSING] * 1_001}, ["ids"]),
]


async def test_what_cannot_be_taken_is_named_by_its_place_and_nothing_is_written(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    before = await contents(database_url)
    for method, bodies in (("PATCH", BAD_EDITS), ("DELETE", BAD_DELETIONS)):
        for body, fields in bodies:
            assert_problem(await alice.request(method, "/api/images", json=body), 422, "invalid_request", *fields)
        answer = await alice.request(method, "/api/images", json=bodies[5][0], headers={"If-Match": '"1"'})
        assert answer.status_code == 422
    good = {"images": [{"id": IMAGE_ID, "prompt": "p"}]}
    answer = await alice.patch("/api/images", json=good, headers={"If-Match": '"1"'})
    assert_problem(answer, 422, "invalid_request", "If-Match")
    assert await contents(database_url) == before


async def test_there_are_as_many_as_one_batch_may_have(serving: Serving) -> None:
    async with serving(batch_max=2) as server:
        client = server.client("alice")
        await furnish(client)
        three = [{"id": id_, "prompt": "p"} for id_ in (IMAGE_ID, OTHER_ID, THIRD_ID)]
        assert_problem(await edit(client, *three), 422, "invalid_request", "images")
        assert_problem(await delete(client, *(one["id"] for one in three)), 422, "invalid_request", "ids")
        assert (await edit(client, *three[:2])).status_code == 200
        assert (await delete(client, IMAGE_ID, OTHER_ID)).status_code == 200
