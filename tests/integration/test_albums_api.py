"""Albums: an order that stays one whatever is moved, captions of their own, and nothing that dangles."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.gallery_writes import ALBUM_ID, IMAGE_ID, OTHER_ID, THIRD_ID, asked, furnish, put
from tests.support.http import IMAGE, assert_problem, contents, execute
from tests.support.server import RunningServer

PATH = f"/api/albums/{ALBUM_ID}"
MISSING = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def alice(client: httpx.AsyncClient) -> httpx.AsyncClient:
    await furnish(client)
    return client


async def order(database_url: str, album_id: str = ALBUM_ID) -> list[str]:
    """Give an album's images as every reader has them."""
    sql = (
        "SELECT image_id::text FROM album_image JOIN image USING (user_id) WHERE id = image_id AND album_id = %s "
        "ORDER BY position, created_at, image_id"
    )
    return [image_id for (image_id,) in await execute(database_url, sql, album_id)]


async def many(client: httpx.AsyncClient, count: int) -> list[str]:
    ids = [str(uuid4()) for _ in range(count)]
    await asked(client, "POST", "/api/images/batch", {"images": [IMAGE | {"id": id_} for id_ in ids]})
    return ids


# ── The album itself ────────────────────────────────────────────────────────────────────────────────────────────


async def test_an_album_is_made_renamed_and_deleted_and_its_images_stay(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    made = await asked(alice, "POST", "/api/albums", {"title": "Ebb 🌊", "description": "d"})
    assert (made["title"], made["description"], made["cover_image_id"], made["row_version"]) == ("Ebb 🌊", "d", None, 1)
    path = f"/api/albums/{made['id']}"
    await put(alice, made["id"], IMAGE_ID)
    edited = await asked(alice, "PATCH", path, {"title": "Flow", "description": None})
    assert {name for name in made if made[name] != edited[name]} == {
        *("title", "description", "updated_at", "row_version", "image_count", "cover", "version")
    }
    # It is shown by its first image where none was chosen.
    assert edited["cover"] == {"image_id": IMAGE_ID, "image_url": IMAGE["image_url"], "alt_text": None}
    gone = await asked(alice, "DELETE", path)
    assert gone["id"] == made["id"]
    assert await execute(database_url, "SELECT count(*) FROM album_image WHERE album_id = %s", made["id"]) == [(0,)]
    assert (await alice.get(f"/api/images/{IMAGE_ID}")).status_code == 200
    for method, body in (("PATCH", {"title": "t"}), ("DELETE", None)):
        assert_problem(await alice.request(method, path, json=body), 404, "not_found")


async def test_an_album_with_an_id_can_be_sent_again_without_harm(alice: httpx.AsyncClient, database_url: str) -> None:
    sent = {"id": str(uuid4()), "title": "t", "description": "d", "cover_image_id": IMAGE_ID}
    answers = await asyncio.gather(*(alice.post("/api/albums", json=sent) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.content for answer in answers}) == 1
    for change in ({"title": "else"}, {"description": None}, {"cover_image_id": OTHER_ID}):
        assert_problem(await alice.post("/api/albums", json=sent | change), 409, "id_taken", "id")
    edited = await asked(alice, "PATCH", f"/api/albums/{sent['id']}", {"title": "edited"})
    late = await alice.post("/api/albums", json=sent)
    assert (late.status_code, late.json()) == (200, edited)


async def test_an_album_whose_cover_is_gone_can_be_sent_again_too(alice: httpx.AsyncClient, database_url: str) -> None:
    sent = {"id": str(uuid4()), "title": "t", "cover_image_id": IMAGE_ID}
    await asked(alice, "POST", "/api/albums", sent)
    await asked(alice, "DELETE", f"/api/images/{IMAGE_ID}")
    before = await contents(database_url)
    late = await alice.post("/api/albums", json=sent)
    assert (late.status_code, late.json()["id"], late.json()["cover_image_id"]) == (200, sent["id"], None)
    assert_problem(await alice.post("/api/albums", json=sent | {"id": ALBUM_ID}), 409, "id_taken", "id")
    assert await contents(database_url) == before


async def test_an_edit_meant_for_an_older_state_of_an_album_is_refused(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    first = await asked(alice, "PATCH", PATH, {"title": "first"}, **{"If-Match": '"1"'})
    before = await contents(database_url)
    for method, body in (("PATCH", {"title": "second"}), ("DELETE", None)):
        answer = await alice.request(method, PATH, json=body, headers={"If-Match": '"1"'})
        assert_problem(answer, 412, "row_version_conflict")
        assert answer.json()["current"] == {name: first[name] for name in first if name != "version"}
    assert await contents(database_url) == before
    await asked(alice, "DELETE", PATH, **{"If-Match": '"2"'})


async def test_a_cover_is_an_image_of_ones_own_and_goes_with_it(
    server: RunningServer, alice: httpx.AsyncClient, database_url: str
) -> None:
    [of_bob] = await many(server.client("bob"), 1)
    covered = await asked(alice, "PATCH", PATH, {"cover_image_id": THIRD_ID})
    assert covered["cover_image_id"] == THIRD_ID, "it need not be in the album"
    before = await contents(database_url)
    for cover in (of_bob, MISSING):
        for method, path, body in (("PATCH", PATH, {}), ("POST", "/api/albums", {"title": "t"})):
            answer = await alice.request(method, path, json=body | {"cover_image_id": cover})
            assert_problem(answer, 404, "not_found", "cover_image_id")
    assert await contents(database_url) == before
    await asked(alice, "DELETE", f"/api/images/{THIRD_ID}")
    assert (await asked(alice, "PATCH", PATH, {"title": "t"}))["cover_image_id"] is None


# ── What is in it ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_images_go_to_the_end_in_the_order_of_the_request(alice: httpx.AsyncClient, database_url: str) -> None:
    more = await many(alice, 5)
    answer = await alice.post(f"{PATH}/images", json={"images": [{"image_id": id_, "caption": id_} for id_ in more]})
    assert answer.status_code == 201
    placed = answer.json()["images"]
    assert [(place["image_id"], place["caption"]) for place in placed] == [(id_, id_) for id_ in more]
    assert sorted(place["position"] for place in placed) == [place["position"] for place in placed]
    assert await order(database_url) == [IMAGE_ID, OTHER_ID, *more]


async def test_an_image_that_is_in_the_album_keeps_its_place_and_takes_a_caption(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    path = f"{PATH}/images/{IMAGE_ID}"
    one = await alice.put(path, json={"caption": "here"})
    assert (one.status_code, one.json()["caption"]) == (200, "here")
    again = await alice.put(path)
    assert (again.status_code, again.json()) == (200, one.json()), "no caption is said, so it stays"
    both = [{"image_id": THIRD_ID}, {"image_id": IMAGE_ID, "caption": None}]
    added = await asked(alice, "POST", f"{PATH}/images", {"images": both})
    assert [place["caption"] for place in added["images"]] == [None, None]
    assert await order(database_url) == [IMAGE_ID, OTHER_ID, THIRD_ID]


async def test_an_image_is_in_many_albums_and_taken_out_of_one(alice: httpx.AsyncClient, database_url: str) -> None:
    other = (await asked(alice, "POST", "/api/albums", {"title": "another"}))["id"]
    await put(alice, other, OTHER_ID, IMAGE_ID)
    await asked(alice, "DELETE", f"{PATH}/images/{IMAGE_ID}")
    assert_problem(await alice.delete(f"{PATH}/images/{IMAGE_ID}"), 404, "not_found")
    assert await order(database_url) == [OTHER_ID]
    assert await order(database_url, other) == [OTHER_ID, IMAGE_ID]
    await asked(alice, "DELETE", f"/api/images/{OTHER_ID}")
    assert (await order(database_url), await order(database_url, other)) == ([], [IMAGE_ID])


async def test_of_images_of_which_some_are_not_there_none_is_put_in(
    server: RunningServer, alice: httpx.AsyncClient, database_url: str
) -> None:
    [of_bob] = await many(server.client("bob"), 1)
    before = await contents(database_url)
    images = [{"image_id": id_} for id_ in (MISSING, THIRD_ID, of_bob)]
    answer = await alice.post(f"{PATH}/images", json={"images": images})
    assert_problem(answer, 404, "not_found", "images[0].image_id", "images[2].image_id")
    assert_problem(await alice.put(f"{PATH}/images/{of_bob}"), 404, "not_found", "images[0].image_id")
    assert await contents(database_url) == before


# ── Order ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_any_moves_give_the_order_of_a_plain_list(alice: httpx.AsyncClient, database_url: str) -> None:
    rng = random.Random(7)
    model = [IMAGE_ID, OTHER_ID, *await many(alice, 6)]
    await put(alice, ALBUM_ID, *model)
    for n in range(150):
        moved, anchor = rng.sample(model, 2)
        if n % 3:  # into one same gap again and again, until there is no room in it
            moved, anchor = model[-1], model[1]
        side = rng.choice(["before", "after"])
        await asked(alice, "PATCH", f"{PATH}/images/{moved}", {side: anchor})
        model.remove(moved)
        model.insert(model.index(anchor) + (side == "after"), moved)
        if n % 10 == 9:
            assert await order(database_url) == model
    positions = await execute(database_url, "SELECT count(DISTINCT position) = count(*) FROM album_image")
    assert positions == [(True,)]


async def test_what_a_writer_by_sql_put_at_one_position_can_be_moved_apart(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    await put(alice, ALBUM_ID, THIRD_ID)
    await execute(database_url, "UPDATE album_image SET position = 0")
    assert await order(database_url) == [IMAGE_ID, OTHER_ID, THIRD_ID], "by when they were made"
    await asked(alice, "PATCH", f"{PATH}/images/{THIRD_ID}", {"before": OTHER_ID})
    assert await order(database_url) == [IMAGE_ID, THIRD_ID, OTHER_ID]
    await execute(database_url, f"UPDATE album_image SET position = {2**31 - 1}")
    [new] = await many(alice, 1)
    await put(alice, ALBUM_ID, new)
    assert (await order(database_url))[-1] == new


async def test_an_order_is_given_whole_or_not_at_all(alice: httpx.AsyncClient, database_url: str) -> None:
    await put(alice, ALBUM_ID, THIRD_ID)
    path = f"{PATH}/images"
    wanted = [THIRD_ID, IMAGE_ID, OTHER_ID]
    ordered = await asked(alice, "PUT", path, {"image_ids": wanted})
    assert [place["image_id"] for place in ordered["images"]] == wanted == await order(database_url)
    before = await contents(database_url)
    answer = await alice.put(path, json={"image_ids": wanted[:2]})
    assert_problem(answer, 409, "order_incomplete", "image_ids")
    answer = await alice.put(path, json={"image_ids": [MISSING, *wanted]})
    assert_problem(answer, 404, "not_found", "image_ids[0]")
    answer = await alice.put(path, json={"image_ids": [*wanted, IMAGE_ID]})
    assert_problem(answer, 422, "invalid_request", "image_ids[3]")
    assert await contents(database_url) == before


async def test_moves_orders_and_additions_at_once_leave_every_image_at_one_place(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    rng = random.Random(3)
    ids = [IMAGE_ID, OTHER_ID, *await many(alice, 8)]
    await put(alice, ALBUM_ID, *ids)
    more = await many(alice, 6)
    asks = [alice.put(f"{PATH}/images/{id_}") for id_ in more]
    for _ in range(20):
        moved, anchor = rng.sample(ids, 2)
        asks.append(alice.patch(f"{PATH}/images/{moved}", json={rng.choice(["before", "after"]): anchor}))
    rng.shuffle(asks)
    answers = await asyncio.gather(*asks)
    assert {answer.status_code for answer in answers} == {200, 201}
    assert sorted(await order(database_url)) == sorted(ids + more)
    positions = await execute(database_url, "SELECT count(DISTINCT position) = count(*) FROM album_image")
    assert positions == [(True,)]


# ── What cannot be taken ────────────────────────────────────────────────────────────────────────────────────────

NO_TITLE: list[Any] = [None, "", " \n", "t" * 256, 1, "a\0", []]
NO_ID: list[Any] = ["", "x", 7, [], IMAGE_ID + "0"]
BAD: list[tuple[str, str, Any, list[str]]] = [
    *[
        (method, path, {"title": one}, ["title"])
        for method, path in (("POST", ""), ("PATCH", "/A"))
        for one in NO_TITLE
    ],
    *[
        (method, path, {"title": "t", "cover_image_id": one}, ["cover_image_id"])
        for method, path in (("POST", ""), ("PATCH", "/A"))
        for one in NO_ID
    ],
    ("POST", "", {}, ["title"]),
    ("POST", "", {"title": "t", "id": "x"}, ["id"]),
    ("POST", "", {"title": "t", "user_id": "eve"}, ["user_id"]),
    ("POST", "", {"title": "t", "description": "d" * 32_769}, ["description"]),
    ("PATCH", "/A", {}, [""]),
    ("PATCH", "/A", {"id": IMAGE_ID}, ["id"]),
    ("PATCH", "/A", {"row_version": 1}, ["row_version"]),
    ("POST", "/A/images", {}, ["images"]),
    ("POST", "/A/images", {"images": []}, ["images"]),
    ("POST", "/A/images", {"images": [{}]}, ["images[0].image_id"]),
    *[("POST", "/A/images", {"images": [{"image_id": one}]}, ["images[0].image_id"]) for one in [*NO_ID, None]],
    ("POST", "/A/images", {"images": [{"image_id": THIRD_ID}] * 2}, ["images[1].image_id"]),
    ("POST", "/A/images", {"images": [{"image_id": THIRD_ID, "caption": "c" * 4_097}]}, ["images[0].caption"]),
    ("POST", "/A/images", {"images": [{"image_id": THIRD_ID, "caption": "\0"}]}, ["images[0].caption"]),
    ("POST", "/A/images", {"images": [{"image_id": THIRD_ID, "position": 1}]}, ["images[0].position"]),
    ("POST", "/A/images", {"images": [{"image_id": THIRD_ID}] * 1_001}, ["images"]),
    ("PUT", "/A/images", {"image_ids": []}, ["image_ids"]),
    ("PUT", "/A/images", {"image_ids": None}, ["image_ids"]),
    ("PUT", "/A/images", {"image_ids": [IMAGE_ID, "x"]}, ["image_ids[1]"]),
    ("PUT", "/A/images", {"image_ids": [MISSING] * 10_001}, ["image_ids"]),
    ("PUT", "/A/images/I", {"caption": 1}, ["caption"]),
    ("PUT", "/A/images/I", {"position": 1}, ["position"]),
    ("PATCH", "/A/images/I", {}, [""]),
    ("PATCH", "/A/images/I", {"caption": "\0"}, ["caption"]),
    ("PATCH", "/A/images/I", {"before": OTHER_ID, "after": OTHER_ID}, ["after"]),
    ("PATCH", "/A/images/I", {"before": None}, ["before"]),
    ("PATCH", "/A/images/I", {"after": "x"}, ["after"]),
    ("PATCH", "/x", {"title": "t"}, ["album_id"]),
    ("DELETE", "/x", None, ["album_id"]),
    ("PUT", "/x/images", {"image_ids": [IMAGE_ID]}, ["album_id"]),
    ("PUT", "/A/images/x", None, ["image_id"]),
    ("DELETE", "/A/images/%00", None, ["image_id"]),
]


async def test_what_cannot_be_taken_is_named_and_nothing_is_written(
    alice: httpx.AsyncClient, database_url: str
) -> None:
    before = await contents(database_url)
    for method, path, body, fields in BAD:
        full = "/api/albums" + path.replace("/A", f"/{ALBUM_ID}").replace("/I", f"/{IMAGE_ID}")
        assert_problem(await alice.request(method, full, json=body), 422, "invalid_request", *fields)
    for anchor in ({"before": MISSING}, {"after": THIRD_ID}, {"caption": "c", "before": THIRD_ID}):
        answer = await alice.patch(f"{PATH}/images/{IMAGE_ID}", json=anchor)
        assert_problem(answer, 404, "not_found", next(name for name in anchor if name != "caption"))
    assert_problem(await alice.patch(f"{PATH}/images/{THIRD_ID}", json={"before": IMAGE_ID}), 404, "not_found")
    assert await contents(database_url) == before
