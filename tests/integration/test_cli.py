"""The command line: what it prints, what it changes, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jwt
import psutil
import psycopg
import pytest
from click.testing import Result

from gateway.cli.environment import database, run
from gateway.cli.failures import Ended
from gateway.ending import orders
from gateway.settings import Settings
from primary.embedded import EmbeddedPostgres
from replica.datadir import Ownership
from replica.library import connect
from replica.location import DataDirectory
from tests.support.cli import run_command
from tests.support.databases import FAST
from tests.support.server import SECRET

Invoke = Callable[..., Result]


@pytest.fixture
def tidepool(data_dir: Path, database_url: str) -> Invoke:
    """``tidepool("migrate", "--check", port="x")`` runs the command, with settings over the test's own."""
    return invoker(data_dir, database_url=database_url, jwt_secret=SECRET)


@pytest.fixture
def tidepool_alone(data_dir: Path) -> Invoke:
    """The same with nothing set but the data directory: Postgres is the embedded one."""
    return invoker(data_dir)


def invoker(data_dir: Path, **preset: str) -> Invoke:
    def invoke(*arguments: str, **settings: str | None) -> Result:
        return run_command(*arguments, **({"data_dir": str(data_dir)} | preset | settings))

    return invoke


def insert(database_url: str, user: str, count: int) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO image (user_id, prompt, image_url) SELECT %s, 'pool ' || n, 'https://x/' || n"
            " FROM generate_series(1, %s) AS n",
            [user, count],
        )


@contextmanager
def embedded(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir, settings=FAST)
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.stop())


def test_help_lists_every_command_and_the_exit_codes(tidepool_alone: Invoke) -> None:
    told = tidepool_alone("--help")
    assert told.exit_code == 0
    names = re.findall(r"^  ([a-z-]+)  ", told.output.partition("Commands:")[2], re.MULTILINE)
    assert " ".join(names) == "dev serve migrate token database-url psql status verify rebuild mirror export import"
    assert "Exit codes: 0 done" in told.output


@pytest.mark.parametrize("command", [["status"], ["verify"], ["rebuild", "alice"], ["psql"], ["migrate", "--check"]])
def test_a_command_in_the_wrong_folder_says_so_and_makes_nothing(
    tidepool_alone: Invoke, data_dir: Path, command: list[str]
) -> None:
    told = tidepool_alone(*command)
    assert told.exit_code == 1
    assert f"there is no data in {data_dir}" in told.output
    assert "TIDEPOOL_DATA_DIR" in told.output
    assert not data_dir.exists()


@pytest.mark.parametrize("command", ["status", "verify", "psql", "export ann", "token ann", "database-url"])
def test_a_data_directory_of_another_user_is_told(tidepool_alone: Invoke, locked: Path, command: str) -> None:
    told = tidepool_alone(*command.split())
    assert told.exit_code == 1
    assert re.search(rf"{locked}\S* cannot be used: Permission denied", told.output)


@pytest.mark.parametrize("command", ["status", "verify"])
def test_with_a_database_of_ones_own_it_is_told_too(tidepool: Invoke, locked: Path, command: str) -> None:
    told = tidepool(command)
    assert told.exit_code == 1
    assert re.search(rf"{locked}\S* cannot be used: Permission denied", told.output)


@pytest.fixture
def locked(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory that may not be looked into; not by its mode, for root may look into all that there is."""

    def refusing(ask: Callable[..., Any]) -> Callable[..., Any]:
        def asked(path: Any, *arguments: Any, **named: Any) -> Any:
            if data_dir in Path(path).parents:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return ask(path, *arguments, **named)

        return asked

    data_dir.mkdir()
    for name in ("stat", "open"):
        monkeypatch.setattr(Path, name, refusing(getattr(Path, name)))
    monkeypatch.setattr(os, "scandir", refusing(os.scandir))
    return data_dir


def test_wrong_settings_are_named_all_at_once_and_exit_2(tidepool: Invoke) -> None:
    told = tidepool("status", PORT="no number", PAGE_MAX="-1", REPLICA_OPEN_MAXX="5")
    assert told.exit_code == 2
    assert all(name in told.output for name in ("TIDEPOOL_PORT", "TIDEPOOL_PAGE_MAX", "TIDEPOOL_REPLICA_OPEN_MAX?"))


def test_an_unknown_command_or_option_exits_2(tidepool_alone: Invoke) -> None:
    assert tidepool_alone("drown").exit_code == 2
    assert tidepool_alone("status", "--loud").exit_code == 2


def test_a_password_in_the_database_url_is_never_printed(tidepool: Invoke) -> None:
    for password in ("hunter2", "h@hunter2"):  # an @ that is not escaped ends it, and the rest is taken for a host
        told = tidepool("status", DATABASE_URL=f"postgresql://u:{password}@127.0.0.1:1/x")
        assert "cannot be reached" in told.output
        assert "hunter2" not in told.output


# ── migrate ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_migrate_applies_what_is_missing_once(data_dir: Path, empty_database_url: str) -> None:
    tidepool = invoker(data_dir, DATABASE_URL=empty_database_url)
    before = tidepool("migrate", "--check")
    assert (before.exit_code, "would apply: 0001" in before.output) == (1, True)
    done = tidepool("migrate")
    assert (done.exit_code, "applied: 0001" in done.output) == (0, True)
    again = tidepool("migrate")
    assert (again.exit_code, again.output) == (0, "The database is current.\n")
    assert tidepool("migrate", "--check").exit_code == 0


def test_migrate_with_nothing_configured_makes_the_embedded_database_and_stops_it(
    tidepool_alone: Invoke, data_dir: Path
) -> None:
    assert tidepool_alone("migrate").exit_code == 0
    assert (data_dir / "postgres" / "PG_VERSION").exists()
    assert not EmbeddedPostgres(data_dir).running()
    assert tidepool_alone("migrate", "--check").exit_code == 0


def test_a_database_that_is_away_is_told_in_a_line_with_what_to_do(tidepool: Invoke) -> None:
    told = tidepool("migrate", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert told.exit_code == 1
    assert told.output.startswith("tidepool: ")
    assert "TIDEPOOL_DATABASE_URL" in told.output
    assert "Traceback" not in told.output


def test_why_a_database_cannot_be_reached_is_told(tidepool: Invoke, database_url: str) -> None:
    wrong = database_url.replace("@/test_", "@/no_test_")
    told = tidepool("migrate", DATABASE_URL=wrong)
    assert (told.exit_code, 'database "no_test_' in told.output, "Traceback" in told.output) == (1, True, False)
    assert 'database "no_test_' in tidepool("status", DATABASE_URL=wrong).output


def test_a_role_that_lacks_a_right_is_told_so(tidepool: Invoke, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("CREATE ROLE stranger LOGIN")
        try:
            told = tidepool("migrate", DATABASE_URL=database_url.replace("//postgres@", "//stranger@"))
        finally:
            connection.execute("DROP ROLE stranger")
    assert told.exit_code == 1
    assert told.output.startswith("tidepool: permission denied for schema tidepool\n  Connect as the owner")


# ── token ───────────────────────────────────────────────────────────────────────────────────────────────────


def claims(token: str, secret: str) -> dict[str, object]:
    return jwt.decode(token.strip(), secret, algorithms=["HS256"])


def test_token_is_for_that_user_that_long(tidepool: Invoke) -> None:
    made = claims(tidepool("token", "../../etc/passwd", "--ttl-s", "60").output, SECRET)
    assert made["sub"] == "../../etc/passwd"
    assert made["exp"] - made["iat"] in (60, 61)  # type: ignore[operator]
    assert "role" not in made
    assert claims(tidepool("token", "alice", "--admin").output, SECRET)["role"] == "admin"


def test_token_is_made_out_as_the_server_asks_for(tidepool: Invoke) -> None:
    made = jwt.decode(
        tidepool("token", "alice", JWT_AUDIENCE="gallery", JWT_ISSUER="us").output.strip(),
        SECRET,
        algorithms=["HS256"],
        audience="gallery",
        issuer="us",
    )
    assert made["sub"] == "alice"


def test_token_uses_the_secret_that_the_server_keeps_and_starts_no_database(
    tidepool_alone: Invoke, data_dir: Path
) -> None:
    first = tidepool_alone("token", "alice")
    secret = (data_dir / "jwt-secret").read_text().strip()
    assert claims(first.stdout, secret)["sub"] == "alice"
    assert str(data_dir) in first.stderr, "who is in the wrong folder learns of it"
    second = tidepool_alone("token", "bob")
    assert claims(second.stdout, secret)["sub"] == "bob"
    assert second.stderr == ""
    assert not (data_dir / "postgres").exists()


@pytest.mark.parametrize("user", ["", "x" * 256, "\udcff"])
@pytest.mark.parametrize(
    "command", ["rebuild", "export", "verify --user", "mirror status --user", "mirror retry --user", "import x --user"]
)
def test_what_is_no_user_is_wrong_use_of_every_command(tidepool: Invoke, command: str, user: str) -> None:
    told = tidepool(*command.split(), user)
    assert told.exit_code == 2
    assert "a user id" in told.output


def test_token_refuses_what_cannot_be_a_user_or_a_time(tidepool: Invoke) -> None:
    assert tidepool("token", "").exit_code == 2
    assert tidepool("token", "x" * 256).exit_code == 2
    assert tidepool("token", "alice", "--ttl-s", "0").exit_code == 2


def test_token_cannot_be_made_where_others_hold_the_keys(tidepool: Invoke) -> None:
    told = tidepool("token", "alice", jwt_secret=None, jwks_url="https://id.example/keys")
    assert told.exit_code == 1
    assert "https://id.example/keys" in told.output


# ── database-url, psql ──────────────────────────────────────────────────────────────────────────────────────


def test_database_url_is_the_one_that_was_set(tidepool: Invoke, database_url: str) -> None:
    assert tidepool("database-url").output.strip() == database_url


def test_database_url_of_the_embedded_postgres_is_there_while_it_runs(tidepool_alone: Invoke, data_dir: Path) -> None:
    with embedded(data_dir) as server:
        told = tidepool_alone("database-url")
        assert (told.exit_code, told.output.strip()) == (0, server.url)
        with psycopg.connect(told.output.strip()) as connection:
            assert connection.info.dbname == "tidepool"
    told = tidepool_alone("database-url")
    assert (told.exit_code, "not running" in told.output) == (1, True)


def test_a_command_does_not_stop_the_postgres_that_someone_else_uses(tidepool_alone: Invoke, data_dir: Path) -> None:
    with embedded(data_dir) as server:
        assert tidepool_alone("migrate").exit_code == 0
        assert server.running()


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("to_all", [False, True])
@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_ended_stops_the_postgres_that_it_started(
    data_dir: Path, order: signal.Signals, to_all: bool
) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEPOOL_")}
    asyncio.run(_made(data_dir))
    with subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "psql", "-Atc", "SELECT 1", "-c", "SELECT pg_sleep(60)"],
        env=clean | {"TIDEPOOL_DATA_DIR": str(data_dir)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        if to_all:  # as when a terminal is closed; here psql has always ended by the time that the order is read
            [psql] = [one for one in psutil.Process(process.pid).children() if one.name() == "psql"]
            process.send_signal(signal.SIGSTOP)
            os.killpg(process.pid, order)
            while psql.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.001)
            process.send_signal(signal.SIGCONT)
        else:
            process.send_signal(order)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + order
    assert b"Traceback" not in said
    assert not EmbeddedPostgres(data_dir).running(), said.decode() + (data_dir / "postgres.log").read_text()


@pytest.mark.usefixtures("terminal")
def test_an_order_to_end_that_comes_twice_breaks_off_nothing_that_is_cleared_away() -> None:
    cleared = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.sleep(10)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)
            await asyncio.sleep(0.05)
            cleared.append(True)

    with pytest.raises(Ended) as ended:
        run(work())
    assert (cleared, ended.value.exit_code) == ([True], 143)


def test_an_order_to_end_that_comes_as_postgres_is_about_to_be_stopped_keeps_nobody_from_it(data_dir: Path) -> None:
    begun = threading.Event()

    async def work() -> None:
        loop, this = asyncio.get_running_loop(), asyncio.current_task()
        assert this is not None
        async with database(Settings(data_dir=data_dir), create=True):
            loop.set_default_executor(ThreadPoolExecutor(1))
            loop.run_in_executor(None, begun.wait)  # so that what stops it has no thread yet
            loop.call_soon(this.cancel)
            loop.call_later(0.01, begun.set)

    with pytest.raises(asyncio.CancelledError):
        run(work())
    assert not EmbeddedPostgres(data_dir).running()


def test_an_order_to_end_is_heard_by_who_gave_it_to_another_for_a_while() -> None:
    async def work() -> None:
        with orders(lambda _: None):  # as `tidepool dev` serves
            pass
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(10)

    with pytest.raises(Ended):
        run(work())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def _made(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir, settings=FAST)
    await server.start()
    await server.stop()


def test_psql_runs_on_the_primary_and_gives_its_exit_code(tidepool: Invoke) -> None:
    assert tidepool("psql", "-qc", "CREATE TABLE made_by_psql ()").exit_code == 0
    assert tidepool("psql", "-qc", "TABLE made_by_psql").exit_code == 0
    assert tidepool("psql", "-qc", "TABLE nowhere").exit_code == 1


# ── status, verify, rebuild ─────────────────────────────────────────────────────────────────────────────────


def test_status_counts_what_is_there_and_tells_what_is_behind(tidepool: Invoke, database_url: str) -> None:
    insert(database_url, "alice", 3)
    insert(database_url, "bob", 3)
    assert tidepool("rebuild", "alice").exit_code == 0
    assert tidepool("rebuild", "bob").exit_code == 0
    insert(database_url, "bob", 1)
    told = tidepool("status", "--json")
    found = json.loads(told.output)
    assert told.exit_code == 0
    assert found["primary"]["reachable"] is True
    assert found["primary"]["migrations"] == "current"
    assert found["primary"]["users"] == 2
    assert {name: found["replicas"][name] for name in ("count", "behind", "unreadable")} == {
        "count": 2,
        "behind": 1,
        "unreadable": 0,
    }
    assert found["data_directory"]["used_by_process"] is None
    shown = tidepool("status")
    assert (shown.exit_code, "2, " in shown.output, "1 to be synced" in shown.output) == (0, True, True)


def test_status_names_the_process_that_serves(tidepool: Invoke, data_dir: Path) -> None:
    lock = DataDirectory(data_dir).lock
    code = f"""
import pathlib, sys
from replica.datadir import Ownership
Ownership(pathlib.Path({str(lock)!r})).take()
print("taken", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = json.loads(tidepool("status", "--json").output)
        assert found["data_directory"]["used_by_process"] == process.pid
        process.communicate()


def test_status_exits_1_when_migrations_are_pending_or_the_primary_is_away(
    data_dir: Path, empty_database_url: str
) -> None:
    told = invoker(data_dir, DATABASE_URL=empty_database_url)("status")
    assert (told.exit_code, "tidepool migrate" in told.output) == (1, True)
    told = invoker(data_dir, DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")("status", "--json")
    assert (told.exit_code, json.loads(told.output)["primary"]["reachable"]) == (1, False)


def test_rebuild_makes_the_replica_and_says_what_it_holds(tidepool: Invoke, data_dir: Path, database_url: str) -> None:
    insert(database_url, "alice", 5)
    told = tidepool("rebuild", "alice")
    assert (told.exit_code, told.output.startswith("rebuilt: 5 rows at ")) == (0, True)
    assert len(list(DataDirectory(data_dir).all())) == 1


def test_rebuild_sets_the_replica_aside_while_a_server_owns_the_data_directory(
    tidepool: Invoke, data_dir: Path, database_url: str
) -> None:
    insert(database_url, "alice", 5)
    directory = DataDirectory(data_dir)
    assert tidepool("rebuild", "alice").exit_code == 0
    owner = Ownership(directory.lock)
    owner.take()
    try:
        told = tidepool("rebuild", "alice")
        assert (told.exit_code, told.output.startswith("set aside: ")) == (0, True)
        assert list(directory.all()) == []
        assert len([*directory.quarantine.glob("*.db")]) == 1
        told = tidepool("rebuild", "alice")
        assert (told.exit_code, told.output.startswith("there is no replica of alice")) == (0, True)
    finally:
        owner.release()


def test_verify_is_clean_after_a_rebuild_and_tells_a_row_that_differs(
    tidepool: Invoke, data_dir: Path, database_url: str
) -> None:
    for user in ("alice", "bob"):
        insert(database_url, user, 20)
        assert tidepool("rebuild", user).exit_code == 0
    told = tidepool("verify")
    assert told.exit_code == 0, told.output
    with closing(connect(DataDirectory(data_dir).of("bob").uri("rw"))) as connection:
        connection.execute("UPDATE image SET prompt = 'another' WHERE prompt = 'pool 7'")
    told = tidepool("verify")
    assert told.exit_code == 1
    assert "bob" in told.output
    assert "image" in told.output
    assert tidepool("verify", "--user", "alice").exit_code == 0
    assert tidepool("rebuild", "bob").exit_code == 0
    assert tidepool("verify").exit_code == 0
    told = tidepool("verify", "--user", "alcie")
    assert (told.exit_code, "alcie: has no replica here" in told.output) == (0, True)
