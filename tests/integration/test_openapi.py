"""The description of the API says what the server really takes and answers, with examples that work."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from primary.cursor import Cursor
from tests.conftest import Serving
from tests.support.http import IMAGE, execute
from tests.support.schemas import Document
from tests.support.server import RunningServer

ID = "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11"


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
    value = answer.json() if kind.endswith("json") else answer.text
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
    tags = {tag["name"] for tag in document["tags"]} | {"images", "me"}
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
                if not kind.endswith("json"):
                    continue
                try:
                    example = described.example_of(content)
                except LookupError as error:
                    missing.append(f"{route} {name}: {error}")
                else:
                    assert not (faults := described.faults(content["schema"], example)), f"{route} {name}: {faults}"
    assert not missing, "\n".join(missing)


# ── The document and the server ─────────────────────────────────────────────────────────────────────────────────


async def test_the_examples_of_requests_are_taken_as_they_stand(described: Document, server: RunningServer) -> None:
    tried = set()
    for route, operation in described.operations().items():
        if "requestBody" not in operation or route.endswith("/sync"):
            continue  # the version that a sync waits for is another server's
        client = server.client(route)
        if "{image_id}" in route:
            await client.post("/api/images", json=IMAGE | {"id": ID})
        method, _, path = route.partition(" ")
        example = described.example_of(operation["requestBody"]["content"]["application/json"])
        answer = await client.request(method, path.replace("{image_id}", ID), json=example)
        assert answer.status_code in {200, 201}, f"{route}: {answer.text}"
        check(described, answer)
        tried.add(route)
    assert tried >= {"POST /api/images", "POST /api/images/batch", "PATCH /api/images/{image_id}"}


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
        await client.delete(image, headers={"If-Match": '"9"'}),
        await client.delete(image),
        await client.delete(image),
        await nobody.get("/health/live"),
        await nobody.get("/health/ready"),
        await nobody.get("/metrics"),
    ]
    await client.post("/api/sync")
    page = await client.get("/api/images")
    some = f"/api/images/{page.json()['images'][0]['id']}"
    for path in ("/api/images", some, "/api/me"):
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
    seen = {check(described, answer) for answer in answers}

    # A stream is checked by its beginning: what it says after that are events.
    async with client.stream("GET", "/api/events", params={"changes": "true"}) as stream:
        said = described.operations()["GET /api/events"]["responses"][str(stream.status_code)]
        assert [*said["content"]] == [stream.headers["content-type"].partition(";")[0]] == ["text/event-stream"]
        seen.add(("GET /api/events", stream.status_code))
    full_dir = server.settings.data_dir.parent / "full"
    async with serving(data_dir=full_dir, event_streams_per_user_max=0) as full:
        seen.add(check(described, await full.client("alice").get("/api/events")))
    for answer in [
        await nobody.get("/api/events"),
        await client.get("/api/events", params={"since": "x"}),
        await client.get("/api/events", params={"changes": "perhaps"}),
    ]:
        seen.add(check(described, answer))

    # And where the primary is away, or does not get there.
    data_dir = server.settings.data_dir.parent / "other"
    async with serving(data_dir=data_dir, database_url="postgresql://x@127.0.0.1:1/x", min_version_wait_ms=1) as lost:
        client = lost.client("alice")
        for route in described.operations():
            method, _, path = route.partition(" ")
            body = {"images": [IMAGE]} if path.endswith("/batch") else IMAGE
            body = {"prompt": "x"} if method == "PATCH" else body
            answer = await client.request(
                method,
                path.replace("{image_id}", ID),
                json=body if method in {"POST", "PATCH"} and not path.endswith("/sync") else None,
            )
            seen.add(check(described, answer))
    data_dir = server.settings.data_dir.parent / "third"
    async with serving(data_dir=data_dir, min_version_wait_ms=1) as hasty:
        client = hasty.client("alice")
        for path in ("/api/images", some, "/api/me"):
            seen.add(check(described, await client.get(path, headers={"X-Min-Version": future + "9"})))
        for path in ("/api/sync", "/api/images/sync"):
            seen.add(check(described, await client.post(path, json={"min_version": future + "9"})))

    for route, operation in described.operations().items():
        for status in map(int, operation["responses"]):
            assert (route, status) in seen, f"{route}: {status} is described, and never seen here"
