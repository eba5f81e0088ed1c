"""The mirror as a user and an operator meet it: the routes, what is shown, the commands, and where the key is not."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.observe.logs import configure_logs
from replica.library import connect
from replica.location import Location
from tests.conftest import Serving
from tests.support.cli import run_command
from tests.support.http import assert_problem, execute, save
from tests.support.server import SECRET, RunningServer
from tests.support.stash import Stash, StashImage, says, stash, status

KEY = "s3cret-key-of-ada's-stash.eyJhbGciOi"


@pytest.fixture
async def upstream() -> AsyncIterator[Stash]:
    async with stash() as running:
        running.key = KEY
        running.images["7"] = StashImage()
        yield running


@pytest.fixture
async def server(serving: Serving) -> AsyncIterator[RunningServer]:
    async with serving(mirror_private_addresses_allowed=True, mirror_poll_interval_s=0.05) as started:
        yield started


async def turn_on(client: httpx.AsyncClient, upstream: Stash, **more: Any) -> dict[str, Any]:
    answer = await client.put("/api/me/upstream", json={"endpoint": upstream.url, "api_key": KEY} | more)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def rate(url: str, image: dict[str, Any], rating: int) -> None:
    sql = (
        "INSERT INTO image_activity (user_id, image_id, rating) VALUES ('ada', %s, %s) "
        "ON CONFLICT (user_id, image_id) DO UPDATE SET rating = excluded.rating"
    )
    await execute(url, sql, image["id"], rating)


async def shown(client: httpx.AsyncClient, condition: Callable[[Any], bool]) -> Any:
    """Sync and read until what the user sees is so."""
    async with asyncio.timeout(10):
        while True:
            await client.post("/api/sync")
            told = (await client.get("/api/me")).json()["upstream"]
            if condition(told):
                return told
            await asyncio.sleep(0.02)


async def test_a_user_turns_it_on_rates_sees_how_it_goes_and_turns_it_off(
    server: RunningServer, upstream: Stash, database_url: str
) -> None:
    ada, bob = server.client("ada"), server.client("bob")
    image = await save(ada, meta={"stash_id": "7"})
    assert (await ada.get("/api/me")).json()["upstream"] is None
    answer = await turn_on(ada, upstream)
    assert answer == {
        "enabled": True,
        "endpoint": upstream.url,
        "pending": 0,
        "parked": 0,
        "version": answer["version"],
    }
    me = (await ada.get("/api/me", headers={"X-Min-Version": answer["version"]})).json()
    assert me["profile"]["sync_upstream"] is True
    assert me["upstream"] == {
        "enabled": True,
        "endpoint": upstream.url,
        "pending": 0,
        "parked": 0,
        "last_error": None,
        "last_error_at": None,
    }
    assert (await bob.get("/api/me")).json()["upstream"] is None
    await rate(database_url, image, 80)
    await upstream.until(lambda: upstream.calls == [("imageUpdate", "7", 80)])

    upstream.always = status(401)
    await rate(database_url, image, 90)
    seen = await shown(ada, lambda told: told["parked"] == 1)
    assert (seen["pending"], seen["last_error"]) == (0, "the server does not take the key (401)")
    assert seen["last_error_at"].endswith("Z")
    upstream.always = None
    await turn_on(ada, upstream)
    await upstream.until(lambda: len(upstream.calls) == 2)
    await shown(ada, lambda told: told["last_error"] is None)

    off = await ada.put("/api/me/upstream", json={"endpoint": upstream.url, "enabled": False})
    assert (off.status_code, off.json()["enabled"]) == (200, False)
    await rate(database_url, image, 10)
    assert await execute(database_url, "SELECT count(*) FROM upstream_outbox") == [(0,)]
    forgotten = (await ada.delete("/api/me/upstream")).json()
    me = (await ada.get("/api/me", headers={"X-Min-Version": forgotten["version"]})).json()
    assert (me["upstream"], me["profile"]["sync_upstream"]) == (None, False)
    assert await execute(database_url, "SELECT count(*) FROM upstream_key") == [(0,)]
    assert (await ada.delete("/api/me/upstream")).json() == forgotten  # again: nothing happens


async def test_reading_me_asks_the_primary_nothing(
    serving: Serving, upstream: Stash, database_url: str, proxy: Any
) -> None:
    async with serving(database_url=proxy.url, mirror_private_addresses_allowed=True) as server:
        ada = server.client("ada")
        await turn_on(ada, upstream)
        await ada.post("/api/sync")
        await proxy.cut()
        me = await ada.get("/api/me")
        assert (me.status_code, me.json()["upstream"]["endpoint"]) == (200, upstream.url)
        begun = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun < 4  # it stops within its time, the primary being away


async def test_a_restart_goes_on_where_it_was(serving: Serving, upstream: Stash, database_url: str) -> None:
    upstream.always = status(503)
    settings: dict[str, Any] = {"mirror_private_addresses_allowed": True, "mirror_poll_interval_s": 0.05}
    async with serving(**settings) as server:
        ada = server.client("ada")
        image = await save(ada, meta={"stash_id": 7})
        await turn_on(ada, upstream)
        await rate(database_url, image, 80)
        await upstream.until(lambda: bool(upstream.requests))
    upstream.always = None
    async with serving(**settings):
        await upstream.until(lambda: upstream.calls == [("imageUpdate", "7", 80)])


# As it is where nothing is set: public addresses only.
REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "endpoint"),
    ({"endpoint": "https://93.184.215.14/graphql"}, "api_key"),  # none is stored
    ({"endpoint": "https://93.184.215.14/graphql", "api_key": ""}, "api_key"),
    ({"endpoint": "https://93.184.215.14/graphql", "api_key": KEY + "\r\nX: y"}, "api_key"),
    ({"endpoint": "https://93.184.215.14/graphql", "api_key": KEY + "é"}, "api_key"),
    ({"endpoint": "https://93.184.215.14/graphql", "api_key": KEY + " "}, "api_key"),
    ({"endpoint": "https://93.184.215.14/graphql", "api_key": KEY * 200}, "api_key"),
    ({"endpoint": "https://93.184.215.14/graphql", "api_key": KEY, "enabled": "yes"}, "enabled"),
    ({"endpoint": "https://93.184.215.14/graphql", "api_key": KEY, "key": 1}, "key"),
    ({"endpoint": "http://127.0.0.1:9999/graphql", "api_key": KEY}, "endpoint"),
    ({"endpoint": "http://localhost:9999/graphql", "api_key": KEY}, "endpoint"),
    ({"endpoint": "http://[::ffff:10.0.0.1]/graphql", "api_key": KEY}, "endpoint"),
    ({"endpoint": "http://2130706433/graphql", "api_key": KEY}, "endpoint"),
    ({"endpoint": "http://169.254.169.254/graphql", "api_key": KEY}, "endpoint"),
    ({"endpoint": "https://ada:pw@93.184.215.14/graphql", "api_key": KEY}, "endpoint"),
]


async def test_what_cannot_be_taken_is_named_and_never_shown(serving: Serving, database_url: str) -> None:
    async with serving() as server:
        ada = server.client("ada")
        for body, field in REFUSED:
            answer = await ada.put("/api/me/upstream", json=body)
            assert_problem(answer, 422, "invalid_request", field)
            assert "s3cret" not in answer.text
    assert await execute(database_url, "SELECT count(*) FROM upstream") == [(0,)]


async def test_a_stored_key_does_not_go_along_to_another_endpoint(
    server: RunningServer, upstream: Stash, database_url: str
) -> None:
    ada = server.client("ada")
    await turn_on(ada, upstream)
    async with stash() as thief:
        assert_problem(
            await ada.put("/api/me/upstream", json={"endpoint": thief.url}), 422, "invalid_request", "api_key"
        )
        # Nor for one who can write rows:
        await execute(database_url, "UPDATE upstream SET endpoint = %s", thief.url)
        await rate(database_url, await save(ada, meta={"stash_id": 7}), 1)
        seen = await shown(ada, lambda told: told["parked"] == 1)
        assert "save the settings again" in seen["last_error"]
        assert thief.requests == []


async def test_an_endpoint_that_is_private_by_now_is_not_called(
    serving: Serving, upstream: Stash, database_url: str
) -> None:
    async with serving(mirror_private_addresses_allowed=True) as server:
        await turn_on(server.client("ada"), upstream)
    async with serving(mirror_poll_interval_s=0.05) as server:
        ada = server.client("ada")
        await rate(database_url, await save(ada, meta={"stash_id": 7}), 1)
        seen = await shown(ada, lambda told: told["parked"] == 1)
        assert seen["last_error"] == "the endpoint is not asked: 127.0.0.1 is a private address"
    assert upstream.requests == []


async def test_the_key_is_in_no_answer_log_replica_or_table(
    serving: Serving, upstream: Stash, database_url: str, data_dir: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    with (tmp_path / "log").open("w") as log, logs_to(log):
        async with serving(mirror_private_addresses_allowed=True, mirror_poll_interval_s=0.05) as server:
            ada = server.client("ada")
            image = await save(ada, meta={"stash_id": 7})
            said.append(str(await turn_on(ada, upstream)))
            echo = {"errors": [{"message": f"{KEY} {'x' * 230} {KEY} not found"}], "key": KEY}
            upstream.always = says(echo)  # a server that quotes what it was sent
            await rate(database_url, image, 80)
            said.append(str(await shown(ada, lambda told: told["parked"] == 1)))
            assert "xxx" in said[-1]
            upstream.always = status(401, KEY.encode())
            await turn_on(ada, upstream)
            said.append(str(await shown(ada, lambda told: told["parked"] == 1)))
            paths = ("/api/me", "/metrics", "/schema/openapi.json")
            said += [(await ada.get(path)).text for path in paths]
    said.append((tmp_path / "log").read_text())
    assert "mirror_parked" in said[-1]
    tables = ("upstream", "upstream_key", "upstream_outbox", "profile", "tidepool.change")
    said += [str(await execute(database_url, f"SELECT t::text FROM {table} AS t")) for table in tables]
    for part in (KEY, KEY[:12], KEY.encode().hex()):
        assert not [text for text in said if part in text]
    files = [path for path in data_dir.rglob("*") if path.is_file()]
    assert any(path.suffix == ".db" for path in files)
    assert not [path for path in files if KEY[:12].encode() in path.read_bytes()]
    [replica] = data_dir.rglob("replicas/**/*.db")
    with contextlib.closing(connect(Location(replica).uri("ro"))) as connection:
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    assert "upstream" in names
    assert not names & {"upstream_key", "upstream_outbox"}


@contextlib.contextmanager
def logs_to(stream: Any) -> Any:
    """Log everything to a stream, what httpx and its parts say of themselves too."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    chatty = [logging.getLogger(name) for name in ("httpx", "httpcore", "httpcore.http11", "httpcore.connection")]
    try:
        configure_logs("debug", "json", stream)
        for logger in chatty:
            logger.setLevel(logging.DEBUG)
        yield
    finally:
        import structlog

        structlog.reset_defaults()
        root.handlers = handlers
        root.setLevel(level)
        for logger in chatty:
            logger.setLevel(logging.NOTSET)


def test_an_operator_sees_how_it_goes_and_has_it_tried_again(data_dir: Path, database_url: str) -> None:
    def tidepool(*arguments: str) -> str:
        result = run_command(*arguments, data_dir=str(data_dir), database_url=database_url, jwt_secret=SECRET)
        assert result.exit_code == 0, result.output
        return result.output

    async def park() -> None:
        for user in ("ada", "bob"):
            await execute(database_url, "INSERT INTO profile (user_id, sync_upstream) VALUES (%s, true)", user)
            await execute(database_url, "INSERT INTO upstream (user_id, endpoint) VALUES (%s, 'https://x/')", user)
            await execute(database_url, "INSERT INTO upstream_key (user_id, sealed_key) VALUES (%s, 'x')", user)
            [(image,)] = await execute(
                database_url,
                "INSERT INTO image (user_id, prompt, image_url, meta) VALUES (%s, 'p', 'u', '{\"stash_id\": 1}') "
                "RETURNING id",
                user,
            )
            await execute(
                database_url, "INSERT INTO image_activity (user_id, image_id, rating) VALUES (%s, %s, 1)", user, image
            )
        await execute(database_url, "UPDATE upstream_outbox SET parked = true, error = 'why', failed_at = now()")

    assert tidepool("mirror", "status") == "Nobody mirrors anything.\n"
    asyncio.run(park())
    told = tidepool("mirror", "status", "--user", "ada").splitlines()
    assert told[0] == "ada: on, 0 pending, 1 parked, https://x/"
    assert told[1].endswith("  why")
    assert tidepool("mirror", "retry", "--user", "ada") == "1 changes are tried again, by the server if it runs.\n"
    lines = [line for line in tidepool("mirror", "status").splitlines() if not line.startswith(" ")]
    assert lines == ["ada: on, 1 pending, 0 parked, https://x/", "bob: on, 0 pending, 1 parked, https://x/"]
    tidepool("mirror", "retry")
    assert "0 pending" not in tidepool("mirror", "status")
