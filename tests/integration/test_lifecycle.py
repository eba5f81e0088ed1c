"""The server as a process: how it begins, how it ends, and what another one beside it may not do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psycopg
import pytest
import uvloop

from gateway import server
from gateway.listening import CannotListen, bind
from gateway.settings import Settings
from primary.embedded import EmbeddedPostgres
from primary.embedded.postmaster import Postmaster
from tests.conftest import Serving
from tests.support import busy
from tests.support.folders import temporary_folder
from tests.support.http import IMAGE, assert_problem, execute, prompts, save
from tests.support.server import SECRET, ServerProcess

STOPPED_S = 5.0
READY_AGAIN_S = 3.0


def tidepool(*arguments: str, data_dir: Path, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, as an operator does."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEPOOL_")}
    given = {"DATA_DIR": str(data_dir), "JWT_SECRET": SECRET, "PORT": "0"} | settings
    return subprocess.run(
        [sys.executable, "-m", "gateway.cli", *arguments],
        env=clean | {f"TIDEPOOL_{name}": value for name, value in given.items()},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.fixture(scope="module")
def cluster() -> Iterator[Path]:
    """A data directory with a migrated Postgres, to be copied: making one takes longer than many a test."""
    with temporary_folder() as folder:
        assert tidepool("migrate", data_dir=folder / "data").returncode == 0
        with (folder / "data" / "postgres" / "postgresql.auto.conf").open("a") as settings:
            settings.write("fsync = off\n")
        yield folder / "data"


@pytest.fixture
async def alone(data_dir: Path, cluster: Path) -> AsyncIterator[ServerProcess]:
    """A process with nothing set but the data directory: its Postgres is its own."""
    subprocess.run(["cp", "-a", str(cluster), str(data_dir)], check=True)
    process = ServerProcess(data_dir, None, {})
    try:
        yield process
    finally:
        if (await process.stop()) != 0:
            await EmbeddedPostgres(data_dir).start()  # picks up what was left, to
            await EmbeddedPostgres(data_dir).stop()


@asynccontextmanager
async def asking(process: ServerProcess, user: str = "alice") -> AsyncIterator[httpx.AsyncClient]:
    async with process.client(user) as client:
        yield client


async def end(process: ServerProcess, order: signal.Signals) -> tuple[int, float]:
    """Order the process to end; give its exit code, and how many seconds it took."""
    begun = time.monotonic()
    return await process._end(order), time.monotonic() - begun


def defects(process: ServerProcess) -> list[str]:
    """Give what the process wrote that no operator should have to read."""
    return [str(line) for line in process.logs if "Traceback" in str(line) or line.get("event") == "internal_error"]


# ── Ending, and beginning again ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.alone
async def test_a_stop_ends_postgres_too_and_the_next_start_has_all_the_data(
    alone: ServerProcess, data_dir: Path
) -> None:
    await alone.start()
    async with asking(alone) as client:
        await save(client, prompt="before the stop")
        version = (await client.post("/api/sync")).json()["version"]
        code, took_s = await end(alone, signal.SIGINT)  # with a connection that is kept alive
    assert code == 0
    assert took_s < STOPPED_S
    assert not EmbeddedPostgres(data_dir).running()
    assert "crash" not in (data_dir / "postgres.log").read_text()

    begun = time.monotonic()
    await alone.start(anew=True)
    async with asking(alone) as client:
        assert (await client.get("/health/ready")).status_code == 200
        assert time.monotonic() - begun < busy.alone(READY_AGAIN_S)
        answer = await client.get("/api/images")
        assert [image["prompt"] for image in answer.json()["images"]] == ["before the stop"]
        assert answer.headers["x-replica-version"] == version, "the replica was served, not made anew"
        assert "tidepool_rebuilds_total 0.0" in (await client.get("/metrics")).text
    assert not defects(alone)


@pytest.mark.alone
async def test_a_postgres_of_our_own_that_was_killed_is_started_again(alone: ServerProcess, data_dir: Path) -> None:
    await alone.start()
    found = Postmaster.of(data_dir / "postgres")
    assert found is not None
    async with asking(alone) as client:
        await save(client, prompt="before")
        os.kill(found.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            # Not at the first write that is done: a process of the one that was killed may do that, while it ends.
            while (now := Postmaster.of(data_dir / "postgres")) is None or now.pid == found.pid:
                await asyncio.sleep(0.05)
            while (await client.post("/api/images", json=IMAGE)).status_code != 201:
                await asyncio.sleep(0.1)
        answer = await client.get("/api/images")
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["images"]) == 2
    assert not defects(alone)


MANY = 100_000


@pytest.mark.alone
async def test_a_stop_in_the_middle_of_a_large_first_build_is_quick_and_leaves_nothing_half_done(
    alone: ServerProcess, data_dir: Path
) -> None:
    await alone.start()
    url = EmbeddedPostgres(data_dir).running_url()
    assert url is not None
    await execute(
        url,
        "INSERT INTO image (user_id, prompt, image_url) SELECT 'alice', 'image ' || i, 'u' "
        f"FROM generate_series(1, {MANY}) AS i",
    )
    async with asking(alone) as client:
        building = asyncio.create_task(client.get("/api/images"))
        async with asyncio.timeout(10):
            while not any((data_dir / "building").iterdir()):
                await asyncio.sleep(0.002)
        code, took_s = await end(alone, signal.SIGTERM)
        assert (code, took_s < STOPPED_S) == (0, True), f"it took {took_s} s: {alone.logs[-4:]}"
        assert not EmbeddedPostgres(data_dir).running()
        try:
            answer = await building
        except httpx.TransportError:
            pass
        else:  # it was given up, or it was just done
            assert answer.status_code == 200 or answer.json()["code"] in {"stopping", "replica_unavailable"}
    assert not defects(alone)

    await alone.start()
    async with asking(alone) as client:
        async with asyncio.timeout(20):  # on a busy machine it may be told to ask again: the indexes are being made
            while (await client.get("/api/images?limit=1")).status_code != 200:
                await asyncio.sleep(0.2)
        me = (await client.get("/api/me")).json()
        assert me["replica"]["rows"]["image"] == MANY
    verified = tidepool("verify", data_dir=data_dir)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert f"{MANY:,}" in verified.stdout


@pytest.mark.alone
async def test_a_stop_under_load_keeps_every_write_that_was_answered(alone: ServerProcess, data_dir: Path) -> None:
    await alone.start()
    answered: list[str] = []
    stopping = False

    async def load(n: int) -> None:
        async with asking(alone, f"user {n % 4}") as client:
            step = 0
            while True:
                step += 1
                try:
                    answer = await client.post("/api/images", json=IMAGE | {"prompt": f"{n}.{step}"})
                    if answer.status_code == 201:
                        answered.append(f"{n}.{step}")
                    else:
                        assert stopping
                        assert answer.status_code == 503, answer.text
                    await client.post("/api/sync")
                    await client.get("/api/images")
                except httpx.TransportError:
                    assert stopping
                    return

    loads = [asyncio.create_task(load(n)) for n in range(12)]
    async with asyncio.timeout(30):
        while len(answered) < 60:
            await asyncio.sleep(0.01)
    stopping = True
    code, took_s = await end(alone, signal.SIGINT)
    assert (code, took_s < STOPPED_S) == (0, True), took_s
    await asyncio.gather(*loads)
    assert not EmbeddedPostgres(data_dir).running()
    assert not defects(alone)

    await alone.start()
    url = EmbeddedPostgres(data_dir).running_url()
    assert url is not None
    stored = {prompt for (prompt,) in await execute(url, "SELECT prompt FROM image")}
    assert set(answered) <= stored
    for n in range(4):
        async with asking(alone, f"user {n}") as client:
            await client.post("/api/sync")
    verified = tidepool("verify", data_dir=data_dir)
    assert verified.returncode == 0, verified.stdout + verified.stderr


@pytest.mark.alone
async def test_a_second_order_to_stop_does_not_wait_for_requests(server_process: ServerProcess) -> None:
    await server_process.start()
    host, _, port = server_process.url.removeprefix("http://").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST /api/sync HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer x\r\nContent-Length: 9\r\n\r\n{")
    await writer.drain()  # a request that never ends
    async with asking(server_process) as client:
        await client.get("/api/images")
    os.kill(server_process.pid, signal.SIGINT)
    await asyncio.sleep(0.1)
    code, took_s = await end(server_process, signal.SIGINT)
    assert (code, took_s < 2) == (0, True), took_s
    writer.close()


@pytest.mark.alone
async def test_after_a_kill_the_next_start_finds_postgres_and_all_that_was_answered(
    alone: ServerProcess, data_dir: Path
) -> None:
    await alone.start()
    async with asking(alone) as client:
        saved = await save(client, prompt="before the kill")
        await client.post("/api/sync")
        await alone.kill()
    assert EmbeddedPostgres(data_dir).running(), "nobody was there to stop it"

    begun = time.monotonic()
    await alone.start(anew=True)
    async with asking(alone) as client:
        assert (await client.get("/health/ready")).status_code == 200
        assert time.monotonic() - begun < busy.alone(READY_AGAIN_S)
        assert await prompts(client, **{"X-Min-Version": saved["version"]}) == ["before the kill"]
        await save(client, prompt="after it")
    code, took_s = await end(alone, signal.SIGTERM)
    assert (code, took_s < STOPPED_S) == (0, True), took_s
    assert not EmbeddedPostgres(data_dir).running()


# ── Two at once ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_second_server_on_one_data_directory_is_refused_and_the_first_goes_on(
    alone: ServerProcess, data_dir: Path, database_url: str
) -> None:
    await alone.start()
    async with asking(alone) as client:
        await save(client)
        before = (data_dir / "postgres" / "postmaster.pid").read_text()
        # With the Postgres of the data directory, and with another one.
        for settings in ({}, {"DATABASE_URL": database_url}):
            second = await asyncio.to_thread(tidepool, "serve", data_dir=data_dir, **settings)
            assert second.returncode == 1
            assert f"in use by another process (pid {alone.pid})" in second.stderr
            assert "TIDEPOOL_DATA_DIR" in second.stderr, "what to do about it"
            assert "Traceback" not in second.stderr
        assert (data_dir / "postgres" / "postmaster.pid").read_text() == before, "its Postgres is unharmed"
        await save(client)
        assert len(await prompts(client)) == 2
        assert (await client.get("/health/ready")).status_code == 200
    assert (await end(alone, signal.SIGTERM))[0] == 0


async def test_a_server_on_a_port_that_is_taken_says_so(server_process: ServerProcess, data_dir: Path) -> None:
    await server_process.start()
    port = server_process.url.rpartition(":")[2]
    other = data_dir.parent / "other"
    second = await asyncio.to_thread(tidepool, "serve", "--port", port, data_dir=other)
    assert second.returncode == 1
    assert f"port {port}" in second.stderr
    assert "TIDEPOOL_PORT" in second.stderr
    assert "Traceback" not in second.stderr
    assert not other.exists(), "it found out before it made anything"


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_port_that_another_begins_to_listen_on_meanwhile_is_told_too(
    data_dir: Path, database_url: str, monkeypatch: pytest.MonkeyPatch, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def bound(host: str, port: int) -> socket.socket:
            made = bind(host, port)
            other.bind(made.getsockname())
            other.listen()
            return made

        monkeypatch.setattr(server, "bind", bound)
        settings = Settings(data_dir=data_dir, database_url=database_url, port=0, jwt_secret=SECRET)
        with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(CannotListen, match="another program"):
            runner.run(server.serve(settings))


# ── A database of one's own ─────────────────────────────────────────────────────────────────────────────────────


async def test_without_migrations_the_server_says_so_and_after_them_it_works_without_a_restart(
    data_dir: Path, empty_database_url: str
) -> None:
    process = ServerProcess(data_dir, empty_database_url, {})
    await process.start()
    try:
        async with asking(process) as client:
            ready = await client.get("/health/ready")
            assert ready.status_code == 503
            checks = ready.json()["checks"]
            assert {name: check["ok"] for name, check in checks.items()} == {
                "primary": True,
                "migrations": False,
                "data_directory": True,
            }
            assert "tidepool migrate" in checks["migrations"]["detail"]
            for method, path, body in [
                ("POST", "/api/images", IMAGE),
                ("POST", "/api/images/batch", {"images": [IMAGE]}),
                ("PATCH", "/api/images/3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11", {"prompt": "x"}),
                ("DELETE", "/api/images/3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11", None),
                ("POST", "/api/sync", None),
                ("GET", "/api/images", None),
                ("GET", "/api/me", None),
            ]:
                answer = await client.request(method, path, json=body)
                assert_problem(answer, 503, "migrations_pending")
                assert "tidepool migrate" in answer.json()["hint"]
            assert await execute(empty_database_url, "SELECT 1 FROM pg_tables WHERE schemaname = 'public'") == []

            migrated = await asyncio.to_thread(tidepool, "migrate", data_dir=data_dir, DATABASE_URL=empty_database_url)
            assert migrated.returncode == 0, migrated.stderr

            async with asyncio.timeout(4):
                while (await client.get("/health/ready")).status_code != 200:
                    await asyncio.sleep(0.1)
            saved = await save(client)
            assert await prompts(client, **{"X-Min-Version": saved["version"]}) == [IMAGE["prompt"]]
        assert not defects(process)
    finally:
        await process.stop()


@pytest.mark.parametrize("prepared", [True, False])
async def test_behind_a_pooler_no_statement_is_left_prepared_on_a_connection(
    serving: Serving, database_url: str, prepared: bool
) -> None:
    """A pooler gives each transaction another connection, on which what was prepared on the last is not known."""
    heard = bytearray()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = psycopg.conninfo.conninfo_to_dict(database_url)
        inner_reader, inner_writer = await asyncio.open_unix_connection(f"{there['host']}/.s.PGSQL.{there['port']}")

        async def back() -> None:
            while data := await inner_reader.read(65_536):
                writer.write(data)
                await writer.drain()

        answering = asyncio.create_task(back())
        try:
            while data := await reader.read(65_536):
                heard.extend(data)
                inner_writer.write(data)
                await inner_writer.drain()
        except OSError:
            pass
        finally:
            answering.cancel()
            inner_writer.close()
            writer.close()

    pooler = await asyncio.start_server(listen, "127.0.0.1", 0)
    port = pooler.sockets[0].getsockname()[1]
    name = psycopg.conninfo.conninfo_to_dict(database_url)["dbname"]
    url = f"postgresql://postgres@127.0.0.1:{port}/{name}"
    try:
        async with serving(database_url=url, prepared_statements=prepared, primary_pool_max=2) as server:
            client = server.client("alice")
            for n in range(12):  # psycopg prepares what it is asked for the sixth time
                saved = await save(client, seed=n)
                path = f"/api/images/{saved['id']}"
                edited = (await client.patch(path, json={"prompt": f"edited {n}"})).json()
                assert (await client.post("/api/sync")).json()["version"] == edited["version"]
                assert len(await prompts(client)) == 1
                await client.delete(path)
            assert (await client.get("/health/ready")).status_code == 200
    finally:
        pooler.close()
    assert b"INSERT INTO image" in heard
    assert (b"_pg3_" in heard) is prepared, "how psycopg calls what it prepares"
