"""Browsing over HTTP: lists, search, counts, details and albums, all from the user's own replica."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import httpx
import pytest

from tests.support.http import assert_problem, execute, save
from tests.support.server import RunningServer

ALBUM = "0a9d3b5e-52cf-4f0e-8a3c-1f5b8f3f7d20"


@pytest.fixture
async def gallery(client: httpx.AsyncClient, database_url: str) -> dict[str, str]:
    """Three images, the ids by name: one liked and rated, two of them in an album."""
    ids = {}
    for hour, (name, fields) in enumerate(
        {
            "heron": {"prompt": "a heron at low water", "model": "sdxl"},
            "pool": {"prompt": "a tide pool", "model": "flux", "alt_text": "anemones", "source": "import"},
            "dune": {"prompt": "a dune", "negative_prompt": "low water"},
        }.items()
    ):
        ids[name] = (await save(client, created_at=f"2025-03-01T0{hour}:00:00Z", **fields))["id"]
    told = (
        "INSERT INTO image_activity (user_id, image_id, is_favorite, rating, o_count) VALUES ('alice', %s, %s, %s, %s)"
    )
    await execute(database_url, told, ids["heron"], True, 80, 2)
    await execute(database_url, told, ids["pool"], False, 20, 0)
    await execute(database_url, "INSERT INTO album (user_id, id, title) VALUES ('alice', %s, 'Herons abroad')", ALBUM)
    for position, name in enumerate(("pool", "heron")):
        await execute(
            database_url,
            "INSERT INTO album_image (user_id, album_id, image_id, position, caption) VALUES ('alice', %s, %s, %s, %s)",
            ALBUM,
            ids[name],
            position,
            f"the {name}",
        )
    await client.post("/api/sync")
    return ids


async def listed(
    client: httpx.AsyncClient, gallery: dict[str, str], query: str, path: str = "/api/images"
) -> list[str]:
    answer = await client.get(f"{path}?{query}")
    assert answer.status_code == 200, answer.text
    names = {id_: name for name, id_ in gallery.items()}
    return [names[image["id"]] for image in answer.json()["images"]]


LISTS: list[tuple[str, list[str]]] = [
    ("", ["dune", "pool", "heron"]),
    ("order=asc", ["heron", "pool", "dune"]),
    ("favorite=true", ["heron"]),
    ("favorite=false", ["dune", "pool"]),
    ("min_rating=20", ["pool", "heron"]),
    ("min_rating=21&sort=rating", ["heron"]),
    (f"album={ALBUM}", ["pool", "heron"]),
    (f"album={ALBUM.upper()}&sort=position&order=desc", ["heron", "pool"]),
    ("source=import", ["pool"]),
    ("model=sdxl&source=message_response", ["heron"]),
    ("created_from=2025-03-01T01:00:00Z", ["dune", "pool"]),
    ("created_to=2025-03-01T02:00:00%2B01:00", ["heron"]),
    ("created_from=2025-03-02", []),
    ("sort=rating", ["heron", "pool", "dune"]),
    ("sort=rating&order=asc", ["pool", "heron", "dune"]),
    ("sort=o_count&order=asc", ["pool", "dune", "heron"]),
    ("q=low+water", ["heron", "dune"]),
    ("q=herons", ["pool", "heron"]),
    ("q=hero*&sort=created_at", ["pool", "heron"]),
    ("q=%22low%20a%22", []),
    ("q=anemones&favorite=true", []),
    ("q=+", ["dune", "pool", "heron"]),
]


async def test_images_are_listed_as_they_are_asked_for(client: httpx.AsyncClient, gallery: dict[str, str]) -> None:
    for query, names in LISTS:
        assert await listed(client, gallery, query) == names, query


HOSTILE = [
    '"',
    "AND",
    "a OR",
    "NEAR(a",
    "prompt:",
    "^low",
    "(((",
    "*",
    "\0",
    "lo\0w",
    "🏊",
    "مرحبا",
    "\u202e",
    "-low",
    "'; --",
]


async def test_whatever_is_searched_for_is_text(client: httpx.AsyncClient, gallery: dict[str, str]) -> None:
    for q in [*HOSTILE, " ".join(f"word{n}" for n in range(1_000))]:
        for path in ("/api/images", "/api/images/facets", f"/api/albums/{ALBUM}/images"):
            assert (await client.get(path, params={"q": q})).status_code == 200, (path, q)


REFUSED: list[tuple[str, list[str]]] = [
    ("favorite=1", ["favorite"]),
    ("min_rating=101&min_rating=", ["min_rating", "min_rating"]),
    ("min_rating=%D9%A1", ["min_rating"]),
    ("album=mine", ["album"]),
    ("sort=size&order=up", ["sort", "order"]),
    ("sort=position", ["sort"]),
    ("sort=relevance&q=", ["sort"]),
    ("created_from=yesterday&created_to=2025-02-30", ["created_from", "created_to"]),
    ("created_from=2025-03-01T08:00:00", ["created_from"]),
    ("created_from=0001-01-01T00:00:00%2B01:00", ["created_from"]),
    ("favourite=true", ["favourite"]),
]


async def test_a_parameter_that_cannot_be_taken_is_refused_by_name(client: httpx.AsyncClient) -> None:
    for query, fields in REFUSED:
        assert_problem(await client.get(f"/api/images?{query}"), 422, "invalid_request", *fields)


async def test_a_cursor_is_taken_only_with_the_filters_and_order_of_its_list(
    client: httpx.AsyncClient, gallery: dict[str, str]
) -> None:
    plain, rated = "limit=1", "limit=1&sort=rating"
    cursors = {query: (await client.get(f"/api/images?{query}")).json()["next_cursor"] for query in (plain, rated)}
    assert await listed(client, gallery, f"limit=5&sort=rating&cursor={cursors[rated]}") == ["pool", "dune"]
    for query in (
        f"cursor={cursors[rated]}",
        f"sort=rating&order=asc&cursor={cursors[rated]}",
        f"sort=rating&favorite=true&cursor={cursors[rated]}",
        f"sort=rating&cursor={cursors[plain]}",
    ):
        assert_problem(await client.get(f"/api/images?{query}"), 422, "invalid_request", "cursor")
    for path in ("/api/albums", f"/api/images/{gallery['dune']}/history", f"/api/albums/{ALBUM}/images"):
        assert_problem(await client.get(f"{path}?cursor={cursors[plain]}"), 422, "invalid_request", "cursor")


async def test_images_are_counted_by_kind_with_the_same_filters(
    client: httpx.AsyncClient, gallery: dict[str, str]
) -> None:
    async def counted(query: str) -> dict[str, Any]:
        answer: dict[str, Any] = (await client.get(f"/api/images/facets?{query}")).json()
        del answer["version"]
        return answer

    album = {"id": ALBUM, "title": "Herons abroad"}
    assert await counted("") == {
        "total": 3,
        "favorites": 1,
        "models": [{"value": "flux", "count": 1}, {"value": "sdxl", "count": 1}],
        "sources": [{"value": "message_response", "count": 2}, {"value": "import", "count": 1}],
        "albums": [album | {"count": 2}],
    }
    only_heron = {
        "total": 1,
        "favorites": 1,
        "models": [{"value": "sdxl", "count": 1}],
        "sources": [{"value": "message_response", "count": 1}],
        "albums": [album | {"count": 1}],
    }
    for query in (
        "favorite=true",
        "min_rating=50",
        "model=sdxl",
        "created_to=2025-03-01T00:30:00Z",
        "q=heron*&model=sdxl",
    ):
        assert await counted(query) == only_heron, query
    assert (await counted(f"album={ALBUM}&favorite=false"))["total"] == 1
    assert (await counted("q=🏊"))["total"] == 0


async def test_an_image_tells_its_history_and_its_events_and_albums_where_they_are_asked_for(
    client: httpx.AsyncClient, gallery: dict[str, str], database_url: str
) -> None:
    pool = gallery["pool"]
    edits = """
        INSERT INTO image_edit (user_id, image_id, field, old_value, new_value, edited_by, edited_at)
        SELECT 'alice', %s, 'alt_text', to_jsonb(n), to_jsonb('anemones'::text), 'alice',
          timestamptz '2025-01-01' + n * interval '1 day'
        FROM generate_series(1, 30) AS n"""
    await execute(database_url, edits, pool)
    await execute(database_url, "INSERT INTO image_event (user_id, image_id, kind) VALUES ('alice', %s, 'view')", pool)
    await client.post("/api/sync")
    bare = (await client.get(f"/api/images/{pool}")).json()
    whole = (await client.get(f"/api/images/{pool}?include=history,events,albums")).json()
    assert {name: whole[name] for name in bare} == bare
    assert "history" in bare
    never_edited = (await client.get(f"/api/images/{gallery['dune']}")).json()
    assert never_edited["history"] == {"entries": [], "next_cursor": None}
    history = whole["history"]
    assert [entry["old_value"] for entry in history["entries"]] == list(range(30, 10, -1))
    assert history["entries"][0].items() >= {"field": "alt_text", "new_value": "anemones", "edited_by": "alice"}.items()
    more = await client.get(f"/api/images/{pool}/history?cursor={history['next_cursor']}")
    assert [entry["old_value"] for entry in more.json()["entries"]] == list(range(10, 0, -1))
    assert more.json()["next_cursor"] is None
    assert [event["kind"] for event in whole["events"]["entries"]] == ["view"]
    [place] = whole["albums"]
    assert place.items() >= {"id": ALBUM, "title": "Herons abroad", "position": 0, "caption": "the pool"}.items()
    assert_problem(await client.get(f"/api/images/{pool}?include=all"), 422, "invalid_request", "include")
    assert_problem(await client.get(f"/api/images/{uuid4()}/events"), 404, "not_found")


async def test_an_album_shows_its_cover_its_count_and_its_images_in_order(
    client: httpx.AsyncClient, gallery: dict[str, str], database_url: str
) -> None:
    [album] = (await client.get("/api/albums")).json()["albums"]
    assert (album["title"], album["image_count"], album["cover"]["image_id"]) == ("Herons abroad", 2, gallery["pool"])
    page = (await client.get(f"/api/albums/{ALBUM}/images")).json()
    assert [(image["position"], image["caption"]) for image in page["images"]] == [(0, "the pool"), (1, "the heron")]
    assert await listed(client, gallery, "sort=created_at&favorite=true", f"/api/albums/{ALBUM}/images") == ["heron"]
    await execute(database_url, "UPDATE album SET cover_image_id = %s", gallery["heron"])
    await client.post("/api/sync")
    chosen = (await client.get(f"/api/albums/{ALBUM}")).json()
    assert chosen["cover"]["image_id"] == gallery["heron"]
    await client.delete(f"/api/images/{gallery['heron']}")
    await client.post("/api/sync")
    left = (await client.get(f"/api/albums/{ALBUM}")).json()
    assert (left["image_count"], left["cover_image_id"], left["cover"]["image_id"]) == (1, None, gallery["pool"])


async def test_albums_are_listed_by_pages_the_newest_first(client: httpx.AsyncClient, database_url: str) -> None:
    many = (
        "INSERT INTO album (user_id, title, created_at) "
        "SELECT 'alice', n::text, timestamptz '2025-01-01' + n * interval '1 hour' FROM generate_series(1, 7) AS n"
    )
    await execute(database_url, many)
    await client.post("/api/sync")
    titles: list[str] = []
    query = "limit=3"
    while query:
        page = (await client.get(f"/api/albums?{query}")).json()
        titles += [album["title"] for album in page["albums"]]
        query = f"limit=3&cursor={page['next_cursor']}" if page["next_cursor"] else ""
    assert titles == ["7", "6", "5", "4", "3", "2", "1"]


async def test_an_album_of_another_user_is_no_album(server: RunningServer, gallery: dict[str, str]) -> None:
    stranger = server.client("bob")
    for path in (f"/api/albums/{ALBUM}", f"/api/albums/{ALBUM}/images"):
        assert_problem(await stranger.get(path), 404, "not_found")
    assert (await stranger.get("/api/albums")).json()["albums"] == []
    assert (await stranger.get(f"/api/images?album={ALBUM}")).json()["images"] == []
    assert_problem(await stranger.get("/api/albums/mine"), 422, "invalid_request", "album_id")


async def test_what_is_edited_in_the_viewer_shows_in_every_view_at_once(
    client: httpx.AsyncClient, gallery: dict[str, str]
) -> None:
    """Seed 003: alt text and description were saved in one table and shown from another."""
    pool = gallery["pool"]
    edited = await client.patch(f"/api/images/{pool}", json={"alt_text": "limpets", "description": "at dusk"})
    image = {name: value for name, value in edited.json().items() if name != "version"}
    headers = {"X-Min-Version": edited.json()["version"]}
    one = (await client.get(f"/api/images/{pool}", headers=headers)).json()
    assert {name: one[name] for name in image} == image
    lists = ["/api/images", f"/api/images?album={ALBUM}", f"/api/albums/{ALBUM}/images", "/api/images?q=limpets"]
    for path in lists:
        shown = {each["id"]: each for each in (await client.get(path)).json()["images"]}
        assert {name: shown[pool][name] for name in image} == image, path
    assert (await client.get(f"/api/albums/{ALBUM}")).json()["cover"]["alt_text"] == "limpets"
    assert (await client.get("/api/images?q=anemones")).json()["images"] == []


async def test_what_is_deleted_is_gone_from_lists_albums_search_and_counts(
    client: httpx.AsyncClient, gallery: dict[str, str]
) -> None:
    await client.delete(f"/api/images/{gallery['heron']}")
    await client.post("/api/sync")
    assert await listed(client, gallery, "") == ["dune", "pool"]
    assert await listed(client, gallery, "q=heron") == []
    assert await listed(client, gallery, "", f"/api/albums/{ALBUM}/images") == ["pool"]
    counts = (await client.get("/api/images/facets")).json()
    assert (counts["total"], counts["favorites"], counts["albums"][0]["count"]) == (2, 0, 1)
