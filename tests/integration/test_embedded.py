"""The embedded Postgres: starts fast, is shared, survives what it must, and says what is wrong."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path

import psutil
import psycopg
import pytest

from primary.embedded import EmbeddedPostgres, EmbeddedPostgresError, psql_path
from primary.embedded import server as server_module
from primary.embedded.account import Account, account_for
from primary.embedded.cluster import socket_dir_for
from primary.embedded.locks import starting
from primary.embedded.postmaster import Postmaster
from tests.support.folders import copied, temporary_folder

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")


@pytest.fixture
async def data_dir(cluster: Path) -> AsyncIterator[Path]:
    """A copy of a cluster at rest, and no server left in it at the end."""
    with copied(cluster) as folder:
        yield folder
        kill(folder, signal.SIGQUIT)


def kill(data_dir: Path, order: signal.Signals) -> None:
    found = Postmaster.of(data_dir / "postgres")
    if found is not None:
        others = psutil.Process(found.pid).children()
        os.kill(found.pid, order)
        wait_for(lambda: Postmaster.of(data_dir / "postgres") is None)
        assert not psutil.wait_procs(others, timeout=10)[1], "while one of them lives, Postgres does not start again"


def wait_for(condition, timeout_s: float = 10) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "did not come about"
        time.sleep(0.005)


def rows(url: str, sql: str) -> list[tuple]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(sql.encode())
        return cursor.fetchall() if cursor.description else []


async def test_a_new_data_directory_becomes_a_running_server_with_our_database(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "not" / "there yet, with a space and a ü")
    url = await server.start()
    try:
        version, database, locale, sync = rows(
            url,
            "SELECT current_setting('server_version_num')::int / 10000, current_database(), datlocale,"
            " current_setting('fsync') || current_setting('synchronous_commit')"
            " FROM pg_database WHERE datname = current_database()",
        )[0]
        assert (version, database, locale, sync) == (18, "tidepool", "C.UTF-8", "onon")
        assert server.data_dir.stat().st_mode & 0o007 == 0
    finally:
        await server.stop()
    assert not server.running()


@pytest.mark.alone
async def test_what_was_written_is_there_after_a_stop_and_a_start_both_fast(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    rows(await server.start(), "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n")
    begun = time.monotonic()
    await server.stop()
    stopped = time.monotonic()
    url = await server.start()
    started = time.monotonic()
    assert rows(url, "SELECT count(*) FROM kept") == [(1000,)]
    await server.stop()
    assert stopped - begun < 3
    assert started - stopped < 1.5


@pytest.mark.alone
async def test_the_loop_is_free_while_the_server_starts_and_stops(data_dir: Path) -> None:
    longest_s = 0.0

    async def watch() -> None:
        nonlocal longest_s
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.monotonic() - begun)

    watcher = asyncio.create_task(watch())
    server = EmbeddedPostgres(data_dir)
    await server.start()
    await server.stop()
    watcher.cancel()
    assert longest_s < 0.25


async def test_a_server_left_by_a_killed_process_is_picked_up_and_then_stopped(data_dir: Path) -> None:
    code = """
import asyncio, pathlib, sys
from primary.embedded import EmbeddedPostgres
async def main():
    print(await EmbeddedPostgres(pathlib.Path(sys.argv[1])).start(), flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", code, str(data_dir)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process, process.stdout:
        url = process.stdout.readline().strip()
        left = Postmaster.of(data_dir / "postgres")
        process.kill()
    assert left is not None
    server = EmbeddedPostgres(data_dir)
    assert await server.start() == url
    assert Postmaster.of(data_dir / "postgres") == left
    await server.stop()
    assert not server.running()


async def test_a_server_whose_process_is_out_of_sight_is_joined_and_never_doubled(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from another container with the same data: its process ids are not ours."""
    first, second = EmbeddedPostgres(data_dir), EmbeddedPostgres(data_dir)
    url = await first.start()
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("primary.embedded.postmaster._is_postmaster", lambda *_: False)
        assert await second.start() == url
        assert (data_dir / "postgres.log").read_text().count("ready to accept connections") == 2  # one when it was made
        await first.stop()
        await second.stop()  # the last one out, and it has nothing that it could stop
        assert rows(url, "SELECT 1") == [(1,)]
    assert await first.start() == url
    await first.stop()
    assert not first.running()


@pytest.mark.parametrize("crowd", [0, 3])
def test_a_server_out_of_sight_is_one_also_where_there_is_a_crowd_at_its_door(crowd: int) -> None:
    with temporary_folder() as cluster, ExitStack() as opened:
        (cluster / "postmaster.pid").write_text(f"999999999\n{cluster}\n0\n5432\n{cluster}\n\n0\nready\n")
        assert Postmaster.of(cluster) is None
        listening = opened.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(str(cluster / ".s.PGSQL.5432"))
        listening.listen(0)  # and none is taken
        for _ in range(crowd):
            waiting = opened.enter_context(socket.socket(socket.AF_UNIX))
            waiting.setblocking(False)
            with suppress(BlockingIOError):
                waiting.connect(str(cluster / ".s.PGSQL.5432"))
        found = Postmaster.of(cluster)
        assert found is not None
        assert found.apart


async def test_a_process_that_may_not_be_looked_into_may_be_the_server(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: psutil.Process) -> None:
        raise psutil.AccessDenied

    server = EmbeddedPostgres(data_dir)
    await server.start()
    monkeypatch.setattr(psutil.Process, "cmdline", refuse)
    found = Postmaster.of(data_dir / "postgres")
    assert found is not None
    assert not found.apart
    await server.stop()
    assert not server.running()


async def test_a_server_whose_data_was_moved_is_picked_up_and_then_stopped(data_dir: Path) -> None:
    left = EmbeddedPostgres(data_dir)
    rows(await left.start(), "CREATE TABLE kept AS SELECT 1")
    moved = data_dir.rename(data_dir.with_name(data_dir.name + ".moved"))
    try:
        server = EmbeddedPostgres(moved)
        assert rows(await server.start(), "SELECT count(*) FROM kept") == [(1,)]
        await left.stop()
        await server.stop()
        assert not server.running()
    finally:
        moved.rename(data_dir)


async def test_the_last_one_out_stops_the_server_and_nobody_before(data_dir: Path) -> None:
    first, second = EmbeddedPostgres(data_dir), EmbeddedPostgres(data_dir)
    assert await first.start() == await second.start()
    await first.stop()
    assert rows(second.url, "SELECT 1") == [(1,)]
    await first.start()
    await second.stop()
    assert rows(first.url, "SELECT 1") == [(1,)]
    await first.stop()
    assert not first.running()


async def test_many_that_start_at_once_share_one_server(data_dir: Path) -> None:
    servers = [EmbeddedPostgres(data_dir) for _ in range(6)]
    assert len(set(await asyncio.gather(*(server.start() for server in servers)))) == 1
    assert (data_dir / "postgres.log").read_text().count("ready to accept connections") == 2  # one when it was made
    await asyncio.gather(*(server.stop() for server in servers))
    assert not servers[0].running()


async def test_nobody_starts_a_server_while_another_does(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    with starting(data_dir):
        start = asyncio.create_task(server.start())
        await asyncio.wait([start], timeout=0.5)
        assert not start.done()
        assert not server.running()
    await start
    await server.stop()


async def test_a_server_that_is_being_stopped_is_waited_for_and_another_started(data_dir: Path) -> None:
    left, server = EmbeddedPostgres(data_dir), EmbeddedPostgres(data_dir)
    with psycopg.connect(await left.start()):
        stopping = Postmaster.of(data_dir / "postgres")
        assert stopping is not None
        os.kill(stopping.pid, signal.SIGTERM)  # at which it waits for who is connected
        async with asyncio.timeout(10):
            while (found := Postmaster.of(data_dir / "postgres")) is None or found.status != "stopping":
                await asyncio.sleep(0.005)
        start = asyncio.create_task(server.start())
        await asyncio.wait([start], timeout=0.2)
        assert not start.done()
    assert rows(await start, "SELECT 1") == [(1,)]
    found = Postmaster.of(data_dir / "postgres")
    assert found is not None
    assert found.pid != stopping.pid
    await left.stop()
    await server.stop()


async def test_a_log_that_has_grown_long_is_begun_anew_and_the_last_one_kept(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_module, "LOG_MAX_BYTES", 100)
    (data_dir / "postgres.log").write_text("long ago\n" * 20)
    server = EmbeddedPostgres(data_dir)
    await server.start()
    await server.stop()
    assert (data_dir / "postgres.log.1").read_text() == "long ago\n" * 20
    assert "long ago" not in (data_dir / "postgres.log").read_text()


async def test_a_crashed_server_is_started_again_with_all_that_was_committed(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    rows(await server.start(), "CREATE TABLE kept AS SELECT 1")
    kill(data_dir, signal.SIGKILL)
    await server.stop()
    assert rows(await server.start(), "SELECT count(*) FROM kept") == [(1,)]
    await server.stop()


async def test_a_server_that_ended_while_it_was_used_is_revived_and_a_running_one_left(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    url = await server.start()
    rows(url, "CREATE TABLE kept AS SELECT 1")
    assert not await server.revive()
    kill(data_dir, signal.SIGKILL)
    assert await server.revive()
    assert rows(url, "SELECT count(*) FROM kept") == [(1,)]
    await server.stop()
    assert not await server.revive()
    assert not server.running()


async def test_of_two_that_would_revive_a_server_one_does(data_dir: Path) -> None:
    servers = [EmbeddedPostgres(data_dir) for _ in range(2)]
    for server in servers:
        await server.start()
    kill(data_dir, signal.SIGKILL)
    with starting(data_dir):
        reviving = [asyncio.create_task(server.revive()) for server in servers]
        await asyncio.wait(reviving, timeout=0.3)  # both have seen by then that it is gone
    assert sorted(await asyncio.gather(*reviving)) == [False, True]
    for server in servers:
        assert rows(server.url, "SELECT 1") == [(1,)]
        await server.stop()


@pytest.mark.parametrize("begun", ["start", "revive"])
async def test_a_stop_does_not_wait_for_a_server_that_is_long_in_recovering(data_dir: Path, begun: str) -> None:
    """As one does that was killed with much in its log; who stops a program does not wait for that."""
    server = EmbeddedPostgres(data_dir, settings={"restore_command": "sleep 30; false"})
    if begun == "revive":
        await server.start()
        kill(data_dir, signal.SIGKILL)
    (data_dir / "postgres" / "recovery.signal").touch()  # so what it asks for its log first takes long
    starting = asyncio.create_task(server.start() if begun == "start" else server.revive())
    async with asyncio.timeout(10):
        while not server.running():
            await asyncio.sleep(0.005)
        starting.cancel()
        await asyncio.wait([starting])
        await server.stop()
    assert starting.cancelled()
    assert not server.running()


async def test_a_stop_does_not_wait_for_who_is_connected_and_loses_nothing(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    with psycopg.connect(await server.start()):
        async with asyncio.timeout(10):
            await server.stop()
    await server.start()
    await server.stop()
    assert "not properly shut down" not in (data_dir / "postgres.log").read_text()


async def test_a_dead_servers_process_id_in_use_by_another_program_does_not_stop_the_start(data_dir: Path) -> None:
    cluster = data_dir / "postgres"
    # Of the same user, for Postgres knows by itself that another user's process cannot be a server of this
    # cluster.
    with subprocess.Popen(["sleep", "60"], **account_for(cluster).process) as other:
        lines = [str(other.pid), str(cluster), "1", "5432", str(cluster), "", "1 1", "ready"]
        (cluster / "postmaster.pid").write_text("\n".join(lines))
        (cluster / ".s.PGSQL.5432.lock").write_text("\n".join(lines[:5]) + "\n")
        server = EmbeddedPostgres(data_dir)
        assert not server.running()
        assert rows(await server.start(), "SELECT 1") == [(1,)]
        await server.stop()
        other.kill()


async def test_the_server_is_out_of_reach_of_ctrl_c_and_knows_no_secrets(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIDEPOOL_JWT_SECRET", "swordfish")
    server = EmbeddedPostgres(data_dir)
    await server.start()
    found = Postmaster.of(server.cluster)
    assert found is not None
    assert os.getpgid(found.pid) != os.getpgid(0)
    assert "swordfish" not in psutil.Process(found.pid).environ().values()
    await server.stop()


async def test_a_cancelled_start_leaves_no_server_running(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    start = asyncio.create_task(server.start())
    await asyncio.sleep(0.01)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not server.running()
    assert rows(await server.start(), "SELECT 1") == [(1,)]
    await server.stop()


async def test_a_killed_creation_leaves_nothing_that_hinders_the_next(tmp_path: Path) -> None:
    (tmp_path / "postgres.new").mkdir()
    (tmp_path / "postgres.new" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(tmp_path)
    assert rows(await server.start(), "SELECT 1") == [(1,)]
    await server.stop()
    assert not (tmp_path / "postgres.new").exists()


async def test_a_path_may_have_what_means_something_in_a_url(data_dir: Path) -> None:
    named = data_dir / "a & b%20?c=d#e"
    named.mkdir()
    (data_dir / "postgres").rename(named / "postgres")
    server = EmbeddedPostgres(named)
    assert rows(await server.start(), "SELECT 1") == [(1,)]
    await server.stop()


async def test_a_path_too_long_for_a_socket_still_works(data_dir: Path) -> None:
    long = data_dir / ("long" * 30)
    long.mkdir()
    (data_dir / "postgres").rename(long / "postgres")
    server = EmbeddedPostgres(long)
    url = await server.start()
    folder = Path(url.partition("host=")[2].partition("&")[0])
    assert rows(url, "SELECT 1") == [(1,)]
    assert folder.stat().st_mode & 0o077 == 0
    await server.stop()
    assert not folder.exists()


async def test_a_copy_has_a_server_of_its_own_though_the_socket_that_its_files_name_answers(data_dir: Path) -> None:
    long, copied = (data_dir / (name * 30) for name in ("long", "copy"))
    long.mkdir()
    (data_dir / "postgres").rename(long / "postgres")
    first, second = EmbeddedPostgres(long), EmbeddedPostgres(copied)
    url = await first.start()
    shutil.copytree(long, copied)
    assert not second.running()
    assert await second.start() != url
    await second.stop()
    assert rows(url, "SELECT 1") == [(1,)]
    await first.stop()


@AS_ROOT
@pytest.mark.parametrize("found", ["another's", "open to others", "a link"])
def test_a_folder_for_the_socket_in_which_others_may_have_a_hand_is_refused(
    monkeypatch: pytest.MonkeyPatch, found: str
) -> None:
    account = Account("ours", 54321, 54321, switch=True)
    with temporary_folder() as temporary:
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        cluster = temporary / ("long" * 30) / "postgres"
        folder = socket_dir_for(cluster, account)
        assert socket_dir_for(cluster, account) == folder
        assert subprocess.run(["test", "-w", str(folder)], **account.process).returncode == 0
        match found:
            case "another's":
                os.chown(folder, 54322, 54322)
            case "open to others":
                folder.chmod(0o701)
            case _:
                folder.symlink_to(folder.rename(temporary / "elsewhere"))
        with pytest.raises(EmbeddedPostgresError, match="cannot be used instead"):
            socket_dir_for(cluster, account)


async def test_the_environment_does_not_change_where_the_server_listens(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPORT", "6000")
    monkeypatch.setenv("PGDATA", "/nowhere")
    monkeypatch.setenv("PGHOST", "192.0.2.1")
    server = EmbeddedPostgres(data_dir)
    assert rows(await server.start(), "SELECT current_setting('port')") == [("5432",)]
    await server.stop()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PGSERVICE", "prod"),
        ("PGHOSTADDR", "192.0.2.1"),
        ("PGUSER", "me"),
        ("PGDATABASE", "neondb"),
        ("PGSSLMODE", "require"),
        ("PGCHANNELBINDING", "require"),
        ("PGTARGETSESSIONATTRS", "read-only"),
        ("PGREQUIREAUTH", "scram-sha-256"),
        ("PGOPTIONS", "-c search_path=nowhere"),
        ("PGCLIENTENCODING", "none"),
    ],
)
async def test_what_the_environment_says_of_other_servers_is_not_said_of_this_one(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    server = EmbeddedPostgres(data_dir)
    url = await server.start()
    asked = "SELECT current_user, current_database(), current_setting('search_path')"
    expected = ("postgres", "tidepool", '"$user", public')
    assert rows(url, asked) == [expected]
    done = subprocess.run([psql_path(), url, "-Atc", asked], capture_output=True, text=True)
    await server.stop()
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "|".join(expected), "")


async def test_the_bundled_psql_connects_and_no_network_does(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir)
    url = await server.start()
    done = subprocess.run([psql_path(), url, "-Atc", "SHOW listen_addresses"], capture_output=True, text=True)
    await server.stop()
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


async def test_another_versions_data_directory_is_refused_with_what_to_do(data_dir: Path) -> None:
    (data_dir / "postgres" / "PG_VERSION").write_text("15\n")
    with pytest.raises(EmbeddedPostgresError, match=r"made by Postgres 15; the bundled one is 18") as raised:
        await EmbeddedPostgres(data_dir).start()
    assert "pg_upgrade" in raised.value.hint


async def test_a_folder_that_is_no_cluster_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    (tmp_path / "postgres" / "letters.txt").write_text("dear")
    with pytest.raises(EmbeddedPostgresError, match="not a data directory"):
        await EmbeddedPostgres(tmp_path).start()
    assert (tmp_path / "postgres" / "letters.txt").read_text() == "dear"


async def test_a_start_that_fails_tells_the_servers_own_complaint(data_dir: Path) -> None:
    with pytest.raises(EmbeddedPostgresError, match="shared_buffers") as raised:
        await EmbeddedPostgres(data_dir, settings={"shared_buffers": "plenty"}).start()
    assert "postgres.log" in raised.value.hint


async def test_a_full_disk_is_named_as_the_reason(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(data_dir)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1024**2))
    with pytest.raises(EmbeddedPostgresError) as raised:
        await EmbeddedPostgres(data_dir, settings={"shared_buffers": "plenty"}).start()
    assert "The disk is full: 1 MiB" in raised.value.hint


async def test_a_data_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EmbeddedPostgresError, match="cannot be used") as raised:
        await EmbeddedPostgres(tmp_path / "file" / "data").start()
    assert "TIDEPOOL_DATA_DIR" in raised.value.hint


def test_another_users_cluster_is_refused_with_how_to_hand_it_over(
    cluster: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    with pytest.raises(EmbeddedPostgresError, match="belongs to the user") as raised:
        account_for(cluster / "postgres")
    assert "chown -R 54321" in raised.value.hint


@AS_ROOT
async def test_root_lets_postgres_and_no_one_else_through_to_the_data(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    server = EmbeddedPostgres(closed / "data")
    await server.start()
    await server.stop()
    account = account_for(server.cluster)
    look = ["test", "-x", str(closed / "data")]
    assert subprocess.run(look, **account.process).returncode == 0
    stranger = Account("stranger", 54321, 54321, switch=True)
    assert subprocess.run(look, **stranger.process).returncode == 1
    listing = subprocess.run(["ls", str(closed)], **account.process, capture_output=True)
    assert listing.returncode != 0


@AS_ROOT
def test_root_lets_postgres_read_programs_that_a_strict_umask_has_kept_from_it(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    programs = closed / "programs"
    (programs / "lib").mkdir(parents=True)
    library, tool = programs / "lib" / "libpq.so", programs / "initdb"
    library.write_text("#")
    tool.write_text("#!/bin/sh\nexec cat lib/libpq.so")
    (programs / "gone").symlink_to("nowhere")
    for path, mode in ((closed, 0o700), (programs, 0o700), (programs / "lib", 0o700), (library, 0o600), (tool, 0o711)):
        path.chmod(mode)
    account = account_for(tmp_path / "postgres")
    run = partial(subprocess.run, [str(tool)], cwd=programs, capture_output=True, text=True)
    account.let_through(tool)
    assert run(**account.process).returncode != 0
    account.let_read(programs)
    assert run(**account.process).stdout == "#"
    assert [path.stat().st_mode & 0o777 for path in (library, programs / "lib")] == [0o604, 0o705]
    stranger = Account("stranger", 54321, 54321, switch=True)
    with pytest.raises(PermissionError):
        run(**stranger.process)


@AS_ROOT
def test_root_lets_each_through_beside_the_others_and_again_where_that_was_undone(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    users = [Account(f"user {uid}", uid, uid, switch=True) for uid in (54321, 54322)]

    def who_passes() -> list[Account]:
        look = ["test", "-e", str(closed / "data")]
        return [user for user in users if subprocess.run(look, **user.process).returncode == 0]

    (closed / "data").mkdir()
    for user in users:
        user.let_through(closed / "data")
    assert who_passes() == users
    closed.chmod(0o700)
    assert who_passes() == []
    users[0].let_through(closed / "data")
    assert who_passes() == users
    assert closed.stat().st_mode & 0o777 == 0o710


def without_access_control_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    monkeypatch.setattr(os, "getxattr", refuse)


@AS_ROOT
async def test_without_access_control_lists_only_the_servers_group_is_let_through(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_access_control_lists(monkeypatch)
    with temporary_folder() as folder:
        server = EmbeddedPostgres(folder / "data")
        assert rows(await server.start(), "SELECT 1") == [(1,)]
        await server.stop()
        found = server.data_dir.stat()
        assert (found.st_mode & 0o777, found.st_gid) == (0o710, account_for(server.cluster).gid)


@AS_ROOT
async def test_root_is_told_what_to_type_where_nobody_can_be_let_through_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    without_access_control_lists(monkeypatch)
    with temporary_folder() as folder:
        folder.chmod(0o750)
        with pytest.raises(EmbeddedPostgresError, match="may not pass through") as raised:
            await EmbeddedPostgres(folder / "data").start()
        assert raised.value.hint.startswith(f"Run: chmod o+x {folder} ")


@AS_ROOT
async def test_a_cluster_that_root_copied_is_given_back_to_postgres(data_dir: Path) -> None:
    subprocess.run(["chown", "-R", "root:root", str(data_dir / "postgres")], check=True)
    (data_dir / "postgres").chmod(0o755)
    roots = data_dir / "root's own"
    roots.touch()
    (data_dir / "postgres" / "link").symlink_to(roots)
    server = EmbeddedPostgres(data_dir)
    assert rows(await server.start(), "SELECT 1") == [(1,)]
    await server.stop()
    assert roots.stat().st_uid == 0


@AS_ROOT
async def test_an_ordinary_user_needs_no_root(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    account = account_for(tmp_path / "not there")
    account.let_through(data_dir)
    account.own(data_dir)
    code = """
import asyncio, pathlib, sys
from primary.embedded import EmbeddedPostgres
async def main():
    server = EmbeddedPostgres(pathlib.Path(sys.argv[1]))
    await server.start()
    await server.stop()
asyncio.run(main())
"""
    account.let_through(Path(sys.executable))
    done = subprocess.run(
        [sys.executable, "-c", code, str(data_dir)], **account.process, capture_output=True, text=True, env={}
    )
    assert (done.returncode, done.stderr) == (0, "")
