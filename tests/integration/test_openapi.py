"""The description of the API says what the server really takes and answers, with examples that work."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from primary.cursor import Cursor
from tests.conftest import Serving
from tests.support.gallery_writes import ALBUM_ID, IMAGE_ID, OTHER_ID, THIRD_ID, WRITES, furnish, path_of
from tests.support.http import IMAGE, execute
from tests.support.schemas import Document
from tests.support.server import RunningServer

ID = "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11"
ALBUM = "0a9d3b5e-52cf-4f0e-8a3c-1f5b8f3f7d20"


@pytest.fixture
async def described(server: RunningServer) -> Document:
    answer = await server.client(None).get("/schema/openapi.json")
    assert answer.status_code == 200
    return Document(answer.json())


def route_of(request: httpx.Request, described: Document) -> str:
    """Tell which of the described operations a request is for."""
    for route in described.operations():
        method, _, path = route.partition(" ")
        # The paths without a parameter come first, as they do in the server.
        if request.method == method and request.url.path == path:
            return route
    for route in described.operations():
        method, _, path = route.partition(" ")
        if request.method == method and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", path), request.url.path):
            return route
    raise AssertionError(f"{request.method} {request.url.path} is not described")


def is_json(kind: str) -> bool:
    return kind.endswith(("/json", "+json"))


def check(described: Document, answer: httpx.Response) -> tuple[str, int]:
    """Check that an answer is as its route's description says; give the route and the status."""
    route = route_of(answer.request, described)
    operation = described.operations()[route]
    assert str(answer.status_code) in operation["responses"], f"{route}: {answer.status_code} is not described"
    said = described.follow(operation["responses"][str(answer.status_code)])
    for name, header in said.get("headers", {}).items():
        if name.lower() in answer.headers:
            assert not described.faults(header["schema"], answer.headers[name]), f"{route}: {name}"
    if not said.get("content"):
        assert answer.content == b"", f"{route} {answer.status_code}: a body that is not described"
        return route, answer.status_code
    kind = answer.headers["content-type"].partition(";")[0]
    assert kind in said["content"], f"{route} {answer.status_code}: {kind} is not described"
    value = answer.json() if is_json(kind) else answer.text
    if isinstance(value, dict) and "current" in value:
        value.pop("current")  # what an edit conflicts with: an extension member, as RFC 9457 allows them
    faults = described.faults(said["content"][kind]["schema"], value)
    assert not faults, f"{route} {answer.status_code}: {faults}"
    return route, answer.status_code


# ── The document by itself ──────────────────────────────────────────────────────────────────────────────────────


async def test_the_description_is_a_sound_openapi_document(described: Document) -> None:
    document = described.document
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert document["info"]["title"]
    assert document["info"]["version"]
    for reference in described.references():
        assert described.follow({"$ref": reference}), reference
    operations = described.operations()
    ids = [operation["operationId"] for operation in operations.values()]
    assert len(set(ids)) == len(ids)
    tags = {tag["name"] for tag in document["tags"]}
    assert all(re.fullmatch(r"[A-Z]\w+", name) for name in document["components"]["schemas"])  # none of a module
    for route, operation in operations.items():
        assert operation["summary"], route
        assert set(operation["tags"]) <= tags, route
        parameters = {(one["name"], one["in"]): one for one in operation.get("parameters", ())}
        assert len(parameters) == len(operation.get("parameters", ())), f"{route}: a parameter is described twice"
        in_path = set(re.findall(r"\{(\w+)\}", route))
        assert {name for name, place in parameters if place == "path"} == in_path, route
        assert all(parameters[name, "path"]["required"] for name in in_path), route
        for scheme in operation.get("security", ()):
            assert scheme.keys() <= document["components"]["securitySchemes"].keys(), route
        for status, response in operation["responses"].items():
            assert re.fullmatch(r"[1-5]\d\d", status), route
            assert described.follow(response)["description"], f"{route} {status}"
        assert any(status.startswith("2") for status in operation["responses"]), route


async def test_who_asks_which_methods_a_path_has_is_told_of_all_of_them(
    described: Document, server: RunningServer
) -> None:
    methods: dict[str, set[str]] = {}
    for route in described.operations():
        method, _, path = route.partition(" ")
        methods.setdefault(re.sub(r"\{\w+\}", ID, path), {"OPTIONS"}).add(method)
    methods["/schema/openapi.json"] = {"GET", "OPTIONS"}
    client = server.client("alice")
    for path, expected in methods.items():
        answer = await client.options(path)
        assert (answer.status_code, answer.content) == (204, b""), path
        assert set(answer.headers["allow"].split(", ")) == expected, path
        refused = await client.request("TRACE", path)
        assert refused.status_code == 405, path
        assert set(refused.headers["allow"].split(", ")) == expected, path


async def test_all_that_needs_a_token_says_so_and_nothing_else(described: Document) -> None:
    for route, operation in described.operations().items():
        path = route.partition(" ")[2]
        assert bool(operation.get("security")) is path.startswith("/api/"), route
        assert ("401" in operation["responses"]) is path.startswith("/api/"), route


async def test_every_body_that_is_taken_and_every_answer_has_an_example_that_fits(described: Document) -> None:
    missing = []
    for route, operation in described.operations().items():
        bodies = [("request", operation["requestBody"])] if "requestBody" in operation else []
        bodies += [(status, described.follow(said)) for status, said in operation["responses"].items()]
        for name, said in bodies:
            for kind, content in said.get("content", {}).items():
                if not is_json(kind):
                    continue
                try:
                    example = described.example_of(content)
                except LookupError as error:
                    missing.append(f"{route} {name}: {error}")
                else:
                    assert not (faults := described.faults(content["schema"], example)), f"{route} {name}: {faults}"
    assert not missing, "\n".join(missing)


async def test_the_readme_lists_every_route_and_none_that_is_not_there(described: Document) -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    listed = re.findall(r"^\| `([A-Z]+ /[^?` ]*)` \|", readme, re.MULTILINE)
    assert len(set(listed)) == len(listed)
    nameless = [re.sub(r"\{\w+\}", "{}", route) for route in described.operations()]
    assert sorted(re.sub(r"\{\w+\}", "{}", one) for one in listed if "/schema/" not in one) == sorted(nameless)


# ── The document and the server ─────────────────────────────────────────────────────────────────────────────────


async def test_the_examples_of_requests_are_taken_as_they_stand(described: Document, server: RunningServer) -> None:
    tried = set()
    for route, operation in described.operations().items():
        if "requestBody" not in operation or route.endswith("/sync"):
            continue  # the version that a sync waits for is another server's
        client = server.client(route)
        if route not in {"POST /api/images", "POST /api/images/batch"}:
            await furnish(client)
        if route == "PUT /api/albums/{album_id}/images":  # the example is of an album with one image
            await client.delete(f"/api/albums/{ALBUM_ID}/images/{OTHER_ID}")
        method, path = path_of(route)
        example = described.example_of(operation["requestBody"]["content"]["application/json"])
        answer = await client.request(method, path, json=example)
        assert answer.status_code in {200, 201}, f"{route}: {answer.text}"
        check(described, answer)
        tried.add(route)
    assert tried >= {route for route, write in WRITES.items() if write.body is not None}


UPSTREAM = {"endpoint": "https://93.184.215.14/graphql", "api_key": "a-key"}

FULL: dict[str, Any] = IMAGE | {
    "negative_prompt": "text",
    "model": "sdxl",
    "seed": -(2**63),
    "steps": 30,
    "width": 1,
    "height": 65_535,
    "persona_id": "p",
    "persona_name": "Marina",
    "alt_text": "a",
    "description": "d",
    "meta": {"a": [1, 2.5, None, {"b": "é"}]},
    "created_at": "2024-02-29T23:59:59.123456+01:00",
}


async def answers_of_writes(server: RunningServer, tight: RunningServer) -> list[httpx.Response]:
    """Ask every write of the gallery in every way that has another answer; the ``tight`` server takes 2 KB."""
    nobody, stranger, small = server.client(None), server.client("a stranger"), tight.client("alice")
    answers = []
    for route, write in WRITES.items():
        client = server.client(f"of {route}")
        await furnish(client)
        method, path = path_of(route)
        cookie = {"Cookie": f"tidepool_token={client.headers['authorization'].removeprefix('Bearer ')}"}
        answers += [
            await nobody.request(method, path),
            await nobody.request(method, path, headers=cookie | {"Sec-Fetch-Site": "cross-site"}),
            await client.request(method, path, params={"nonsense": "x"}, json=write.body),
            await client.request(method, path, json=write.body, headers={"Idempotency-Key": ""}),
        ]
        if write.body is not None or route.endswith(("/views", "POST /api/images/{image_id}/favorite")):
            answers += [
                await client.request(method, path, content=b"{"),
                await client.request(method, path, json={"nonsense": 1}),
                await client.request(method, path, json={}, headers={"Content-Type": "text/plain"}),
                await small.request(method, path, content=b" " * 3_000),
            ]
        if "{" in route:
            answers.append(await stranger.request(method, path, json=write.body))
        if route in {"PATCH /api/albums/{album_id}", "DELETE /api/albums/{album_id}"}:
            answers.append(await client.request(method, path, json=write.body, headers={"If-Match": '"9"'}))
        answers.append(await client.request(method, path, json=write.body, headers={"Idempotency-Key": "k"}))
        answers.append(await client.request(method, path, json=write.body, headers={"Idempotency-Key": "k"}))
    client = server.client("of the rest")
    await furnish(client)
    image, album = f"/api/images/{IMAGE_ID}", f"/api/albums/{ALBUM_ID}"
    missing = "00000000-0000-4000-8000-000000000000"
    for number, name in enumerate(("views", "o", "usage")):
        event = {"client_event_id": f"e{number}"}
        answers += [
            await client.post(f"{image}/{name}", json=event),
            await client.post(f"/api/images/{OTHER_ID}/{name}", json=event),
        ]
    answers += [
        await client.patch("/api/images", json={"images": [{"id": IMAGE_ID, "steps": 1, "row_version": 9}]}),
        await client.patch("/api/images", json={"images": [{"id": missing, "steps": 1}]}),
        await client.request("DELETE", "/api/images", json={"ids": [missing]}),
        await client.post("/api/albums", json={"id": ALBUM_ID, "title": "Low water"}),
        await client.post("/api/albums", json={"id": ALBUM_ID, "title": "another"}),
        await client.post("/api/albums", json={"title": "t", "cover_image_id": missing}),
        await client.patch(album, json={"cover_image_id": missing}),
        await client.patch(album, json={"cover_image_id": IMAGE_ID}),
        await client.post(f"{album}/images", json={"images": [{"image_id": IMAGE_ID}]}),
        await client.put(f"{album}/images", json={"image_ids": [IMAGE_ID]}),
        await client.put(f"{album}/images/{THIRD_ID}"),
        await client.put(f"{album}/images/{THIRD_ID}"),
        await client.patch(f"{album}/images/{THIRD_ID}", json={"before": IMAGE_ID, "caption": None}),
    ]
    return answers


async def test_every_answer_of_the_server_is_as_it_is_described(
    described: Document, serving: Serving, server: RunningServer, database_url: str
) -> None:
    """Asked in every way that has another answer: each success that is described comes, and nothing that is not."""
    client, stranger, nobody = server.client("alice"), server.client("bob"), server.client(None)
    saved = (await client.post("/api/images", json=FULL | {"id": ID})).json()
    at = Cursor.parse(saved["version"])
    future, foreign = str(Cursor(at.epoch, at.version + 9)), "a-b-c-d.1"
    image = f"/api/images/{ID}"
    await execute(
        database_url,
        "INSERT INTO image_activity (user_id, image_id, is_favorite, rating, last_viewed_at) "
        f"VALUES ('alice', '{ID}', true, 70, now())",
    )
    await execute(database_url, "INSERT INTO profile (user_id, username) VALUES ('alice', 'al')")
    answers = [
        await client.post("/api/sync"),
        await client.post("/api/images/sync", json={"min_version": saved["version"]}),
        await client.post("/api/images", json=FULL | {"id": ID}),
        await client.post("/api/images", json=IMAGE),
        await client.post("/api/images", json=FULL | {"id": ID, "prompt": "another"}),
        await client.post("/api/images/batch", json={"images": [FULL | {"id": ID}]}),
        await client.post("/api/images/batch", json={"images": [IMAGE, FULL]}),
        await client.post("/api/images/batch", json={"images": [FULL | {"id": ID, "seed": 1}]}),
        await client.patch(image, json={"prompt": "edited", "model": None}),
        await client.patch(image, json={"prompt": "edited"}, headers={"If-Match": '"9"'}),
        await stranger.patch(image, json={"prompt": "edited"}),
        await client.get(image),
        await stranger.get(image),
        await client.get("/api/me"),
        await stranger.get("/api/me"),
        await client.get("/api/images?limit=1"),
        await stranger.get("/api/images"),
        await client.put("/api/me/upstream", json=UPSTREAM),
        await client.get("/api/me", headers={"X-Min-Version": saved["version"]}),
        await client.delete("/api/me/upstream"),
        await client.delete(image, headers={"If-Match": '"9"'}),
        await client.delete(image),
        await client.delete(image),
        await nobody.get("/health/live"),
        await nobody.get("/health/ready"),
        await nobody.get("/metrics"),
    ]
    some_id = (await client.post("/api/images", json=FULL)).json()["id"]
    some, album = f"/api/images/{some_id}", f"/api/albums/{ALBUM}"
    for sql in (
        f"INSERT INTO album (user_id, id, title) VALUES ('alice', '{ALBUM}', 't')",
        f"INSERT INTO album_image (user_id, album_id, image_id) VALUES ('alice', '{ALBUM}', '{some_id}')",
        f"INSERT INTO image_edit (user_id, image_id, field) VALUES ('alice', '{some_id}', 'prompt')",
        f"INSERT INTO image_event (user_id, image_id, kind) VALUES ('alice', '{some_id}', 'o')",
    ):
        await execute(database_url, sql)
    await client.post("/api/sync")
    page = await client.get("/api/images")
    reads = ["/api/images", some, "/api/me", "/api/images/facets", f"{some}/history", f"{some}/events"]
    reads += ["/api/albums", album, f"{album}/images", "/api/export"]
    for path in reads:
        answers += [await client.get(path), await stranger.get(path)]
    answers.append(await client.get(f"{some}?include=history,events,albums"))
    for path in reads:
        answers += [
            await client.get(path, headers={"If-None-Match": page.headers["etag"]}),
            await client.get(path, headers={"X-Min-Version": foreign}),
            await client.get(path, params={"min_version": "x"}),
            await client.get(path, params={"nonsense": "x"}),
            await nobody.get(path),
        ]
    cookie = {"Cookie": f"tidepool_token={client.headers['authorization'].removeprefix('Bearer ')}"}
    for method, path in [
        ("POST", "/api/sync"),
        ("POST", "/api/images/sync"),
        ("POST", "/api/images"),
        ("POST", "/api/images/batch"),
        ("PATCH", some),
        ("DELETE", some),
        ("PUT", "/api/me/upstream"),
        ("DELETE", "/api/me/upstream"),
    ]:
        answers.append(await nobody.request(method, path))
        answers.append(await nobody.request(method, path, headers=cookie | {"Sec-Fetch-Site": "cross-site"}))
        answers.append(await client.request(method, path, params={"nonsense": "x"}, json=IMAGE | {"images": [IMAGE]}))
        if method != "DELETE":
            answers += [
                await client.request(method, path, content=b"{"),
                await client.request(method, path, json={"nonsense": 1}),
                await client.request(method, path, json={}, headers={"Content-Type": "text/plain"}),
                await client.request(method, path, content=b" " * (17 << 20)),
            ]
        if path.endswith("/sync"):
            answers.append(await client.request(method, path, json={"min_version": foreign}))
    data_dir = server.settings.data_dir.parent / "tight"
    async with serving(data_dir=data_dir, request_body_max_bytes=2_048) as tight:
        answers += await answers_of_writes(server, tight)
    seen = {check(described, answer) for answer in answers}

    # A stream is checked by its beginning: what it says after that are events.
    async with client.stream("GET", "/api/events", params={"changes": "true"}) as stream:
        said = described.operations()["GET /api/events"]["responses"][str(stream.status_code)]
        assert [*said["content"]] == [stream.headers["content-type"].partition(";")[0]] == ["text/event-stream"]
        seen.add(("GET /api/events", stream.status_code))
    full_dir = server.settings.data_dir.parent / "full"
    async with serving(data_dir=full_dir, event_streams_per_user_max=0, exports_per_user_max=0) as full:
        for path in ("/api/events", "/api/export"):
            seen.add(check(described, await full.client("alice").get(path)))
    for answer in [
        await client.get("/api/export", params={"format": "ndjson"}),
        await client.get("/api/export", params={"format": "csv"}),
        await client.get("/api/export", params={"format": "xml"}),
        await nobody.get("/api/events"),
        await client.get("/api/events", params={"since": "x"}),
        await client.get("/api/events", params={"changes": "perhaps"}),
    ]:
        seen.add(check(described, answer))

    # And where the primary is away, or does not get there.
    data_dir = server.settings.data_dir.parent / "other"
    async with serving(data_dir=data_dir, database_url="postgresql://x@127.0.0.1:1/x", min_version_wait_ms=1) as lost:
        client = lost.client("alice")
        bodies = {route: write.body for route, write in WRITES.items()} | {"PUT /api/me/upstream": UPSTREAM}
        # All at once, for each waits a quarter of a second for the primary.
        asked = [client.request(*path_of(route), json=bodies.get(route)) for route in described.operations()]
        seen |= {check(described, answer) for answer in await asyncio.gather(*asked)}
    data_dir = server.settings.data_dir.parent / "third"
    async with serving(data_dir=data_dir, min_version_wait_ms=1) as hasty:
        client = hasty.client("alice")
        for path in reads:
            seen.add(check(described, await client.get(path, headers={"X-Min-Version": future + "9"})))
        for path in ("/api/sync", "/api/images/sync"):
            seen.add(check(described, await client.post(path, json={"min_version": future + "9"})))

    for route, operation in described.operations().items():
        for status in map(int, operation["responses"]):
            assert (route, status) in seen, f"{route}: {status} is described, and never seen here"
