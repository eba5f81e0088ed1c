"""I5: no request can read or change what another user owns; who cannot show who they are gets nothing at all."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest

from replica.location import DataDirectory
from tests.support.gallery_writes import CONDITIONAL, WRITES
from tests.support.http import IMAGE, assert_is_problem, assert_problem, contents, execute, prompts, save
from tests.support.replicas import files_of
from tests.support.server import SECRET, RunningServer
from tests.support.sse import listening

STRANGE_IDS = [
    "../../etc/passwd",
    "..",
    ".",
    "/",
    "a/b",
    "a\\b",
    "%00",
    "%2e%2e%2f",
    "' OR 1=1 --",
    '"; DROP TABLE image; --',
    "🌊" * 255,
    "é",  # as one character
    "e\u0301",  # and as two, which look the same
    "Alice",
    "alice",
    "alice ",
    " alice",
    "alice\n",
    "\u202eecila",
    "{}",
    "%s",
    "*",
    "null",
    "0",
    "x" * 255,
]


# ── A user's id is any text, and only a text ────────────────────────────────────────────────────────────────────


async def test_every_strange_user_id_is_a_user_of_their_own(
    server: RunningServer, database_url: str, client: httpx.AsyncClient
) -> None:
    outside = files_of(server.settings.data_dir.parent)
    for n, user in enumerate(STRANGE_IDS):
        await save(server.client(user), prompt=f"of number {n}")
    for n, user in enumerate(STRANGE_IDS):
        me = server.client(user)
        assert await prompts(me) == [f"of number {n}"]
        assert (await me.get("/api/me")).json()["user"] == user
        assert (await me.post("/api/sync")).status_code == 200
    owners = await execute(database_url, "SELECT user_id FROM image")
    assert sorted(owner for (owner,) in owners) == sorted(STRANGE_IDS)

    inside = f"{server.settings.data_dir.name}/"
    assert all(file.startswith(inside) for file in set(files_of(server.settings.data_dir.parent)) - set(outside))
    directory = DataDirectory(server.settings.data_dir)
    assert len({location.database for location in directory.all()}) == len(STRANGE_IDS)
    for file in files_of(server.settings.data_dir):
        assert all(c in "0123456789abcdefghijklmnopqrstuvwxyz./-" for c in file), "a user's id is never part of a path"


# ── What is another user's, on every route that there is ────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Route:
    """How to ask a route for something of another user's: the body, and headers."""

    json: Any = None
    headers: tuple[tuple[str, str], ...] = ()


# A route that names a row: whatever is sent with it, it is not there for anybody but its owner.
NAMES_A_ROW = {
    "GET /api/images/{image_id}": [Route(), Route(headers=(("If-None-Match", '"x"'),))],
    "GET /api/images/{image_id}/history": [Route(), Route(headers=(("If-None-Match", '"x"'),))],
    "GET /api/images/{image_id}/events": [Route(), Route(headers=(("If-None-Match", '"x"'),))],
    "GET /api/albums/{album_id}": [Route(), Route(headers=(("If-None-Match", '"x"'),))],
    "GET /api/albums/{album_id}/images": [Route(), Route(headers=(("If-None-Match", '"x"'),))],
    "PATCH /api/images/{image_id}": [
        Route({"prompt": "mine now"}),
        Route({"prompt": "mine now"}, (("If-Match", '"1"'),)),
        Route({"prompt": "mine now"}, (("If-Match", '"7"'),)),
        Route({"prompt": "mine now"}, (("If-Match", "*"),)),
    ],
    "DELETE /api/images/{image_id}": [Route(), Route(headers=(("If-Match", '"1"'),))],
}
NAMES_A_ROW |= {
    route: [
        Route(write.body),
        Route(write.body, (("Idempotency-Key", "k"), *((("If-Match", '"1"'),) if route in CONDITIONAL else ()))),
    ]
    for route, write in WRITES.items()
    if "{" in route and route not in NAMES_A_ROW
}
# A route whose body can name rows, and what it is to be asked of one of alice's; the album in a path is bob's own.
NAMES_ROWS_IN_ITS_BODY: dict[str, Callable[[str], Any]] = {
    "PATCH /api/images": lambda id_: {"images": [{"id": id_, "prompt": "mine now"}]},
    "DELETE /api/images": lambda id_: {"ids": [id_]},
    "POST /api/albums": lambda id_: {"title": "t", "cover_image_id": id_},
    "PATCH /api/albums/{album_id}": lambda id_: {"cover_image_id": id_},
    "POST /api/albums/{album_id}/images": lambda id_: {"images": [{"image_id": id_}]},
    "PUT /api/albums/{album_id}/images": lambda id_: {"image_ids": [id_]},
    "PATCH /api/albums/{album_id}/images/{image_id}": lambda id_: {"before": id_},
}
# A route that does not: what it answers is of the asking user alone.
NAMES_NONE = {
    "GET /api/images": [Route()],
    "GET /api/images/facets": [Route()],
    "GET /api/albums": [Route()],
    "GET /api/me": [Route()],
    "GET /api/export": [Route()],
    "POST /api/sync": [Route(), Route({})],
    "POST /api/images/sync": [Route()],
    "POST /api/images": [Route(IMAGE | {"prompt": "bob's"})],
    "POST /api/images/batch": [Route({"images": [IMAGE | {"prompt": "bob's"}]})],
    "PUT /api/me/upstream": [Route({"endpoint": "https://93.184.215.14/graphql", "api_key": "bob's"})],
    "DELETE /api/me/upstream": [Route()],
}
# A route whose answer goes on, in events.
STREAMS = {"GET /api/events": [Route(), Route(headers=(("Last-Event-ID", "a-b-c-d.1"),))]}
NEEDS_NO_TOKEN = {"GET /health/live", "GET /health/ready", "GET /metrics"}


SOME_ID = "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11"


def filled(path: str, image_id: str, album_id: str) -> str:
    return path.replace("{image_id}", image_id).replace("{album_id}", album_id)


async def described_routes(client: httpx.AsyncClient) -> set[str]:
    paths = (await client.get("/schema/openapi.json")).json()["paths"]
    return {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}


async def test_every_route_is_known_to_these_tests(server: RunningServer) -> None:
    known = NAMES_A_ROW.keys() | NAMES_ROWS_IN_ITS_BODY.keys() | NAMES_NONE.keys() | STREAMS.keys() | NEEDS_NO_TOKEN
    assert await described_routes(server.client(None)) == known, "add the route to one of the tables above"
    assert all("{" in route for route in NAMES_A_ROW)
    assert not any("{" in route for route in NAMES_NONE)


@dataclass(frozen=True)
class Alices:
    """What alice owns: of each table a row, known by its id or by a text that is in it."""

    image: str
    version: str
    etag: str


SECRET_TEXT = "only for alice"


@pytest.fixture
async def alices(server: RunningServer, database_url: str) -> Alices:
    alice = server.client("alice")
    saved = await save(alice, prompt=SECRET_TEXT)
    for sql in (
        "INSERT INTO profile (user_id, username) VALUES ('alice', %(text)s)",
        "INSERT INTO image_activity (user_id, image_id, rating) VALUES ('alice', %(id)s, 5)",
        "INSERT INTO image_event (user_id, image_id, kind) VALUES ('alice', %(id)s, 'view')",
        "INSERT INTO album (user_id, id, title) VALUES ('alice', %(id)s, %(text)s)",
        "INSERT INTO album_image (user_id, album_id, image_id, caption) VALUES ('alice', %(id)s, %(id)s, %(text)s)",
        "INSERT INTO image_edit (user_id, image_id, field, edited_by) VALUES ('alice', %(id)s, 'prompt', %(text)s)",
    ):
        filled = sql.replace("%(text)s", f"'{SECRET_TEXT}'").replace("%(id)s", f"'{saved['id']}'")
        await execute(database_url, filled)
    version = (await alice.post("/api/sync")).json()["version"]
    page = await alice.get("/api/images")
    return Alices(saved["id"], version, page.headers["etag"])


@pytest.mark.parametrize("route", NAMES_A_ROW)
async def test_another_users_row_is_not_there_and_stays_as_it_is(
    server: RunningServer, database_url: str, alices: Alices, route: str
) -> None:
    bob = server.client("bob")
    await save(bob)  # so that his replica stands at a version, with rows
    await bob.post("/api/sync")
    before = await contents(database_url)
    method, path = route.split(" ")
    for asked in NAMES_A_ROW[route]:
        answer = await bob.request(
            method, filled(path, alices.image, alices.image), json=asked.json, headers=list(asked.headers)
        )
        assert_problem(answer, 404, "not_found")
        assert SECRET_TEXT not in answer.text
    assert await contents(database_url) == before
    [image] = (await server.client("alice").get("/api/images")).json()["images"]
    assert (image["id"], image["prompt"], image["row_version"]) == (alices.image, SECRET_TEXT, 1)


@pytest.mark.parametrize("route", NAMES_ROWS_IN_ITS_BODY)
async def test_another_users_row_that_a_body_names_is_not_there_either(
    server: RunningServer, database_url: str, alices: Alices, route: str
) -> None:
    bob = server.client("bob")
    own = (await save(bob))["id"]
    album = (await bob.post("/api/albums", json={"title": "bob's"})).json()["id"]
    assert (await bob.put(f"/api/albums/{album}/images/{own}")).status_code == 201
    before = await contents(database_url)
    method, path = route.split(" ")
    body = NAMES_ROWS_IN_ITS_BODY[route](alices.image)
    answer = await bob.request(method, filled(path, own, album), json=body)
    assert answer.status_code == 404, answer.text
    assert assert_is_problem(answer)["code"] == "not_found"
    assert len(answer.json()["errors"]) == 1, "the place in the body is named"
    assert SECRET_TEXT not in answer.text
    assert await contents(database_url) == before


@pytest.mark.parametrize("route", NAMES_NONE)
async def test_an_answer_is_of_the_asking_user_alone(
    server: RunningServer, database_url: str, alices: Alices, route: str
) -> None:
    method, path = route.split(" ")
    bob = server.client("bob")
    for asked in NAMES_NONE[route]:
        answer = await bob.request(method, path, json=asked.json, headers=list(asked.headers))
        assert answer.status_code in {200, 201}, answer.text
        assert SECRET_TEXT not in answer.text
        assert alices.image not in answer.text
    rows = await execute(database_url, "SELECT prompt, row_version FROM image WHERE user_id = 'alice'")
    assert rows == [(SECRET_TEXT, 1)]
    heads = await execute(database_url, "SELECT version FROM tidepool.head WHERE user_id = 'alice'")
    assert alices.version.endswith(f".{heads[0][0]}")


@pytest.mark.parametrize("since", ["none", "their version", "another primary's"])
async def test_an_event_stream_tells_nothing_of_another_user(
    server: RunningServer, database_url: str, alices: Alices, since: str
) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    while (await save(bob))["version"] != alices.version:  # so that only whose it is tells the two apart
        pass
    given = {"their version": {"since": alices.version}, "another primary's": {"since": "a-b-c-d.1"}}.get(since, {})
    async with listening(bob, changes="true", **given) as stream, listening(alice, changes="true") as hers:
        for n in range(3):
            await save(alice, prompt=SECRET_TEXT)
            await execute(database_url, "UPDATE profile SET username = username || '!' WHERE user_id = 'alice'")
            await save(bob, prompt=f"bob's {n}")
        events = await stream.until((await bob.post("/api/sync")).json()["version"])
        assert {change["row"]["prompt"] for event in events for change in event.data.get("changes", ())} == {
            f"bob's {n}" for n in range(3)
        }
        assert SECRET_TEXT not in str(events)
        alices_last = (await alice.post("/api/sync")).json()["version"]
        assert SECRET_TEXT in str(await hers.until(alices_last))


async def test_an_image_with_another_users_id_is_an_image_of_ones_own(
    server: RunningServer, database_url: str, alices: Alices
) -> None:
    bob = server.client("bob")
    one = await bob.post("/api/images", json=IMAGE | {"id": alices.image, "prompt": "bob's"})
    assert (one.status_code, one.json()["prompt"], one.json()["rating"]) == (201, "bob's", None)
    gone = await bob.delete(f"/api/images/{alices.image}")
    assert gone.status_code == 200
    many = await bob.post("/api/images/batch", json={"images": [IMAGE | {"id": alices.image, "prompt": "bob's"}]})
    assert many.status_code == 201
    alice = await server.client("alice").get(f"/api/images/{alices.image}")
    assert (alice.json()["prompt"], alice.json()["rating"]) == (SECRET_TEXT, 5)
    assert await execute(database_url, "SELECT count(*) FROM image_activity") == [(1,)]


@pytest.mark.parametrize("field", ["user_id", "user", "owner", "sub"])
async def test_nobody_writes_for_another_by_saying_so(
    server: RunningServer, database_url: str, alices: Alices, field: str
) -> None:
    bob = server.client("bob")
    before = await contents(database_url)
    for answer in [
        await bob.post("/api/images", json=IMAGE | {field: "alice"}),
        await bob.post("/api/images/batch", json={"images": [IMAGE | {field: "alice"}]}),
        await bob.post("/api/images/batch", json={"images": [IMAGE], field: "alice"}),
        await bob.patch(f"/api/images/{alices.image}", json={"prompt": "x", field: "alice"}),
        await bob.post("/api/sync", json={field: "alice"}),
        await bob.get("/api/images", params={field: "alice"}),
        await bob.get("/api/me", params={field: "alice"}),
    ]:
        assert answer.status_code == 422, answer.text
        assert_is_problem(answer)
    assert await contents(database_url) == before


async def test_another_users_place_in_the_pages_shows_only_ones_own_images(server: RunningServer) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    for n in range(4):
        await save(alice, prompt=SECRET_TEXT, created_at=f"2024-02-0{n + 1}T00:00:00Z")
        await save(bob, prompt=f"bob's {n}", created_at=f"2024-02-0{n + 1}T12:00:00Z")
    cursor = (await alice.get("/api/images?limit=2")).json()["next_cursor"]
    page = (await bob.get("/api/images", params={"cursor": cursor})).json()
    assert [image["prompt"] for image in page["images"]] == ["bob's 1", "bob's 0"]


async def test_an_etag_of_another_user_never_makes_a_304(server: RunningServer, alices: Alices) -> None:
    alice, bob = server.client("alice"), server.client("bob")
    # Bob at the very version that alice is at, so that only whose it is tells the two apart.
    while (await save(bob))["version"] != alices.version:
        pass
    await bob.post("/api/sync")
    page = await bob.get("/api/images", headers={"If-None-Match": alices.etag})
    assert page.status_code == 200
    assert page.headers["x-replica-version"] == alices.version
    assert page.headers["etag"] != alices.etag
    assert SECRET_TEXT not in page.text
    own = await alice.get("/api/images", headers={"If-None-Match": alices.etag})
    assert (own.status_code, own.content) == (304, b"")
    assert "authorization" in own.headers["vary"].lower(), "a cache in between must keep users apart"
    assert "private" in own.headers["cache-control"]


async def test_a_304_does_not_say_that_a_row_of_another_user_is_there(server: RunningServer, alices: Alices) -> None:
    bob = server.client("bob")
    there = await bob.get(f"/api/images/{alices.image}", headers={"If-None-Match": "*"})
    nowhere = await bob.get("/api/images/00000000-0000-4000-8000-000000000000", headers={"If-None-Match": "*"})
    assert_problem(there, 404, "not_found")
    assert_problem(nowhere, 404, "not_found")


async def test_a_version_of_another_user_brings_nothing_of_theirs(server: RunningServer, alices: Alices) -> None:
    bob = server.client("bob")
    answer = await bob.get("/api/images", params={"min_version": alices.version.rpartition(".")[0] + ".0"})
    assert (answer.status_code, answer.json()["images"]) == (200, [])


# ── Tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────


def signed(secret: str = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **claims: Any) -> str:
    given = {"sub": "alice", "exp": time.time() + 600} | claims
    present = {name: value for name, value in given.items() if value is not None}
    if algorithm == "none":
        head = {"alg": "none", "typ": "JWT"} | (headers or {})
        return ".".join([*(_part(part) for part in (head, present)), ""])
    return jwt.encode(present, secret, algorithm=algorithm, headers=headers)


def _part(data: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(data).encode()).rstrip(b"=").decode()


def tampered() -> str:
    head, _, signature = signed().split(".")
    return ".".join([head, _part({"sub": "bob", "exp": time.time() + 600}), signature])


BAD_TOKENS = {
    "expired": signed(exp=time.time() - 1),
    "without an end": signed(exp=None),
    "that ends never": signed(exp=float("inf")),
    "not valid yet": signed(nbf=time.time() + 600),
    "unsigned": signed(algorithm="none"),
    "unsigned, in capitals": signed(algorithm="none", headers={"alg": "NONE"}),
    "unsigned, with our signature's name": signed(algorithm="none", headers={"alg": "HS256"}),
    "of another key": signed("another secret, of thirty-two bytes at least!!"),
    "of the right key and another algorithm": signed(algorithm="HS384"),
    "changed after it was signed": tampered(),
    "that brings its own key": signed("k" * 32, headers={"jwk": {"kty": "oct", "k": _part({})}, "kid": "../../x"}),
    "without a user": signed(sub=None),
    "of an empty user": signed(sub=""),
    "of a user of 256 characters": signed(sub="x" * 256),
    "of a user with U+0000": signed(sub="a\0b"),
    "of a user with half a character": signed(sub="a\ud800b"),
    "of a number": signed(sub=7),  # PyJWT itself would not make one
    "made out to another audience": signed(aud="elsewhere"),
    "far too long": signed(padding="x" * 20_000),
    "garbage": "garbage",
    "almost nothing": "..",
    "a null": "null",
    "emoji": "🌊.🌊.🌊".encode().decode("latin-1"),
}


@pytest.fixture
async def asked_by_nobody(server: RunningServer, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client without a token, and after it the proof that nothing was written and no replica made."""
    before = await contents(database_url)
    yield server.client(None)
    assert await contents(database_url) == before
    assert list(DataDirectory(server.settings.data_dir).all()) == []


async def test_a_token_that_does_not_hold_opens_no_route(asked_by_nobody: httpx.AsyncClient) -> None:
    routes = [(route, asked) for route, ways in (NAMES_A_ROW | NAMES_NONE | STREAMS).items() for asked in ways]
    routes += [(route, Route(body(SOME_ID))) for route, body in NAMES_ROWS_IN_ITS_BODY.items()]
    for name, token in BAD_TOKENS.items():
        for route, asked in routes:
            method, path = route.split(" ")
            headers = [(name.encode(), value.encode()) for name, value in asked.headers]
            answer = await asked_by_nobody.request(
                method,
                filled(path, SOME_ID, SOME_ID),
                json=asked.json,
                headers=[*headers, (b"Authorization", b"Bearer " + token.encode("latin-1"))],
            )
            assert answer.status_code == 401, f"a token {name} was let through by {route}: {answer.text}"
            assert assert_is_problem(answer)["code"] == ("token_expired" if name == "expired" else "token_invalid"), (
                name
            )
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert token not in answer.text or len(token) < 10


async def test_without_a_token_no_route_opens(asked_by_nobody: httpx.AsyncClient) -> None:
    for route in NAMES_A_ROW.keys() | NAMES_ROWS_IN_ITS_BODY.keys() | NAMES_NONE.keys() | STREAMS.keys():
        method, path = route.split(" ")
        for headers in ({}, {"Authorization": ""}, {"Authorization": "Basic YWxpY2U6"}, {"Authorization": "Bearer"}):
            answer = await asked_by_nobody.request(method, path, headers=headers)
            assert answer.status_code == 401, f"{route} {headers}"
            assert assert_is_problem(answer)["code"] in {"token_missing", "token_invalid"}


@pytest.mark.parametrize("order", [("alice", "bob"), ("bob", "alice"), ("alice", "alice"), ("alice", None)])
async def test_two_authorization_headers_are_nobody(
    asked_by_nobody: httpx.AsyncClient, server: RunningServer, order: tuple[str, str | None]
) -> None:
    headers = [
        ("Authorization", server.client(user).headers["authorization"] if user else "Basic YWxpY2U6") for user in order
    ]
    for method, path in (("GET", "/api/images"), ("POST", "/api/images")):
        answer = await asked_by_nobody.request(method, path, headers=headers, json=IMAGE if method == "POST" else None)
        assert answer.status_code == 401, answer.text
        assert assert_is_problem(answer)["code"] == "token_invalid"


async def test_a_cookie_writes_only_for_pages_of_this_server(
    asked_by_nobody: httpx.AsyncClient, server: RunningServer
) -> None:
    cookie = {"Cookie": f"tidepool_token={signed()}"}
    foreign: list[dict[str, str]] = [
        {},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": server.url},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Referer": server.url},
    ]
    every = NAMES_A_ROW.keys() | NAMES_ROWS_IN_ITS_BODY.keys() | NAMES_NONE.keys()
    writes = [route.split(" ") for route in every if not route.startswith("GET ")]
    for method, path in writes:
        for headers in foreign:
            # A page of another site can also send what needs no leave of ours: plain text, or a form.
            for kind in ("application/json", "text/plain", "application/x-www-form-urlencoded"):
                answer = await asked_by_nobody.request(
                    method,
                    filled(path, SOME_ID, SOME_ID),
                    content=json.dumps(IMAGE),
                    headers=cookie | headers | {"Content-Type": kind},
                )
                assert_problem(answer, 403, "csrf")


async def test_a_cookie_reads_and_a_page_of_this_server_may_write(server: RunningServer) -> None:
    nobody = server.client(None)
    cookie = {"Cookie": f"theme=dark; tidepool_token={signed()}"}
    assert (await nobody.get("/api/me", headers=cookie)).json()["user"] == "alice"
    for headers in ({"Sec-Fetch-Site": "same-origin"}, {"Origin": server.url}):
        answer = await nobody.post("/api/images", json=IMAGE, headers=cookie | headers)
        assert answer.status_code == 201, answer.text


async def test_a_bad_token_is_not_made_good_by_a_cookie(server: RunningServer) -> None:
    answer = await server.client(None).get(
        "/api/me", headers={"Cookie": f"tidepool_token={signed()}", "Authorization": "Bearer garbage"}
    )
    assert_problem(answer, 401, "token_invalid")


async def test_only_the_role_makes_an_admin_and_the_name_does_not(server: RunningServer) -> None:
    for token, admin in [
        (signed(role="admin"), True),
        (signed(sub="admin"), False),
        (signed(role=["admin"]), False),
        (signed(role="ADMIN"), False),
        (signed(admin=True), False),
    ]:
        answer = await server.client(None).get("/api/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.json()["admin"] is admin


async def test_what_needs_no_token_tells_nothing_of_any_user(server: RunningServer, alices: Alices) -> None:
    nobody = server.client(None)
    for path in ("/health/live", "/health/ready", "/metrics", "/schema", "/schema/openapi.json"):
        answer = await nobody.get(path)
        assert answer.status_code == 200
        assert "alice" not in answer.text
        assert SECRET_TEXT not in answer.text
        assert str(server.settings.data_dir) not in answer.text
