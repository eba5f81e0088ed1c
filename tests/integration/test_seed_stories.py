"""The stories of the seeds 000, 001 and 003: what a page shows after it is refreshed is what was done, everywhere."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import httpx
import pytest

from primary.declaration import Catalog
from replica.export import FORMATS
from replica.library import connect
from replica.location import DataDirectory
from tests.conftest import Serving
from tests.support.exports import Read, read
from tests.support.gallery_writes import asked, put, reads
from tests.support.http import execute, save
from tests.support.server import RunningServer


async def shown(client: httpx.AsyncClient, image_id: str, *fields: str) -> Any:
    """Give what the lightbox and the card both show of an image after a refresh; they must not differ."""
    alone, listed = await reads(client, image_id)
    assert [alone[field] for field in fields] == [listed[field] for field in fields]
    return alone[fields[0]] if len(fields) == 1 else tuple(alone[field] for field in fields)


def in_replica(server: RunningServer, user: str, sql: str, *values: Any) -> list[Any]:
    """Read the user's own file, as every read over HTTP does."""
    location = DataDirectory(server.settings.data_dir).of(user)
    with closing(connect(location.uri("ro"))) as connection:
        return list(connection.execute(sql, values))


def named(catalog: Catalog, table: str, found: Read) -> list[dict[str, Any]]:
    """Give an export's rows of a table by the names of their columns."""
    names = [column.name for column in catalog[table].columns]
    return [dict(zip(names, row, strict=True)) for row in found.rows[table]]


# ── 001: hearts and uses ────────────────────────────────────────────────────────────────────────────────────────


async def test_a_heart_that_is_clicked_is_still_a_heart_after_a_refresh(client: httpx.AsyncClient) -> None:
    image = (await save(client))["id"]
    assert await shown(client, image, "is_favorite") is False
    answer = await asked(client, "POST", f"/api/images/{image}/favorite")
    assert answer["is_favorite"] is True
    assert await shown(client, image, "is_favorite") is True


async def test_a_heart_that_is_clicked_again_stays_empty_after_a_refresh(client: httpx.AsyncClient) -> None:
    image = (await save(client))["id"]
    for expected in (True, False, True, False):
        answer = await asked(client, "POST", f"/api/images/{image}/favorite")
        assert answer["is_favorite"] is expected
        assert await shown(client, image, "is_favorite") is expected


async def test_five_hearts_are_five_hearts_and_no_others(client: httpx.AsyncClient) -> None:
    images = [(await save(client))["id"] for _ in range(8)]
    for image in images[:5]:
        await asked(client, "PUT", f"/api/images/{image}/favorite", {"favorite": True})
    await asked(client, "POST", "/api/sync")
    listed = (await client.get("/api/images")).json()["images"]
    assert {image["id"] for image in listed if image["is_favorite"]} == set(images[:5])


async def test_hearts_and_uses_survive_a_restart(serving: Serving) -> None:
    async with serving() as server:
        client = server.client("alice")
        image = (await save(client))["id"]
        await asked(client, "POST", f"/api/images/{image}/favorite")
        for _ in range(3):
            await asked(client, "POST", f"/api/images/{image}/usage")
    async with serving() as server:
        # Without a sync, too: what the file lacks is known by the version of the write.
        assert await shown(server.client("alice"), image, "is_favorite", "usage_count") == (True, 3)


async def test_a_heart_is_read_back_by_the_version_of_its_click(client: httpx.AsyncClient) -> None:
    image = (await save(client))["id"]
    clicked = await asked(client, "PUT", f"/api/images/{image}/favorite", {"favorite": True})
    read = await client.get(f"/api/images/{image}", headers={"X-Min-Version": clicked["version"]})
    assert read.json()["is_favorite"] is True


async def test_each_use_of_an_image_counts_and_is_remembered(server: RunningServer, client: httpx.AsyncClient) -> None:
    image = (await save(client))["id"]
    when = ["2025-01-02T03:04:05.000006Z", "2025-01-01T00:00:00.000000Z"]
    told = [await asked(client, "POST", f"/api/images/{image}/usage", {"occurred_at": at}) for at in when]
    assert [answer["usage_count"] for answer in told] == [1, 2]
    assert await shown(client, image, "usage_count") == 2
    events = in_replica(server, "alice", "SELECT occurred_at FROM image_event WHERE kind = 'usage' ORDER BY 1 DESC")
    assert [at for (at,) in events] == when


async def test_an_image_whose_heart_was_clicked_leaves_nothing_when_it_is_deleted(
    server: RunningServer, client: httpx.AsyncClient
) -> None:
    image = (await save(client))["id"]
    await asked(client, "POST", f"/api/images/{image}/favorite")
    await asked(client, "POST", f"/api/images/{image}/views")
    await asked(client, "PATCH", f"/api/images/{image}", {"alt_text": "a"})
    await asked(client, "DELETE", f"/api/images/{image}")
    await asked(client, "POST", "/api/sync")
    for table in ("image", "image_activity", "image_event", "image_edit"):
        assert in_replica(server, "alice", f"SELECT count(*) FROM {table}") == [(0,)]


# ── 000: ratings, O, views ──────────────────────────────────────────────────────────────────────────────────────


async def test_an_o_in_the_lightbox_is_on_the_card(client: httpx.AsyncClient) -> None:
    image = (await save(client))["id"]
    for expected in (1, 2):
        assert (await asked(client, "POST", f"/api/images/{image}/o"))["o_count"] == expected
        assert await shown(client, image, "o_count") == expected


async def test_an_o_by_mistake_can_be_taken_back_and_never_goes_below_none(
    server: RunningServer, client: httpx.AsyncClient
) -> None:
    image = (await save(client))["id"]
    for at in ("2025-01-01T00:00:00Z", "2025-01-03T00:00:00Z", "2025-01-02T00:00:00Z"):
        await asked(client, "POST", f"/api/images/{image}/o", {"occurred_at": at})
    left = []
    for expected in (2, 1, 0, 0):
        assert (await asked(client, "DELETE", f"/api/images/{image}/o"))["o_count"] == expected
        assert await shown(client, image, "o_count") == expected
        left.append(
            [at[:10] for (at,) in in_replica(server, "alice", "SELECT occurred_at FROM image_event ORDER BY 1")]
        )
    assert left == [["2025-01-01", "2025-01-02"], ["2025-01-01"], [], []], "the newest goes first"


async def test_a_view_in_the_lightbox_counts_and_says_when_the_image_was_seen_last(
    server: RunningServer, client: httpx.AsyncClient
) -> None:
    image = (await save(client))["id"]
    assert await shown(client, image, "view_count", "last_viewed_at") == (0, None)
    late, early = "2025-02-01T00:00:00.000000Z", "2025-01-01T00:00:00.000000Z"
    await asked(client, "POST", f"/api/images/{image}/views", {"occurred_at": late})
    # A phone that was offline tells of an older view later.
    told = await asked(client, "POST", f"/api/images/{image}/views", {"occurred_at": early})
    assert (told["view_count"], told["last_viewed_at"]) == (2, late)
    assert await shown(client, image, "view_count", "last_viewed_at") == (2, late)
    history = in_replica(server, "alice", "SELECT occurred_at FROM image_event WHERE image_id = ? ORDER BY 1", image)
    assert history == [(early,), (late,)]


async def test_a_view_is_no_o_and_an_o_is_no_view(client: httpx.AsyncClient) -> None:
    image = (await save(client))["id"]
    await asked(client, "POST", f"/api/images/{image}/o")
    assert await shown(client, image, "view_count", "o_count", "usage_count", "last_viewed_at") == (0, 1, 0, None)


@pytest.mark.parametrize("rating", [0, 1, 70, 100])
async def test_a_rating_stays_and_can_be_taken_away(client: httpx.AsyncClient, rating: int) -> None:
    image = (await save(client))["id"]
    for given in (50, rating, None):
        assert (await asked(client, "PUT", f"/api/images/{image}/rating", {"rating": given}))["rating"] == given
        assert await shown(client, image, "rating") == given


async def test_what_one_user_thinks_of_an_image_is_theirs_alone(server: RunningServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    image = (await save(alice))["id"]
    await save(bob, id=image)
    await asked(alice, "PUT", f"/api/images/{image}/rating", {"rating": 90})
    await asked(bob, "POST", f"/api/images/{image}/favorite")
    assert await shown(alice, image, "rating", "is_favorite") == (90, False)
    assert await shown(bob, image, "rating", "is_favorite") == (None, True)


# ── 003: details in one place ───────────────────────────────────────────────────────────────────────────────────


async def test_alt_text_that_is_edited_in_the_viewer_is_in_every_album(
    server: RunningServer, client: httpx.AsyncClient
) -> None:
    image = (await save(client))["id"]
    albums = [(await asked(client, "POST", "/api/albums", {"title": title}))["id"] for title in ("one", "two")]
    for album in albums:
        await put(client, album, image)
    await asked(client, "PATCH", f"/api/images/{image}", {"alt_text": "a heron", "description": "in the reeds"})
    assert await shown(client, image, "alt_text", "description") == ("a heron", "in the reeds")
    # An album's grid takes it from the image; nothing has a copy that could be another.
    for album in albums:
        sql = "SELECT alt_text, description FROM album_image JOIN image ON id = image_id WHERE album_id = ?"
        assert in_replica(server, "alice", sql, album) == [("a heron", "in the reeds")]


async def test_what_an_image_says_is_the_same_wherever_it_is_shown(client: httpx.AsyncClient, catalog: Catalog) -> None:
    image = (await save(client, alt_text="a heron", description="before"))["id"]
    album = (await asked(client, "POST", "/api/albums", {"title": "one"}))["id"]
    await put(client, album, image)
    for alt_text in ("a grey heron", None, "Ardea cinerea, “low water”\n🐚"):
        edited = {"alt_text": alt_text, "description": f"in the reeds, {alt_text}"}
        version = (await asked(client, "PATCH", f"/api/images/{image}", edited))["version"]
        assert await shown(client, image, "alt_text", "description") == (*edited.values(),)
        (in_album,) = (await client.get(f"/api/albums/{album}/images")).json()["images"]
        assert {field: in_album[field] for field in edited} == edited
        for name in FORMATS:
            answer = await client.get("/api/export", params={"format": name}, headers={"X-Min-Version": version})
            (row,) = named(catalog, "image", read(name, answer.content, catalog))
            assert {field: row[field] for field in edited} == edited, name


async def test_who_changed_what_and_when_is_part_of_the_export(
    server: RunningServer, client: httpx.AsyncClient, catalog: Catalog
) -> None:
    image = (await save(client, alt_text="before"))["id"]
    await asked(client, "PATCH", f"/api/images/{image}", {"alt_text": "after", "steps": 30})
    await asked(client, "POST", f"/api/images/{image}/views", {"occurred_at": "2025-01-02T03:04:05Z"})
    await execute(server.settings.database_url or "", "UPDATE image SET alt_text = NULL")
    await asked(client, "POST", "/api/sync")
    history = (await client.get(f"/api/images/{image}/history?limit=10")).json()["entries"]
    assert len(history) == 3
    for name in FORMATS:
        found = read(name, (await client.get("/api/export", params={"format": name})).content, catalog)
        edits = named(catalog, "image_edit", found)
        told = [(edit["field"], edit["edited_by"], edit["edited_at"]) for edit in history]
        assert sorted(told) == sorted((edit["field"], edit["edited_by"], edit["edited_at"]) for edit in edits), name
        assert {(edit["field"], edit["old_value"], edit["new_value"]) for edit in edits} == {
            ("alt_text", '"before"', '"after"'),
            ("steps", None, "30"),
            ("alt_text", '"after"', None),
        }
        (viewed,) = named(catalog, "image_event", found)
        assert (viewed["image_id"], viewed["occurred_at"]) == (image, "2025-01-02T03:04:05.000000Z")


async def test_a_caption_is_of_one_album_and_leaves_the_image_as_it_is(
    server: RunningServer, client: httpx.AsyncClient
) -> None:
    image = (await save(client, alt_text="a heron"))["id"]
    albums = [(await asked(client, "POST", "/api/albums", {"title": title}))["id"] for title in ("one", "two")]
    for album in albums:
        await put(client, album, image)
    await asked(client, "PATCH", f"/api/albums/{albums[0]}/images/{image}", {"caption": "only here"})
    assert await shown(client, image, "alt_text", "row_version") == ("a heron", 1)
    captions = dict(in_replica(server, "alice", "SELECT album_id, caption FROM album_image"))
    assert captions == {albums[0]: "only here", albums[1]: None}


async def test_two_people_at_one_image_cannot_overwrite_each_other_unseen(client: httpx.AsyncClient) -> None:
    image = (await save(client))["id"]
    path = f"/api/images/{image}"
    await asked(client, "PATCH", path, {"alt_text": "first"}, **{"If-Match": '"1"'})
    late = await client.patch(path, json={"alt_text": "second"}, headers={"If-Match": '"1"'})
    assert late.status_code == 412
    assert late.json()["current"]["alt_text"] == "first"
    assert await shown(client, image, "alt_text") == "first"


async def test_who_changed_what_and_when_is_told(server: RunningServer, client: httpx.AsyncClient) -> None:
    image = (await save(client, alt_text="before"))["id"]
    edited = await asked(
        client, "PATCH", f"/api/images/{image}", {"alt_text": "after", "steps": 30, "prompt": "a tide pool"}
    )
    await execute(server.settings.database_url or "", "UPDATE image SET alt_text = NULL")
    await asked(client, "POST", "/api/sync")
    told = in_replica(
        server, "alice", "SELECT field, old_value, new_value, edited_by FROM image_edit ORDER BY edited_at, field"
    )
    assert told == [
        ("alt_text", '"before"', '"after"', "alice"),
        ("steps", None, "30", "alice"),
        ("alt_text", '"after"', None, "sql:postgres"),
    ]
    assert edited["row_version"] == 2
