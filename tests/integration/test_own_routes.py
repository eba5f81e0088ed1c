"""What Postgres refuses of a write of a route of one's own: each answer names the rule, and none tells a value."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import httpx
import msgspec
import psycopg
import pytest
import structlog
from litestar import post
from litestar.handlers import HTTPRouteHandler
from litestar.params import JSONBody

from gateway.answers import Answer
from gateway.bodies import StrictRequest
from gateway.gallery import album_writes
from gateway.once import CONFLICT, Done, WriteOperation
from gateway.parts import Parts
from primary.write import Write
from tests.conftest import Serving
from tests.support.http import assert_problem, execute
from tests.support.schemas import Document
from tests.support.server import RunningServer

SECRET = "bobs-own"

TABLES = f"""
CREATE DOMAIN stars AS integer CONSTRAINT up_to_five CHECK (VALUE <= 5);
CREATE TABLE shelf (user_id text, id integer, PRIMARY KEY (user_id, id));
CREATE TABLE note (
  user_id text, id integer, slug varchar(20) NOT NULL, body text DEFAULT '', stars stars, shelf integer,
  shown int4range, place integer,
  PRIMARY KEY (user_id, id),
  CONSTRAINT uq_note_slug UNIQUE (slug),
  CONSTRAINT uq_note_place UNIQUE (user_id, place) DEFERRABLE INITIALLY DEFERRED,
  CONSTRAINT ck_note_body CHECK (body <> slug),
  CONSTRAINT fk_note_shelf FOREIGN KEY (user_id, shelf) REFERENCES shelf,
  CONSTRAINT ex_note_shown EXCLUDE USING gist (shown WITH &&));
CREATE INDEX ix_note_body ON note (body);
CREATE VIEW short AS SELECT * FROM note WHERE length(body) < 5 WITH CHECK OPTION;
CREATE FUNCTION rule() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF NEW.body = 'plain' THEN RAISE EXCEPTION 'not with % here', (SELECT slug FROM note WHERE user_id = 'bob');
  ELSIF NEW.body = 'named' THEN RAISE EXCEPTION 'no % more', NEW.slug USING CONSTRAINT = 'note_quota', TABLE = 'note';
  ELSIF NEW.body = 'taken' THEN RAISE unique_violation USING COLUMN = 'slug', TABLE = 'note'; END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER rule BEFORE INSERT ON note FOR EACH ROW EXECUTE FUNCTION rule();
INSERT INTO shelf VALUES ('alice', 1);
INSERT INTO note (user_id, id, slug, shelf, shown, place) VALUES ('alice', 1, 'mine', 1, '[1,5)', 1);
INSERT INTO note (user_id, id, slug) VALUES ('bob', 1, '{SECRET}')"""

NOTE = "INSERT INTO note (user_id, id, slug, {}) VALUES ('alice', 2, 'new', {})"

CONFLICTS = {
    "a key": ("INSERT INTO note (user_id, id, slug) VALUES ('alice', 1, 'new')", "note_pkey"),
    "another's": (f"INSERT INTO note (user_id, id, slug) VALUES ('alice', 2, '{SECRET}')", "uq_note_slug"),
    "at the commit": (NOTE.format("place", "1"), "uq_note_place"),
    "an exclusion": (NOTE.format("shown", "'[4,9)'"), "ex_note_shown"),
    "nothing to refer to": (NOTE.format("shelf", "2"), "fk_note_shelf"),
    "referred to": ("DELETE FROM shelf", "fk_note_shelf"),
    "a trigger's": (NOTE.format("body", "'taken'"), "slug"),
}
"""What is refused for what is there already, and what is named."""

INVALID = {
    "a check": (NOTE.format("body", "'new'"), "body"),
    "a domain's check": (NOTE.format("stars", "6"), "up_to_five"),
    "a view's check": ("INSERT INTO short (user_id, id, slug, body) VALUES ('alice', 2, 'new', 'too long')", ""),
    "nothing given": ("UPDATE note SET slug = NULL WHERE user_id = 'alice'", "slug"),
    "too long": ("UPDATE note SET slug = repeat('s', 21) WHERE user_id = 'alice'", ""),
    "too long for an index": (
        "UPDATE note SET body = (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 90) i)",
        "ix_note_body",
    ),
    "out of range": (NOTE.format("stars", "99999999999"), ""),
    "of another type": (f"INSERT INTO shelf SELECT 'alice', slug::integer FROM note WHERE slug = '{SECRET}'", ""),
    "a trigger's": (NOTE.format("body", "'plain'"), ""),
    "a trigger's by name": (NOTE.format("body", "'named'"), "note_quota"),
}
"""What is refused for what it is, and what is named."""


class Sql(msgspec.Struct):
    sql: str
    at_once: bool = False
    goes_on: bool = False


def own_routes(parts: Parts) -> list[HTTPRouteHandler]:
    @post("/notes", operation_class=WriteOperation, responses={409: CONFLICT}, summary="Write a note")
    async def write_note(request: StrictRequest, data: JSONBody[Sql]) -> Answer:
        """Write a note, in SQL."""

        async def work(write: Write) -> Done:
            with contextlib.suppress(*[psycopg.Error] if data.goes_on else []):
                await (write.finish((data.sql, {})) if data.at_once else write.execute(data.sql))
            return Done(b'"done":true', 201)

        return await parts.writes.answer(request, work)

    return [write_note]


@pytest.fixture
async def server(serving: Serving, database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningServer]:
    """A server that has a route of one's own, as README says: named where the gallery's are."""
    await execute(database_url, TABLES)
    gallerys = album_writes.routes
    monkeypatch.setattr(album_writes, "routes", lambda parts: [*gallerys(parts), *own_routes(parts)])
    async with serving() as started:
        yield started


def assert_silent(answer: httpx.Response) -> None:
    for told in (SECRET, "Key (", "mine", "row contains", "not with", "no new more", "INSERT"):
        assert told not in answer.text


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("sql", "named"), CONFLICTS.values(), ids=CONFLICTS)
async def test_what_is_there_already_is_a_conflict_that_names_the_constraint(
    sql: str, named: str, at_once: bool, client: httpx.AsyncClient, database_url: str
) -> None:
    answer = await client.post("/api/notes", json={"sql": sql, "at_once": at_once})
    assert_problem(answer, 409, "constraint_conflict", named)
    assert answer.json()["detail"].startswith(f"note: {named}: ")
    assert_silent(answer)
    assert await execute(database_url, "SELECT count(*) FROM note") == [(2,)]


@pytest.mark.parametrize("at_once", [False, True])
@pytest.mark.parametrize(("sql", "named"), INVALID.values(), ids=INVALID)
async def test_what_cannot_be_as_it_was_given_is_invalid(
    sql: str, named: str, at_once: bool, client: httpx.AsyncClient
) -> None:
    answer = await client.post("/api/notes", json={"sql": sql, "at_once": at_once})
    assert_problem(answer, 422, "invalid_request", named)
    assert_silent(answer)


async def test_what_was_in_the_way_may_go_and_the_same_request_under_its_key_then_succeeds(
    client: httpx.AsyncClient, database_url: str
) -> None:
    for at_once in (True, False):
        asked = {"sql": NOTE.format("place", "1"), "at_once": at_once}
        headers = {"Idempotency-Key": f"k{at_once}"}
        assert_problem(
            await client.post("/api/notes", json=asked, headers=headers), 409, "constraint_conflict", "uq_note_place"
        )
        await execute(database_url, "UPDATE note SET place = 9 WHERE id = 1 AND user_id = 'alice'")
        first = await client.post("/api/notes", json=asked, headers=headers)
        again = await client.post("/api/notes", json=asked, headers=headers)
        assert (first.status_code, again.content) == (201, first.content)
        await execute(database_url, "DELETE FROM note WHERE id = 2; UPDATE note SET place = 1 WHERE user_id = 'alice'")


@pytest.mark.parametrize("limit", ["default_transaction_read_only = on", "statement_timeout = 300"])
async def test_what_the_database_does_not_do_now_is_to_be_asked_again(
    limit: str, serving: Serving, database_url: str, server: RunningServer
) -> None:
    slow = "INSERT INTO shelf SELECT 'alice', 2 FROM pg_sleep(5)"
    setting = f"EXECUTE format('ALTER DATABASE %I SET {limit}', current_database())"
    await execute(database_url, f"DO $$ BEGIN {setting}; END $$")
    async with serving(data_dir=server.settings.data_dir.parent / "limited") as limited:
        with structlog.testing.capture_logs() as logs:
            answer = await limited.client("alice").post("/api/notes", json={"sql": slow})
    assert_problem(answer, 503, "primary_unavailable")
    assert answer.headers["retry-after"] == "1"
    (why,) = [line["postgres"] for line in logs if line["event"] == "given_up"]
    assert ("read-only" in why) or ("timeout" in why)


async def test_the_log_has_what_the_client_is_not_told(client: httpx.AsyncClient) -> None:
    with structlog.testing.capture_logs() as logs:
        await client.post("/api/notes", json={"sql": INVALID["a trigger's by name"][0]})
        await client.post("/api/notes", json={"sql": CONFLICTS["another's"][0]})
    told = [line for line in logs if line["event"] == "refused"]
    assert [(line["table"], line["field"], line["route"]) for line in told] == [
        ("note", "note_quota", "/api/notes"),
        ("note", "uq_note_slug", "/api/notes"),
    ]
    assert told[0]["postgres"] == "no new more"
    assert "uq_note_slug" in told[1]["postgres"]
    assert SECRET not in str(told)


async def test_the_conflict_of_a_route_of_ones_own_is_described(client: httpx.AsyncClient) -> None:
    described = Document((await client.get("/schema/openapi.json")).json())
    said = described.follow(described.operations()["POST /api/notes"]["responses"]["409"])
    (content,) = said["content"].values()
    answer = await client.post("/api/notes", json={"sql": CONFLICTS["a key"][0]})
    assert not described.faults(content["schema"], answer.json())
    assert described.example_of(content)["code"] == answer.json()["code"]


async def test_a_defect_of_a_route_is_one(client: httpx.AsyncClient, database_url: str) -> None:
    taken = CONFLICTS["a key"][0]
    for asked in ({"sql": "SELECT nothing"}, {"sql": "SELEC"}, {"sql": taken, "goes_on": True}):
        assert_problem(await client.post("/api/notes", json=asked), 500, "internal_error")
    assert await execute(database_url, "SELECT count(*) FROM note") == [(2,)]
