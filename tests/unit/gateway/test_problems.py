"""Errors: each has its status, its code and the field at fault, and none tells what is nobody's business."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import msgspec
import pytest
from litestar import Litestar, get, post
from litestar.exceptions import HTTPException, TooManyRequestsException
from litestar.params import FromPath, FromQuery, HeaderParameter, JSONBody, QueryParameter
from litestar.testing import AsyncTestClient

from gateway.auth import CrossSiteRequest, KeysUnavailable, Unauthenticated
from gateway.bodies import StrictRequest
from gateway.observe.metrics import Metrics
from gateway.observe.middleware import Observe
from gateway.problems import MEDIA_TYPE, Problem, answer
from gateway.validation import FieldError
from primary.errors import (
    Conflict,
    EpochMismatch,
    InTheWay,
    InvalidCursor,
    InvalidValue,
    MigrationsPending,
    PrimaryUnavailable,
)
from replica.errors import ReadTimeout, ReplicaUnavailable

BODY_MAX_BYTES = 1_000_000

Client = AsyncTestClient[Litestar]


class Picture(msgspec.Struct, forbid_unknown_fields=True):
    prompt: Annotated[str, msgspec.Meta(max_length=5)]
    seed: int | None = None
    scale: float = 1.0
    liked: bool = False
    metadata: dict[str, int] = {}


class Pictures(msgspec.Struct, forbid_unknown_fields=True):
    images: Annotated[list[Picture], msgspec.Meta(min_length=1, max_length=4)]


RAISED: dict[str, tuple[Exception, int, str]] = {
    "problem": (Problem(418, "teapot", "short and stout", hint="Tip me over."), 418, "teapot"),
    "unauthenticated": (Unauthenticated("no", code="token_expired"), 401, "token_expired"),
    "csrf": (CrossSiteRequest("no"), 403, "csrf"),
    "keys": (KeysUnavailable("https://internal/keys"), 503, "keys_unavailable"),
    "primary": (PrimaryUnavailable("connection to /var/run/x failed"), 503, "primary_unavailable"),
    "in the way": (InTheWay("canceling statement due to lock timeout"), 503, "primary_unavailable"),
    "migrations": (MigrationsPending(), 503, "migrations_pending"),
    "replica": (ReplicaUnavailable("/data/replicas/ab/cd.db is broken"), 503, "replica_unavailable"),
    "slow": (ReadTimeout(), 503, "read_timeout"),
    "value": (InvalidValue("seed", "is out of range"), 422, "invalid_request"),
    "conflict": (Conflict("uq_note", "is there", said="SELECT"), 409, "constraint_conflict"),
    "cursor": (InvalidCursor("'x' is not a cursor"), 422, "invalid_cursor"),
    "epoch": (EpochMismatch("a and b"), 409, "cursor_epoch_changed"),
    "busy": (TooManyRequestsException(), 429, "too_many_requests"),
    "http": (HTTPException(status_code=500, detail="SELECT * FROM secrets"), 500, "internal_error"),
    "defect": (RuntimeError("SELECT * FROM /etc/passwd"), 500, "internal_error"),
    "sql": (ValueError("SELECT * FROM /etc/passwd"), 500, "internal_error"),
    "msgspec": (msgspec.ValidationError("ours, not the client's"), 500, "internal_error"),
}


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    @post("/pictures")
    async def save(data: JSONBody[Pictures]) -> dict[str, Any]:
        return {"saved": len(data.images)}

    @post("/bare")
    async def bare(data: JSONBody[list[Picture]]) -> dict[str, Any]:
        return {"saved": len(data)}

    @post("/optional")
    async def optional(data: JSONBody[Picture | None] = None) -> dict[str, Any]:
        return {"given": data is not None}

    @get("/pictures/{picture_id:str}")
    async def one(
        picture_id: FromPath[UUID],
        limit: Annotated[int, QueryParameter(ge=1, le=500)] = 50,
        if_match: Annotated[int | None, HeaderParameter(name="If-Match")] = None,
    ) -> dict[str, Any]:
        return {"id": str(picture_id), "limit": limit, "if_match": if_match}

    @get("/needs")
    async def needs(wanted: FromQuery[int]) -> dict[str, Any]:
        return {"wanted": wanted}

    @get("/raise/{name:str}")
    async def raises(name: FromPath[str]) -> None:
        raise RAISED[name][0]

    app = Litestar(
        [save, bare, optional, one, needs, raises],
        exception_handlers={Exception: answer},
        request_class=StrictRequest,
        request_max_body_size=BODY_MAX_BYTES,
        openapi_config=None,
        logging_config=None,
    )
    app.asgi_handler = Observe(app.asgi_handler, Metrics())
    async with AsyncTestClient(app, raise_server_exceptions=False) as subject:
        yield subject


async def refused(client: Client, body: bytes | str, path: str = "/pictures") -> dict[str, Any]:
    answered = await client.post(path, content=body)
    told: dict[str, Any] = answered.json()
    assert answered.headers["content-type"] == MEDIA_TYPE
    assert answered.status_code == told["status"]
    return told


@pytest.mark.parametrize("name", RAISED)
async def test_every_error_has_its_status_and_code_and_keeps_its_secrets(client, name):
    _, status, code = RAISED[name]
    answered = await client.get(f"/raise/{name}", headers={"X-Request-ID": "from-the-proxy"})
    told = answered.json()
    assert (answered.status_code, told["status"], told["code"]) == (status, status, code)
    assert told["type"] == f"urn:tidepool:problem:{code}"
    assert told["instance"] == "urn:tidepool:request:from-the-proxy"
    assert told["detail"]
    assert told["title"]
    for secret in ("SELECT", "/etc", "/var", "/data", "Traceback", "internal/", "RuntimeError"):
        assert secret not in answered.text
    if status == 503:
        assert answered.headers["retry-after"] == "1"


async def test_a_write_without_the_primary_says_what_to_do(client):
    told = (await client.get("/raise/primary")).json()
    assert "try again" in told["hint"]


async def test_a_refused_value_names_its_field(client):
    told = (await client.get("/raise/value")).json()
    assert told["errors"] == [{"field": "seed", "message": "is out of range"}]


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "nope",
        "'single'",
        '{"images": [{"prompt": NaN}]}',
        '{"images": [{"prompt": "\\ud800"}]}',
        '{"images": [{"prompt": "a"}]} trailing',
        b'{"images": [{"prompt": "\xff"}]}',
        b"\xef\xbb\xbf{}",
    ],
)
async def test_what_is_no_json_is_400(client, body):
    assert (await refused(client, body))["code"] == "malformed_json"


async def test_json_that_is_nested_without_end_is_refused(client):
    told = await refused(client, '{"images": [{"prompt": "a", "metadata": ' + '{"a": ' * 50_000)
    assert told["status"] in (400, 422)
    assert (await refused(client, "[" * 200_000, "/bare"))["status"] in (400, 422)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"images": [{"prompt": "a"}, {"prompt": "b", "seed": "x"}]}', "images[1].seed"),
        ('{"images": [{"prompt": "a", "seed": "12"}]}', "images[0].seed"),
        ('{"images": [{"prompt": "a", "seed": 1.5}]}', "images[0].seed"),
        ('{"images": [{"prompt": "a", "liked": "true"}]}', "images[0].liked"),
        ('{"images": [{"prompt": "a", "liked": 1}]}', "images[0].liked"),
        ('{"images": [{"prompt": "a", "scale": "1"}]}', "images[0].scale"),
        ('{"images": [{"prompt": 1}]}', "images[0].prompt"),
        ('{"images": [{"prompt": "far too long"}]}', "images[0].prompt"),
        ('{"images": [{"prompt": "a", "sede": 1}]}', "images[0].sede"),
        ('{"images": [{}]}', "images[0].prompt"),
        ('{"images": []}', "images"),
        ('{"images": [{}, {}, {}, {}, {}]}', "images[0].prompt"),
        ('{"images": [' + ", ".join(['{"prompt": "a"}'] * 5) + "]}", "images"),
        ('{"images": {}}', "images"),
        ('{"images": null}', "images"),
        ('{"images": [null]}', "images[0]"),
        ('{"imagse": []}', "imagse"),
        ("{}", "images"),
        ("[]", ""),
        ("null", ""),
        ('{"images": [{"prompt": "a", "metadata": {"data.x": "y"}}]}', "images[0].metadata[...]"),
    ],
)
async def test_a_body_of_the_wrong_shape_is_422_and_names_the_field(client, body, field):
    told = await refused(client, body)
    assert (told["status"], told["code"]) == (422, "invalid_request")
    assert told["errors"][0]["field"] == field
    assert told["errors"][0]["message"]
    assert field in told["detail"]


async def test_a_field_in_a_bare_array_is_named_by_its_place(client):
    told = await refused(client, '[{"prompt": "a"}, {"prompt": 2}]', "/bare")
    assert told["errors"][0]["field"] == "[1].prompt"


async def test_what_is_right_passes(client):
    assert (await client.post("/pictures", content='{"images": [{"prompt": "😀", "seed": null}]}')).json() == {
        "saved": 1
    }
    assert (await client.post("/bare", content="[]")).json() == {"saved": 0}
    assert (await client.post("/optional")).json() == {"given": False}
    assert (await client.post("/optional", content="null")).json() == {"given": False}
    assert (await client.post("/optional", content='{"prompt": "a"}')).json() == {"given": True}


@pytest.mark.parametrize(
    ("path", "headers", "fields"),
    [
        ("/pictures/abc", {}, ["picture_id"]),
        ("/pictures/%00", {}, ["picture_id"]),
        (f"/pictures/{UUID(int=1)}?limit=0", {}, ["limit"]),
        (f"/pictures/{UUID(int=1)}?limit=501", {}, ["limit"]),
        (f"/pictures/{UUID(int=1)}?limit=-1", {}, ["limit"]),
        (f"/pictures/{UUID(int=1)}?limit=x", {}, ["limit"]),
        (f"/pictures/{UUID(int=1)}?limit=", {}, ["limit"]),
        (f"/pictures/{UUID(int=1)}", {"If-Match": "x"}, ["If-Match"]),
        ("/pictures/abc?limit=x", {"If-Match": "x"}, ["picture_id", "limit", "If-Match"]),
        ("/needs", {}, ["wanted"]),
    ],
)
async def test_a_bad_parameter_is_422_and_named_as_the_client_wrote_it(client, path, headers, fields):
    answered = await client.get(path, headers=headers)
    told = answered.json()
    assert (told["status"], told["code"]) == (422, "invalid_request")
    assert [error["field"] for error in told["errors"]] == fields


async def test_a_body_over_the_limit_is_413(client):
    answered = await client.post("/pictures", content=b" " * (BODY_MAX_BYTES + 1))
    assert (answered.status_code, answered.json()["code"]) == (413, "body_too_large")


async def test_a_body_without_an_announced_length_is_read_no_further_than_the_limit(client):
    read = 0
    sent: list[Any] = []

    async def receive() -> Any:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b" " * 100_000, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/pictures", "query_string": b"", "headers": [],
        "server": ("testserver", 80), "client": ("127.0.0.1", 1), "scheme": "http",
    }  # fmt: skip
    await client.app(scope, receive, send)
    assert sent[0]["status"] == 413
    assert read == BODY_MAX_BYTES // 100_000 + 1


async def test_what_is_not_there_is_404_and_what_cannot_be_done_is_405(client):
    assert (await client.get("/nothing")).json()["code"] == "not_found"
    answered = await client.delete("/pictures")
    assert (answered.status_code, answered.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in answered.headers["allow"]


@pytest.mark.parametrize("given", ["", "two words", "a\tb", "x" * 129, "é", "a;b", "{}"])
async def test_a_request_id_that_is_not_fit_for_a_log_is_replaced(client, given):
    answered = await client.get("/nothing", headers={"X-Request-ID": given.encode()})
    made = answered.headers["x-request-id"]
    assert made != given
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]+", made)
    assert answered.json()["instance"].endswith(made)


async def test_no_two_requests_have_one_id(client):
    ids = {(await client.get("/nothing")).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


def test_a_problem_carries_what_it_is_given():
    problem = Problem(422, "c", "d", errors=[FieldError("f", "m")], headers={"a": "b"})
    assert (problem.errors, problem.headers, str(problem)) == ((FieldError("f", "m"),), {"a": "b"}, "d")
