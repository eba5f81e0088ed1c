"""What cannot be taken is refused with a code and the field's name, never with a 500, and nothing of it is written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from primary.gallery.records import ImagePatch, NewImage
from tests.conftest import Serving
from tests.support.gallery_writes import CONDITIONAL, furnish, path_of
from tests.support.gallery_writes import WRITES as GALLERY_WRITES
from tests.support.http import IMAGE, JSON, assert_is_problem, assert_problem, contents, save
from tests.support.raw import talk
from tests.support.server import RunningServer, token

ID = "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11"

# Every route that takes a body, and how an image's fields are put into one.
WRITES: dict[str, Callable[[Any], Any]] = {
    "POST /api/images": lambda fields: IMAGE | fields,
    "POST /api/images/batch": lambda fields: {"images": [IMAGE, IMAGE | fields]},
    f"PATCH /api/images/{ID}": lambda fields: fields,
}
SYNCS = ["POST /api/sync", "POST /api/images/sync"]
REFUSALS = {400, 409, 412, 413, 415, 422}


@asynccontextmanager
async def nothing_written(database_url: str) -> AsyncIterator[None]:
    """Prove that Postgres holds the same after the block as before: every row, and every head's version."""
    before = await contents(database_url)
    yield
    assert await contents(database_url) == before


def place_of(route: str, field: str) -> str:
    """Name a field as the route's client wrote it."""
    return f"images[1].{field}" if route.endswith("/batch") else field


async def send(client: httpx.AsyncClient, route: str, body: Any, **headers: str) -> httpx.Response:
    method, path = route.split(" ")
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return await client.request(method, path, content=content, headers=JSON | headers)


@pytest.fixture
async def alices(server: RunningServer) -> httpx.AsyncClient:
    """A client of a user who has the image that the edits are meant for."""
    client = server.client("alice")
    await save(client, id=ID)
    return client


# ── Bodies that are no JSON, or not of the shape ────────────────────────────────────────────────────────────────

NO_JSON = {
    "cut off": b'{"prompt": "a pool',
    "two values": b'{"prompt": "a"} {"prompt": "b"}',
    "words": b"prompt=a+pool",
    "NaN": b'{"prompt": "a", "image_url": "u", "seed": NaN}',
    "Infinity": b'{"prompt": "a", "image_url": "u", "meta": {"x": -Infinity}}',
    "a hex number": b'{"seed": 0x10}',
    "a comma too many": b'{"seed": 1,}',
    "a comment": b'{"seed": 1 /* more or less */}',
    "single quotes": b"{'seed': 1}",
    "a bare U+0000": b'{"prompt": "a\0b"}',
    "a lone surrogate, escaped": b'{"prompt": "a\\ud800b"}',
    "the other half alone": b'{"prompt": "a\\udc00b"}',
    "a lone surrogate in a name": b'{"meta": {"\\ud800": 1}}',
    "a lone surrogate, as bytes": b'{"prompt": "a\xed\xa0\x80b"}',
    "Latin-1": '{"prompt": "é"}'.encode("latin-1"),
    "UTF-16": '{"prompt": "é"}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "compressed": b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00",
    "arrays without end": b'{"meta": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    "objects without end": b'{"meta": ' + b'{"x":' * 50_000 + b"1" + b"}" * 50_000 + b"}",
}


async def test_what_is_no_json_is_malformed(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        for route in [*WRITES, *SYNCS]:
            for body in NO_JSON.values():
                answer = await send(alices, route, body)
                # A field that is unknown, or of the wrong type, may be found before the place where the JSON breaks.
                if answer.status_code == 422:
                    assert_is_problem(answer)
                else:
                    assert_problem(answer, 400, "malformed_json")


@pytest.mark.parametrize("route", WRITES)
async def test_without_a_body_nothing_is_done(alices: httpx.AsyncClient, database_url: str, route: str) -> None:
    method, path = route.split(" ")
    async with nothing_written(database_url):
        for headers in ({}, JSON):
            assert_problem(await alices.request(method, path, headers=headers), 400, "malformed_json")


async def test_a_body_that_is_no_object_is_refused(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        for route in [*WRITES, *SYNCS]:
            for body in (b"[]", b"1", b'"a"', b"true", b"[{}]", b"null"):
                if body == b"null" and route in SYNCS:
                    continue  # a sync needs no body
                assert_problem(await send(alices, route, body), 422, "invalid_request", "")


async def test_a_batch_that_is_no_list_of_images_is_refused(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        for body, field in [
            ({}, "images"),
            ({"images": None}, "images"),
            ({"images": {}}, "images"),
            ({"images": []}, "images"),
            ({"images": [None]}, "images[0]"),
            ({"images": [IMAGE, 7]}, "images[1]"),
            ({"images": [IMAGE], "more": 1}, "more"),
            ({"images": [IMAGE] * 1_001}, "images"),
        ]:
            assert_problem(await send(alices, "POST /api/images/batch", body), 422, "invalid_request", field)


# ── Fields ──────────────────────────────────────────────────────────────────────────────────────────────────────

TEXTS = ["prompt", "image_url", "negative_prompt", "model", "source", "persona_id", "persona_name"]
TEXTS += ["alt_text", "description"]
WHOLE = ["seed", "steps", "width", "height"]


def deep(levels: int) -> Any:
    value: Any = 1
    for n in range(levels):
        value = [value] if n % 2 else {"x": value}
    return {"x": value}


A_NUMBER: list[Any] = ["1", "", 1.5, 1e3, True, [], {}, 2**63, -(2**63) - 1, 2**64]
A_TEXT: list[Any] = [1, True, ["a"], {"a": 1}, "a\0b", "x" * 32_769]
A_DOCUMENT: list[Any] = ["{}", [], 1, True, {"x": "y" * 65_536}, deep(40)]
A_DOCUMENT += [{"\0": 1}, {"x": ["a\0"]}, {"x": {"y": "\0"}}]
AN_ID: list[Any] = ["", "1", None, 7, ID + "0", "{" + ID + "}", ID.replace("-", "", 1), "g" * 36, []]
A_TIME: list[Any] = ["", "yesterday", None, 0, 1.5, "2024-01-01", "2024-01-01T00:00:00", "2024-02-30T00:00:00Z"]
A_TIME += ["2024-01-01T24:00:00Z", "infinity", "-infinity", "now"]
A_TIME += ["0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"]

BAD_FIELDS: list[tuple[str, Any]] = [
    *[(field, value) for field in TEXTS for value in A_TEXT],
    *[(field, value) for field in WHOLE for value in A_NUMBER],
    *[(field, value) for field in ("steps", "width", "height") for value in (0, -1, 2**31, 65_536)],
    *[(field, None) for field in ("prompt", "image_url", "source", "meta")],
    *[(field, value) for field in ("prompt", "image_url") for value in ("", " \n\t", "\u2003")],
    ("source", ""),
    ("image_url", "u" * 8_193),
    ("model", "m" * 256),
    ("persona_id", "p" * 256),
    ("alt_text", "a" * 4_097),
    ("steps", 10_001),
    *[("meta", value) for value in A_DOCUMENT],
]
ONLY_NEW: list[tuple[str, Any]] = [*[("id", value) for value in AN_ID], *[("created_at", value) for value in A_TIME]]
UNKNOWN = ["sede", "user_id", "row_version", "updated_at", "is_favorite", "rating", "view_count", "Prompt", "", "x y"]


@pytest.mark.parametrize("route", WRITES)
async def test_a_field_that_cannot_be_taken_is_named(alices: httpx.AsyncClient, database_url: str, route: str) -> None:
    bad = BAD_FIELDS + (ONLY_NEW if route.startswith("POST") else [])
    unknown = UNKNOWN + ([] if route.startswith("POST") else ["id", "created_at"])
    async with nothing_written(database_url):
        for field, value in [*bad, *((name, "x") for name in unknown)]:
            answer = await send(alices, route, WRITES[route]({field: value}))
            assert answer.status_code == 422, f"{field}={str(value)[:80]}: {answer.text}"
            problem = assert_is_problem(answer)
            assert problem["code"] == "invalid_request"
            [error] = problem["errors"]
            assert error["field"] == place_of(route, field), f"{field}={str(value)[:80]}"
            assert error["message"]


@pytest.mark.parametrize("route", ["POST /api/images", "POST /api/images/batch"])
async def test_a_field_that_is_missing_is_named(alices: httpx.AsyncClient, database_url: str, route: str) -> None:
    async with nothing_written(database_url):
        for missing in IMAGE:
            image = {name: value for name, value in IMAGE.items() if name != missing}
            body = {"images": [IMAGE, image]} if route.endswith("/batch") else image
            assert_problem(await send(alices, route, body), 422, "invalid_request", place_of(route, missing))


async def test_a_number_beyond_all_bounds_is_named(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        for number in (b"1e400", b"-1e400", b"1" + b"0" * 5_000, b"0." + b"1" * 10_000 + b"e999999999"):
            for route, put in WRITES.items():
                for field, value in (("seed", 7_777), ("meta", {"x": 7_777}), ("meta", {"x": [[7_777]]})):
                    answer = await send(
                        alices, route, json.dumps(put({field: value})).encode().replace(b"7777", number)
                    )
                    assert answer.status_code == 422, answer.text
                    [error] = assert_is_problem(answer)["errors"]
                    assert error["field"].startswith(place_of(route, field))


async def test_what_only_the_database_finds_too_large_is_named_too(
    alices: httpx.AsyncClient, database_url: str
) -> None:
    meta = {"x": [1e308] * 1_000}  # 7 KB here, and 300 KB as Postgres writes it
    async with nothing_written(database_url):
        for route, put in WRITES.items():
            # Of a batch it does not say which one it was.
            assert_problem(await send(alices, route, put({"meta": meta})), 422, "invalid_request", "meta")


async def test_all_that_types_cannot_say_is_told_at_once(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        bad = {"prompt": " ", "model": "a\0", "meta": {"x": "\0"}}
        answer = await send(alices, "POST /api/images", IMAGE | bad)
        assert_problem(answer, 422, "invalid_request", "prompt", "model", "meta")
        answer = await send(alices, "POST /api/images/batch", {"images": [IMAGE | bad, IMAGE, IMAGE | {"prompt": " "}]})
        places = ["images[0].prompt", "images[0].model", "images[0].meta", "images[2].prompt"]
        assert_problem(answer, 422, "invalid_request", *places)


async def test_a_name_that_is_given_twice_counts_as_its_last(alices: httpx.AsyncClient) -> None:
    # As in the readers of JSON that people know; what counted is in the answer.
    body = b'{"prompt": "first", "image_url": "u", "meta": {"x": 1, "x": 2}, "prompt": "last"}'
    saved = (await send(alices, "POST /api/images", body)).json()
    assert (saved["prompt"], saved["meta"]) == ("last", {"x": 2})


# ── What else a request has ─────────────────────────────────────────────────────────────────────────────────────


NO_JSON_KINDS = [
    "text/plain",
    "text/plain; application/json",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/msgpack",
    "application/xml",
    "application/json-patch+json",
    "application/json; charset=latin-1",
    "application/jsonx",
    "*/*",
    ";;;=",
]


async def test_a_body_that_says_it_is_no_json_is_not_read_as_json(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        for route in [*WRITES, *SYNCS]:
            good = WRITES[route]({"seed": 5}) if route in WRITES else {}
            for kind in NO_JSON_KINDS:
                answer = await send(alices, route, good, **{"Content-Type": kind})
                assert_problem(answer, 415, "unsupported_media_type", "Content-Type")
            answer = await send(alices, route, good, **{"Content-Encoding": "gzip"})
            assert_problem(answer, 415, "unsupported_media_type", "Content-Encoding")


@pytest.mark.parametrize(
    "kind",
    [
        "application/json; charset=utf-8",
        "Application/JSON;charset=UTF-8",
        'application/json; charset="utf-8"; v=1',
        "application/json;odata=verbose",
        None,
    ],
)
async def test_json_is_taken_however_its_header_is_written(alices: httpx.AsyncClient, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = await alices.post("/api/images", content=json.dumps(IMAGE), headers=headers)
    assert answer.status_code == 201, answer.text


async def test_an_if_match_that_is_no_row_version_is_refused(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        for if_match in ("", "0", "-1", '"0"', "x", '"1', '1"', "1.0", 'W/"1"', '"1", "2"', str(2**63)):
            for method in ("PATCH", "DELETE"):
                answer = await send(alices, f"{method} /api/images/{ID}", {"seed": 5}, **{"If-Match": if_match})
                assert_problem(answer, 422, "invalid_request", "If-Match")


async def test_an_if_match_in_two_lines_is_not_one_of_them(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        for values in (("1", "2"), ("2", "1"), ("1", "1"), ("*", "7")):
            headers = [("If-Match", value) for value in values]
            for method, body in (("PATCH", {"seed": 5}), ("DELETE", None)):
                answer = await alices.request(method, f"/api/images/{ID}", json=body, headers=headers)
                assert_problem(answer, 422, "invalid_request", "If-Match")


async def test_a_write_that_is_meant_for_another_state_is_412_or_says_that_it_cannot_tell(
    server: RunningServer, database_url: str
) -> None:
    """A client that sends If-Match must never have its edit made over somebody else's because nobody looked."""
    client = server.client("alice")
    await furnish(client)
    described = (await client.get("/schema/openapi.json")).json()["paths"]
    async with nothing_written(database_url):
        for route, write in GALLERY_WRITES.items():
            method, path = path_of(route)
            answer = await client.request(method, path, json=write.body, headers={"If-Match": '"7"'})
            operation = described[route.partition(" ")[2]][method.lower()]
            assert ("If-Match" in {one["name"] for one in operation["parameters"]}) is (route in CONDITIONAL), route
            if route in CONDITIONAL:
                assert_problem(answer, 412, "row_version_conflict")
            else:
                assert_problem(answer, 422, "invalid_request", "If-Match")


async def test_a_write_that_is_meant_for_another_state_is_412(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        for method, body in (("PATCH", {"seed": 5}), ("DELETE", None)):
            answer = await alices.request(method, f"/api/images/{ID}", json=body, headers={"If-Match": '"7"'})
            assert_problem(answer, 412, "row_version_conflict")
            assert answer.json()["current"]["row_version"] == 1
    gone = await alices.delete(f"/api/images/{ID}", headers={"If-Match": '"1"'})
    assert gone.status_code == 200


READS = ["/api/images", f"/api/images/{ID}", "/api/me"]
NO_VERSIONS = ["x", "1", "6b-1-5-1", "6b-1-5-1.-1", "6b-1-5-1.01", "6b-1-5-1.1.1", "a-b-c-d.9223372036854775808", "é"]


@pytest.mark.parametrize("path", READS)
async def test_a_min_version_that_is_no_version_is_refused(alices: httpx.AsyncClient, path: str) -> None:
    for text in [*NO_VERSIONS, "", "'; DROP TABLE image --", "v" * 5_000]:
        answer = await alices.get(path, headers=[(b"X-Min-Version", text.encode())])
        assert_problem(answer, 422, "invalid_cursor", "X-Min-Version")
        answer = await alices.get(path, params={"min_version": text})
        assert_problem(answer, 422, "invalid_cursor", "min_version")
    for query in ("min_version", "min_version=%00", "min%5Fversion=x", "min_version=%FF"):
        assert_problem(await alices.get(f"{path}?{query}"), 422, "invalid_cursor", "min_version")
    version = (await alices.get(path)).headers["x-replica-version"]
    twice = await alices.get(path, headers=[("X-Min-Version", version), ("X-Min-Version", version)])
    assert_problem(twice, 422, "invalid_cursor", "X-Min-Version")
    twice = await alices.get(path, params=[("min_version", version), ("min_version", version)])
    assert_problem(twice, 422, "invalid_request", "min_version")


@pytest.mark.parametrize("route", SYNCS)
async def test_a_sync_to_what_is_no_version_is_refused(alices: httpx.AsyncClient, route: str) -> None:
    for value in (*NO_VERSIONS, "", 7, [], {}, True):
        assert_problem(await send(alices, route, {"min_version": value}), 422, "invalid_request", "min_version")
    assert_problem(await send(alices, route, {"min_versoin": "x"}), 422, "invalid_request", "min_versoin")


QUERIES = {
    "limit": ["0", "-1", "501", "1e2", "1.0", "", " 5", "+5", "0x5", "٣", "\0", "9" * 400, "null"],
    "cursor": ["", "x", "AAAA", "é", "\0", "🌊", "c" * 5_000, "../..", "eyJhIjoxfQ", "MjAyNC0wMS0wMQ"],
}


async def test_a_page_that_cannot_be_given_names_the_parameter(alices: httpx.AsyncClient) -> None:
    for name, values in QUERIES.items():
        for value in values:
            answer = await alices.get("/api/images", params={name: value})
            assert_problem(answer, 422, "invalid_request", name)
    twice = await alices.get("/api/images?limit=5&limit=6")
    assert_problem(twice, 422, "invalid_request", "limit")
    both = await alices.get("/api/images", params={"limit": "0", "cursor": "x", "sort": "up"})
    assert_problem(both, 422, "invalid_request", "limit", "cursor", "sort")


async def test_a_parameter_that_a_route_does_not_know_is_refused_by_every_route(
    alices: httpx.AsyncClient, database_url: str
) -> None:
    described = (await alices.get("/schema/openapi.json")).json()["paths"]
    routes = [(method, path) for path, methods in described.items() for method in methods if path.startswith("/api/")]
    assert len(routes) >= 9
    async with nothing_written(database_url):
        for method, path in routes:
            route = f"{method.upper()} {path}"
            body = GALLERY_WRITES[route].body if route in GALLERY_WRITES else None
            body = {"endpoint": "https://93.184.215.14/", "api_key": "x"} if route == "PUT /api/me/upstream" else body
            for name in ("nonsense", "Limit", "min-version", "dry_run", "user", ""):
                answer = await alices.request(
                    method.upper(),
                    path_of(route)[1],
                    params={name: "1"},
                    json=body,
                )
                assert_problem(answer, 422, "invalid_request", name)


async def test_an_id_that_is_no_uuid_is_refused(alices: httpx.AsyncClient, database_url: str) -> None:
    async with nothing_written(database_url):
        for method in ("GET", "PATCH", "DELETE"):
            for id_ in (
                "x",
                ID[:-1],
                ID + "0",
                ID.replace("-", ""),
                f"%7B{ID}%7D",
                "%00",
                "%F0%9F%8C%8A",
                "%ff",
                "' OR 1=1",
                "a" * 3_000,
            ):
                answer = await alices.request(
                    method, f"/api/images/{id_}", json={"seed": 1} if method == "PATCH" else None
                )
                assert_problem(answer, 422, "invalid_request", "image_id")


async def test_what_is_not_there_is_a_problem_too(alices: httpx.AsyncClient) -> None:
    for path in (
        "/",
        "/api",
        "/api/nothing",
        f"/api/images/{ID}/x",
        "/schema/nothing",
        "/health",
        "/api/../etc/passwd",
        "/api/images/..%2F..%2Fetc%2Fpasswd",
    ):
        assert_problem(await alices.get(path), 404, "not_found")
    for method, path in (
        ("PUT", "/api/images"),
        ("PUT", f"/api/images/{ID}"),
        ("GET", "/api/sync"),
        ("POST", "/metrics"),
    ):
        answer = await alices.request(method, path)
        assert_problem(answer, 405, "method_not_allowed")
        assert answer.headers["allow"]


# ── How much ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_that_is_too_large_is_413(serving: Serving, database_url: str, announced: bool) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 10_000

    headers = JSON | ({"Content-Length": "1000000"} if announced else {})
    async with serving(request_body_max_bytes=20_000) as server, nothing_written(database_url):
        client = server.client("alice")
        for route in [*WRITES, *SYNCS]:
            method, path = route.split(" ")
            answer = await client.request(method, path, content=chunks(), headers=headers)
            assert_problem(answer, 413, "body_too_large")
        assert (await send(client, "POST /api/sync", {})).status_code == 200


@pytest.mark.parametrize("batch_max", [1, 1_000])
async def test_a_batch_is_as_large_as_is_allowed(serving: Serving, database_url: str, batch_max: int) -> None:
    async with serving(batch_max=batch_max) as server:
        client = server.client("alice")
        async with nothing_written(database_url):
            answer = await send(client, "POST /api/images/batch", {"images": [IMAGE] * (batch_max + 1)})
            assert_problem(answer, 422, "invalid_request", "images")
        answer = await send(client, "POST /api/images/batch", {"images": [IMAGE] * batch_max})
        assert (answer.status_code, len(answer.json()["images"])) == (201, batch_max)


async def test_what_is_hardly_http_is_refused_and_the_server_lives_on(
    server: RunningServer, alices: httpx.AsyncClient, database_url: str
) -> None:
    head = f"POST /api/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('alice')}\r\n".encode()
    body = json.dumps(IMAGE).encode()
    length = b"Content-Length: %d\r\n" % len(body)
    async with nothing_written(database_url):
        for rest in (
            b"Content-Length: -5\r\n\r\n" + body,
            b"Content-Length: five\r\n\r\n" + body,
            length + b"Transfer-Encoding: chunked\r\n\r\n" + body,
            b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body + b"\r\n0\r\n\r\n",
            b"Bad Header\r\n" + length + b"\r\n" + body,
            b"X: a\0b\r\n" + length + b"\r\n" + body,
        ):
            answered = await talk(server.url, head + rest)
            assert answered.startswith(b"HTTP/1.1 400 "), rest
            assert json.loads(answered.partition(b"\r\n\r\n")[2])["code"] == "bad_request"
        for line in (
            b"GET /api/images?limit=\xff HTTP/1.1",
            b"GET /\0 HTTP/1.1",
            b"\x16\x03\x01\x02\x00\x01",
            b"HELLO",
        ):
            assert (await talk(server.url, line + b"\r\nHost: x\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    assert (await alices.get("/health/live")).status_code == 200


@pytest.mark.parametrize("place", ["a header", "many headers", "the path", "after the body"])
async def test_headers_without_end_are_431_before_anybody_is_asked_who_they_are(
    server: RunningServer, client: httpx.AsyncClient, place: str
) -> None:
    head = b"POST /api/sync HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n"
    beginning, more = {
        "a header": (head + b"X-Long: ", b"a" * 10_000),
        "many headers": (head, b"X-Short: a\r\n" * 1_000),
        "the path": (b"POST /", b"a" * 10_000),
        "after the body": (head + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n", b"X-Late: a\r\n" * 1_000),
    }[place]
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(beginning)
    sent = 0
    try:
        while sent < 5_000_000:
            writer.write(more)
            sent += len(more)
            await writer.drain()
            await asyncio.sleep(0)
    except ConnectionError:
        pass
    assert sent < 5_000_000, "it was read without end"
    if place != "after the body":  # there the answer has been given
        try:
            assert (await reader.read(12)) == b"HTTP/1.1 431"
        except ConnectionError:
            pass  # what was sent since made the system forget the answer
    writer.close()
    assert (await client.get("/api/me")).status_code == 200


async def test_a_head_as_large_as_proxies_pass_on_is_taken(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/me", headers={"X-Long": "a" * 32_000})
    assert answer.status_code == 200


async def test_a_request_that_is_broken_off_writes_nothing(
    server: RunningServer, alices: httpx.AsyncClient, database_url: str
) -> None:
    body = json.dumps(IMAGE).encode()
    head = f"POST /api/images HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token('alice')}\r\n".encode()
    host, _, port = server.url.removeprefix("http://").partition(":")
    async with nothing_written(database_url):
        for sent in range(0, len(body), 9):
            _, writer = await asyncio.open_connection(host, int(port))
            writer.write(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:sent])
            await writer.drain()
            writer.transport.abort() if sent % 2 else writer.close()
        await asyncio.sleep(0.2)
    assert (await alices.get("/api/me")).status_code == 200


# ── Anything at all ─────────────────────────────────────────────────────────────────────────────────────────────

ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=20)  # U+0000 included
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
FIELDS = sorted({*NewImage.__struct_fields__, *ImagePatch.__struct_fields__})


def fits(field: str, value: Any) -> bool:
    """Whether a value could be right for a field, generously: what is left is junk for sure."""
    match value:
        case None:
            return field not in {"prompt", "image_url", "source", "meta", "id", "created_at"}
        case bool() | float() | list():
            return False
        case int():
            return field == "seed" or (field in {"steps", "width", "height"} and value > 0)
        case dict():
            return field == "meta"
        case _:
            return field in TEXTS or field == "created_at"


JUNK_FIELDS = st.tuples(st.sampled_from(FIELDS) | ANY_TEXT, ANY_JSON).filter(lambda pair: not fits(*pair))
JUNK_BYTES = st.binary(min_size=1, max_size=200) | ANY_JSON.map(lambda value: json.dumps(value).encode())


@pytest.fixture
async def unchanged(alices: httpx.AsyncClient, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Alice's client for any number of examples, and after them all the proof that none has written anything."""
    async with nothing_written(database_url):
        yield alices


def hammered(examples: int) -> Callable[[Any], Any]:
    return settings(
        max_examples=examples,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def assert_refused(answer: httpx.Response, what: object) -> None:
    assert answer.status_code in REFUSALS, f"{what!r}: {answer.status_code} {answer.text[:300]}"
    problem = assert_is_problem(answer)
    assert problem["code"], what
    assert answer.status_code != 422 or problem["errors"], what


@hammered(120)
@given(route=st.sampled_from([*WRITES]), junk=JUNK_FIELDS)
async def test_any_junk_in_any_field_of_any_write_is_refused_by_its_name(
    unchanged: httpx.AsyncClient, route: str, junk: tuple[str, Any]
) -> None:
    answer = await send(unchanged, route, WRITES[route](dict([junk])))
    assert_refused(answer, junk)
    if answer.status_code == 422:
        [error] = answer.json()["errors"]
        assert error["field"].startswith(place_of(route, junk[0].split("`")[0])) or "field" in error["message"]


@hammered(120)
@given(route=st.sampled_from([*WRITES, *SYNCS]), junk=JUNK_BYTES)
async def test_any_bytes_as_a_body_are_refused(unchanged: httpx.AsyncClient, route: str, junk: bytes) -> None:
    if route in SYNCS and junk.strip() in {b"", b"null", b"{}"}:
        return
    assert_refused(await send(unchanged, route, junk), junk)


@hammered(40)
@given(route=st.sampled_from([*WRITES]), share=st.floats(0, 1, exclude_max=True))
async def test_a_body_that_is_cut_off_anywhere_is_refused(
    unchanged: httpx.AsyncClient, route: str, share: float
) -> None:
    whole = json.dumps(WRITES[route]({"seed": 5, "meta": {"a": [1, {"b": "é"}]}})).encode()
    answer = await send(unchanged, route, whole[: int(len(whole) * share)])
    assert_problem(answer, 400, "malformed_json")


@hammered(100)
@given(query=st.lists(st.tuples(st.sampled_from(["limit", "cursor", "min_version"]) | ANY_TEXT, ANY_TEXT), max_size=3))
async def test_any_query_gives_a_page_or_a_refusal(unchanged: httpx.AsyncClient, query: list[tuple[str, str]]) -> None:
    for path in READS:
        answer = await unchanged.get(path, params=[*query])
        if answer.status_code != 200:
            assert_refused(answer, query)


@hammered(100)
@given(
    name=st.sampled_from(["X-Min-Version", "If-Match", "If-None-Match", "Content-Type", "X-Request-Id", "Cookie"]),
    value=st.binary(max_size=60).map(lambda raw: bytes(b for b in raw if b >= 0x20 and b != 0x7F).strip()),
)
async def test_any_bytes_in_a_header_give_an_answer_or_a_refusal(
    alices: httpx.AsyncClient, name: str, value: bytes
) -> None:
    headers = [(name.encode(), value)]
    for answer in (
        await alices.get("/api/images", headers=headers),
        await alices.patch(f"/api/images/{ID}", content=b'{"prompt": "a tide pool"}', headers=headers),
    ):
        if answer.status_code not in {200, 304}:
            assert_refused(answer, (name, value))
