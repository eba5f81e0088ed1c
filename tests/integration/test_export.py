"""I8 over HTTP: an export is everything that its user owns, at the version that it says, or no export at all."""

from __future__ import annotations

import asyncio
import io
import shutil
import socket
import sqlite3  # noqa: TID251 - whoever has the file opens it with theirs
import subprocess
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from contextlib import AsyncExitStack, closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest

from primary.declaration import Catalog
from primary.postgres import Primary
from replica.export import FORMATS
from replica.export.manifest import Manifest
from replica.location import DataDirectory
from tests.conftest import Serving
from tests.support.exports import CutOff, copied_back, opened, read
from tests.support.gallery_writes import asked, furnish
from tests.support.http import assert_problem, deaf, execute, metric, prompts, save, until_metric
from tests.support.open_files import open_files
from tests.support.proxy import PostgresProxy
from tests.support.replicas import change, truth
from tests.support.server import RunningServer

EXPORTS = "tidepool_exports"
STOP_MAX_S = 4.5  # of 5 s, Postgres included
KINDS = {"sqlite": "application/vnd.sqlite3", "ndjson": "application/x-ndjson", "csv": "application/zip"}
SUFFIXES = {"sqlite": ".sqlite", "ndjson": ".ndjson", "csv": ".csv.zip"}
# 12.9 MB: more than what the system takes in for a client that does not read.
MUCH = """
INSERT INTO image (user_id, prompt, image_url, description)
SELECT 'alice', repeat('x', 32000), 'u', repeat('y', 32000) FROM generate_series(1, 200)"""
MUCH_BYTES = 12_800_000


async def exported(client: httpx.AsyncClient, name: str, **asked: str) -> httpx.Response:
    answer = await client.get("/api/export", params={"format": name}, headers=asked)
    assert answer.status_code == 200, answer.text
    return answer


def nothing_is_left(server: RunningServer) -> None:
    apart = DataDirectory(server.settings.data_dir).apart
    assert not [*apart.iterdir()]
    assert not open_files(apart)


async def until_nothing_is_left(server: RunningServer, within_s: float = 5) -> None:
    await until_metric(server.client(None), EXPORTS, 0, within_s)
    apart = DataDirectory(server.settings.data_dir).apart
    async with asyncio.timeout(within_s):
        while [*apart.iterdir()] or open_files(apart):
            await asyncio.sleep(0.01)


def endless(connection: apsw.Connection, manifest: Manifest, folder: Path) -> Path:
    """Write an export that has no end."""
    (folder / "half").write_text("half")
    connection.execute("WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n")
    return folder / "half"


@pytest.fixture
def never_made(monkeypatch: pytest.MonkeyPatch) -> str:
    """A format whose exports never come to their end."""
    monkeypatch.setitem(FORMATS, "ndjson", replace(FORMATS["ndjson"], write=endless))
    return "ndjson"


# ── What is in it ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("user", ["alice", "🌊 ﷽ ../é\n'\"", "nobody yet"])
async def test_an_export_is_what_postgres_has_and_says_whose_it_is_and_as_of_when(
    server: RunningServer, primary: Primary, catalog: Catalog, name: str, user: str
) -> None:
    client = server.client(user)
    if user != "nobody yet":
        await furnish(client)
        await change(primary, user, tag='"quoted", \\ and 🌊\r\nbroken')
        await asked(client, "PUT", "/api/me/upstream", {"endpoint": "https://93.184.215.14/", "api_key": "a-secret"})
    await furnish(server.client("another"))
    version = (await asked(client, "POST", "/api/sync"))["version"]
    answer = await exported(client, name)
    assert answer.headers["content-type"] == KINDS[name]
    assert answer.headers["content-disposition"] == f'attachment; filename="tidepool-{version}{SUFFIXES[name]}"'
    assert answer.headers["content-length"] == str(len(answer.content))
    assert answer.headers["x-replica-version"] == version
    assert "private" in answer.headers["cache-control"]
    found = read(name, answer.content, catalog)
    assert (found.manifest["user"], found.manifest["version"]) == (user, version)
    expected = await truth(primary, catalog, user)
    assert {table: Counter(rows) for table, rows in found.rows.items()} == expected
    filled = {table for table, rows in expected.items() if rows}
    assert filled >= {"image", "album", "upstream"} if user != "nobody yet" else not filled
    assert b"a-secret" not in b"".join(unpacked(name, answer.content))
    if name == "csv" and user == "alice":
        async with primary.connection() as connection:
            for table in catalog:
                assert await copied_back(connection, table, user, answer.content) == (0, 0), table.name


def unpacked(name: str, content: bytes) -> list[bytes]:
    if name != "csv":
        return [content]
    archive = zipfile.ZipFile(io.BytesIO(content))
    return [archive.read(one) for one in archive.namelist()]


async def test_the_manifest_tells_of_tables_columns_and_types(client: httpx.AsyncClient, catalog: Catalog) -> None:
    await furnish(client)
    told = {name: read(name, (await exported(client, name)).content, catalog).manifest for name in FORMATS}
    for manifest in told.values():
        assert [table["name"] for table in manifest["tables"]] == [table.name for table in catalog]
        (image,) = [table for table in manifest["tables"] if table["name"] == "image"]
        assert {"name": "seed", "type": "bigint", "nullable": True} in image["columns"]
        assert {"name": "created_at", "type": "timestamp with time zone", "nullable": False} in image["columns"]
    assert told["ndjson"].keys() == told["csv"].keys() == {"format", "user", "version", "exported_at", "tables"}


async def test_an_sqlite_export_is_a_file_of_ones_own_with_search(
    client: httpx.AsyncClient, primary: Primary, tmp_path: Path
) -> None:
    for n in range(30):
        await save(client, prompt=f"a heron, number {n}", description="low water")
    for image in (await client.get("/api/images?limit=20")).json()["images"]:
        await asked(client, "DELETE", f"/api/images/{image['id']}")
    await asked(client, "POST", "/api/sync")
    content = (await exported(client, "sqlite")).content
    matches = "SELECT count(*) FROM image JOIN image_fts ON image_fts.rowid = image.rowid WHERE image_fts MATCH"
    with closing(opened(content)) as connection:

        def one(sql: str) -> Any:
            return connection.execute(sql).fetchone()[0]

        assert one("PRAGMA integrity_check") == "ok"
        assert (one("PRAGMA freelist_count"), one("PRAGMA journal_mode")) == (0, "memory")
        assert content[18:20] == b"\x01\x01", "no write-ahead log is expected beside it"
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        assert {"_export", "_export_table", "image", "image.key", "image_fts", "image.newest"} <= names
        assert not {"_replica", "_change", "image.newest.plain"} & names
        assert one(f"{matches} 'heron'") == 10
        connection.execute("DELETE FROM image WHERE prompt LIKE '%9'")
        connection.execute("UPDATE image SET prompt = 'an egret' WHERE prompt LIKE '%8'")
        connection.execute(
            "INSERT INTO image (id, prompt, image_url, source, meta, created_at, updated_at, row_version)"
            " SELECT 'mine', 'a heron of mine', image_url, source, meta, created_at, updated_at, row_version"
            " FROM image LIMIT 1"
        )
        expected = one("SELECT count(*) FROM image WHERE prompt LIKE '%heron%'")
        for statement in ("REINDEX", "ANALYZE", "VACUUM"):
            connection.execute(statement)
            assert one(f"{matches} 'heron'") == expected
            assert one(f"{matches} 'egret'") == 1
            connection.execute("INSERT INTO image_fts (image_fts, rank) VALUES ('integrity-check', 1)")
    if (program := shutil.which("sqlite3")) is not None:
        (tmp_path / "mine.sqlite").write_bytes(content)
        told = subprocess.run(
            [program, "-readonly", str(tmp_path / "mine.sqlite"), f"{matches} 'heron'"], capture_output=True, text=True
        )
        assert (told.stdout, told.stderr) == ("10\n", "")
        assert [path.name for path in tmp_path.iterdir()] == ["mine.sqlite"]


@pytest.mark.parametrize("name", FORMATS)
async def test_what_was_cut_off_shows_it(client: httpx.AsyncClient, catalog: Catalog, name: str) -> None:
    await furnish(client)
    content = (await exported(client, name)).content
    for part in (0.1, 0.5, 0.9, 0.999):
        with pytest.raises((CutOff, sqlite3.DatabaseError, IndexError, ValueError)):
            read(name, content[: int(len(content) * part)], catalog)


async def test_exports_at_once_are_each_whole_while_others_write(
    serving: Serving, primary: Primary, catalog: Catalog
) -> None:
    async with serving(exports_per_user_max=3) as server:
        await _whole_each(server, primary, catalog)


async def _whole_each(server: RunningServer, primary: Primary, catalog: Catalog) -> None:
    users = ["alice", "bob"]
    for user in users:
        await furnish(server.client(user))

    async def write() -> None:
        for n in range(20):
            await change(primary, users[n % 2], tag=f"round {n}")

    async def take(user: str, name: str) -> None:
        found = read(name, (await exported(server.client(user), name)).content, catalog)
        images, activity = found.rows["image"], found.rows["image_activity"]
        assert {row[0] for row in activity} <= {row[0] for row in images}, "no part of a transaction"
        seen.append(found.manifest["version"])

    seen: list[str] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(write())
        for name in FORMATS:
            for user in users:
                group.create_task(take(user, name))
            await asyncio.sleep(0.05)
    assert len(seen) == 6


# ── How it is asked for ─────────────────────────────────────────────────────────────────────────────────────────


async def test_what_cannot_be_asked_for_is_named(client: httpx.AsyncClient) -> None:
    for query, field in (
        ("format=xml", "format"),
        ("format=", "format"),
        ("format=SQLITE", "format"),
        ("format=csv&format=csv", "format"),
        ("fromat=csv", "fromat"),
        ("user=bob", "user"),
    ):
        assert_problem(await client.get(f"/api/export?{query}"), 422, "invalid_request", field)
    assert_problem(await client.get("/api/export?min_version=x"), 422, "invalid_cursor", "min_version")
    assert_problem(await client.get("/api/export?min_version=a-b-c-d.1"), 409, "cursor_epoch_changed")
    assert_problem(await client.post("/api/export"), 405, "method_not_allowed")
    assert (await client.head("/api/export")).status_code == 405
    assert (await client.get("/api/export")).headers["content-type"] == KINDS["sqlite"]


async def test_it_is_as_fresh_as_any_read(client: httpx.AsyncClient, database_url: str, catalog: Catalog) -> None:
    etag = ""
    for n in range(5):
        saved = await save(client, prompt=f"number {n}")
        answer = await exported(client, "ndjson", **{"X-Min-Version": saved["version"]})
        assert len(read("ndjson", answer.content, catalog).rows["image"]) == n + 1
        etag = answer.headers["etag"]
    assert etag.startswith('W/"'), "two of a version differ in when they were made"
    again = await client.get("/api/export?format=ndjson", headers={"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    await save(client)
    assert (await client.get("/api/export?format=ndjson", headers={"If-None-Match": etag})).status_code == 200


async def test_with_the_primary_away_it_is_what_there_is_and_says_so(
    serving: Serving, proxy: PostgresProxy, catalog: Catalog
) -> None:
    async with serving(database_url=proxy.url) as server:
        client = server.client("alice")
        await save(client)
        await asked(client, "POST", "/api/sync")
        await proxy.cut()
        for name in FORMATS:
            answer = await exported(client, name)
            assert answer.headers["x-replica-stale"] == "true"
            assert len(read(name, answer.content, catalog).rows["image"]) == 1
        assert_problem(await server.client("stranger").get("/api/export"), 503, "primary_unavailable")
        await until_nothing_is_left(server)
        await proxy.resume()


# ── Bounds, and those who leave ─────────────────────────────────────────────────────────────────────────────────


async def test_a_user_and_a_node_have_so_many_at_once(serving: Serving, database_url: str) -> None:
    await execute(database_url, MUCH)
    async with serving(exports_per_user_max=1, exports_max=2) as server:
        alice, bob, carol = map(server.client, ("alice", "bob", "carol"))
        async with deaf(server, "alice", "/api/export?format=ndjson"):
            await until_metric(alice, EXPORTS, 1)
            refused = await alice.get("/api/export")
            assert_problem(refused, 429, "too_many_exports")
            assert "retry-after" in refused.headers
            assert (await bob.get("/api/export")).status_code == 200, "one user's bound is not another's"
            await execute(database_url, MUCH.replace("alice", "bob"))
            await asked(bob, "POST", "/api/sync")
            async with deaf(server, "bob", "/api/export?format=ndjson"):
                await until_metric(alice, EXPORTS, 2)
                assert_problem(await carol.get("/api/export"), 429, "too_many_exports")
                assert len(await prompts(alice)) == 200, "reading goes on"
        await until_nothing_is_left(server)
        assert (await carol.get("/api/export")).status_code == 200


async def test_a_client_that_takes_nothing_is_cut_off(serving: Serving, database_url: str) -> None:
    await execute(database_url, MUCH)
    async with serving(export_stall_max_s=0.3) as server:
        async with deaf(server, "alice", "/api/export?format=ndjson") as connection:
            await until_metric(server.client(None), EXPORTS, 1)
            await until_nothing_is_left(server)
            assert await taken_of(connection) < MUCH_BYTES
        whole = await exported(server.client("alice"), "ndjson")
        assert len(whole.content) > MUCH_BYTES


async def taken_of(connection: socket.socket) -> int:
    """Take what there is of a connection that was broken off, and give the number of bytes."""
    taken = 0
    with suppress(ConnectionResetError):
        while part := await asyncio.get_running_loop().sock_recv(connection, 1 << 20):
            taken += len(part)
    return taken


@pytest.mark.parametrize("when", ["while it is sent", "while it is made"])
async def test_a_client_that_leaves_is_worked_for_no_more(
    server: RunningServer, database_url: str, never_made: str, when: str
) -> None:
    await execute(database_url, MUCH)
    name = "sqlite" if when == "while it is sent" else never_made
    async with deaf(server, "alice", f"/api/export?format={name}"):
        await until_metric(server.client(None), EXPORTS, 1)
        await asyncio.sleep(0.3)
        assert await metric(server.client(None), EXPORTS) == 1
    await until_nothing_is_left(server, within_s=2)
    assert len(await prompts(server.client("alice"))) == 200


async def test_a_stop_is_not_held_up_by_one_that_is_sent(serving: Serving, database_url: str) -> None:
    await execute(database_url, MUCH)
    async with AsyncExitStack() as stack:
        async with serving() as server:
            connection = await stack.enter_async_context(deaf(server, "alice", "/api/export?format=ndjson"))
            await until_metric(server.client(None), EXPORTS, 1)
            await asyncio.sleep(0.5)
            began = time.monotonic()
        assert time.monotonic() - began < STOP_MAX_S
        nothing_is_left(server)
        assert await taken_of(connection) < MUCH_BYTES


async def test_a_stop_is_not_held_up_by_one_that_is_made(serving: Serving, never_made: str) -> None:
    async with AsyncExitStack() as stack:
        async with serving() as server:
            connection = await stack.enter_async_context(deaf(server, "alice", f"/api/export?format={never_made}"))
            await until_metric(server.client(None), EXPORTS, 1)
            began = time.monotonic()
        assert time.monotonic() - began < STOP_MAX_S
        nothing_is_left(server)
        told = await asyncio.get_running_loop().sock_recv(connection, 1 << 16)
        assert b" 503 " in told.partition(b"\r\n")[0]


async def test_long_exports_delay_nobodys_reads(server: RunningServer, never_made: str) -> None:
    clients = [server.client(user) for user in ("alice", "bob", "carol")]
    for client in clients:
        await save(client)
    taking = [asyncio.create_task(client.get(f"/api/export?format={never_made}")) for client in clients]
    await until_metric(clients[0], EXPORTS, 3)
    for client in clients:
        began = time.monotonic()
        saved = await save(client)
        assert len((await client.get("/api/images", headers={"X-Min-Version": saved["version"]})).json()["images"]) == 2
        assert time.monotonic() - began < 1
    for task in taking:
        task.cancel()
    await asyncio.wait(taking)
    await until_nothing_is_left(server)


async def test_what_fails_while_it_is_made_is_a_problem(
    server: RunningServer, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(error: Exception) -> Callable[..., Path]:
        def write(connection: apsw.Connection, manifest: Manifest, folder: Path) -> Path:
            (folder / "half").write_text("half")
            raise error

        return write

    await save(client)
    for error, status, code in (
        (OSError(28, "No space left on device"), 503, "replica_unavailable"),
        (RuntimeError("a defect of ours"), 500, "internal_error"),
    ):
        monkeypatch.setitem(FORMATS, "csv", replace(FORMATS["csv"], write=failing(error)))
        assert_problem(await client.get("/api/export?format=csv"), status, code)
        await until_nothing_is_left(server)
    assert (await client.get("/api/export?format=ndjson")).status_code == 200
