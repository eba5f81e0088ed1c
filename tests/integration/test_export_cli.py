"""`tidepool export`: the same files as over HTTP, from the primary itself, and nothing else left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from click.testing import Result

from gateway.cli.export import export_command
from gateway.cli.working_folder import PREFIX
from primary.declaration import Catalog
from primary.postgres import Primary
from replica.export import FORMATS
from tests.support.cli import run_command
from tests.support.exports import read
from tests.support.gallery_writes import furnish
from tests.support.replicas import change, truth
from tests.support.server import RunningServer

SUFFIXES = {"sqlite": ".sqlite", "ndjson": ".ndjson", "csv": ".csv.zip"}


@pytest.fixture
def environment(data_dir: Path, database_url: str) -> dict[str, str]:
    return {"TIDEPOOL_DATA_DIR": str(data_dir), "TIDEPOOL_DATABASE_URL": database_url}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


async def invoke(environment: dict[str, str], *arguments: str) -> Result:
    """Run the command, in a thread: it has a loop of its own."""
    settings = {name.removeprefix("TIDEPOOL_").lower(): value for name, value in environment.items()}
    return await asyncio.to_thread(run_command, "export", *arguments, **settings)


def test_its_formats_are_those_that_there_are() -> None:
    (option,) = [one for one in export_command.params if one.name == "form"]
    assert [*option.type.choices] == [*FORMATS]  # type: ignore[attr-defined]
    assert option.default == next(iter(FORMATS))


@pytest.mark.parametrize("name", FORMATS)
async def test_a_user_is_exported_though_a_server_runs(
    server: RunningServer, environment: dict[str, str], primary: Primary, catalog: Catalog, folder: Path, name: str
) -> None:
    user = "🌊 ../é"
    await furnish(server.client(user))
    version = await change(primary, user)
    told = await invoke(environment, user, "--format", name)
    path = folder / f"tidepool-__.._é-{version}{SUFFIXES[name]}"
    assert told.exit_code == 0, told.output
    assert [*folder.iterdir()] == [path]
    assert path.stat().st_mode & 0o777 == 0o600
    found = read(name, path.read_bytes(), catalog)
    assert (found.manifest["user"], found.manifest["version"]) == (user, str(version))
    assert {table: Counter(rows) for table, rows in found.rows.items()} == await truth(primary, catalog, user)
    total = sum(map(len, found.rows.values()))
    assert told.stdout.startswith(f"exported: {total:,} rows at {version} to {path.name}, in ")

    again = await invoke(environment, user, "--format", name)
    assert (again.exit_code, "is there already" in again.stderr) == (1, True)


async def test_a_file_that_is_named_is_replaced(environment: dict[str, str], catalog: Catalog, folder: Path) -> None:
    path = folder / "mine"
    path.write_text("of yesterday")
    told = await invoke(environment, "alice", "-o", str(path))
    assert told.exit_code == 0, told.output
    assert read("sqlite", path.read_bytes(), catalog).rows["image"] == []
    assert "nothing of this user" in told.stderr
    assert [*folder.iterdir()] == [path]


async def test_standard_output_takes_it_too(environment: dict[str, str], catalog: Catalog, folder: Path) -> None:
    told = await invoke(environment, "alice", "--format", "ndjson", "--output", "-")
    assert read("ndjson", told.stdout_bytes, catalog).manifest["user"] == "alice"
    assert "exported: 0 rows" in told.stderr
    assert not [*folder.iterdir()]


@pytest.mark.parametrize("output", ["pipe", "link to it"])
async def test_what_is_no_file_is_not_replaced_by_one(environment: dict[str, str], folder: Path, output: str) -> None:
    """As root, /dev/null would be one from then on."""
    os.mkfifo(folder / "pipe")
    (folder / "link to it").symlink_to("pipe")
    told = await invoke(environment, "alice", "-o", output)
    assert (told.exit_code, told.stdout) == (2, "")
    assert "is no file" in told.stderr
    assert "standard output" in told.stderr
    assert (folder / output).is_fifo()


@pytest.mark.parametrize("output", [".", "nowhere/mine", "file/mine"])
async def test_what_cannot_be_written_is_told_before_anything_is_done(
    environment: dict[str, str], folder: Path, output: str
) -> None:
    (folder / "file").touch()
    told = await invoke(environment | {"TIDEPOOL_DATABASE_URL": "postgresql://127.0.0.1:1/x"}, "alice", "-o", output)
    assert (told.exit_code, told.stderr.count("\n")) == (2, 2), told.stderr
    assert "cannot be written" in told.stderr


@pytest.mark.parametrize("user", ["", "x" * 256])
async def test_what_is_no_user_is_told(environment: dict[str, str], folder: Path, user: str) -> None:
    told = await invoke(environment, user)
    assert (told.exit_code, "1 to 255 characters" in told.stderr) == (2, True), told.stderr
    assert not [*folder.iterdir()]


@asynccontextmanager
async def working(environment: dict[str, str], primary: Primary, folder: Path) -> AsyncIterator[subprocess.Popen[str]]:
    """Give an export to ``mine`` that has begun to write in ``folder``, where there is one of yesterday's."""
    async with primary.connection() as connection:
        await connection.execute(
            b"INSERT INTO image (user_id, prompt, image_url)"
            b" SELECT 'alice', repeat('tide pool ', 20) || n, 'u' FROM generate_series(1, 20000) AS n"
        )
    (folder / "mine").write_text("of yesterday")
    clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEPOOL_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway.cli", "export", "alice", "--format", "csv", "--output", "mine"],
        env=clean | environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        async with asyncio.timeout(20):
            while not [*folder.glob(f"{PREFIX}*/made/*")]:
                assert process.poll() is None
                await asyncio.sleep(0.002)
        yield process


@pytest.mark.parametrize("order", [signal.SIGTERM, signal.SIGINT])
async def test_who_ends_it_finds_nothing_half_written(
    environment: dict[str, str], primary: Primary, folder: Path, order: signal.Signals
) -> None:
    async with working(environment, primary, folder) as process:
        process.send_signal(order)
        _, told = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 128 + order, told
    assert told == "tidepool: interrupted; no file was written.\n"
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("mine", "of yesterday")]


async def test_what_a_killed_one_left_is_cleared_away_by_the_next(
    environment: dict[str, str], primary: Primary, folder: Path
) -> None:
    async with working(environment, primary, folder) as process:
        process.send_signal(signal.SIGSTOP)
        assert (await invoke(environment, "bob", "-o", "bobs")).exit_code == 0
        (in_use,) = folder.glob(f"{PREFIX}*")
        process.kill()
        await asyncio.to_thread(process.wait)
    assert in_use.exists()
    assert (folder / "mine").read_text() == "of yesterday"
    assert (await invoke(environment, "bob", "-o", "bobs")).exit_code == 0
    assert {path.name for path in folder.iterdir()} == {"mine", "bobs"}
