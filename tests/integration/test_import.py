"""`tidepool import` as a program, against a real Postgres."""

from __future__ import annotations

import asyncio
import csv
import json
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from primary.postgres import Primary
from primary.write import writing
from replica.store import Store
from tests.support.forked import forked
from tests.support.proxy import PostgresProxy
from tests.unit.importing.pngs import png, text

TIME_MAX_S = 60


class Command:
    """The command, on one database, with its exit code and what it printed."""

    def __init__(self, database_url: str, folder: Path) -> None:
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("TIDEPOOL_")}
        self._env |= {"TIDEPOOL_DATABASE_URL": database_url, "TIDEPOOL_DATA_DIR": str(folder)}

    async def fed(self, *args: str | Path) -> Process:
        """Begin it, with a standard input."""
        command = [sys.executable, "-m", "gateway.cli", "import", *map(str, args)]
        return await asyncio.create_subprocess_exec(*command, env=self._env, stdin=PIPE, stdout=PIPE, stderr=PIPE)

    async def __call__(self, *args: str | Path, given: bytes | None = None) -> tuple[int, str, str]:
        if given is None:
            alone = await forked("gateway.cli", ["import", *map(str, args)], self._env, stdout=True)
            out, err = await asyncio.wait_for(alone.communicate(), TIME_MAX_S)
            code = alone.returncode
        else:
            process = await self.fed(*args)
            out, err = await asyncio.wait_for(process.communicate(given), TIME_MAX_S)
            code = process.returncode
        assert code is not None
        return code, out.decode(), err.decode()


@pytest.fixture
def command(database_url: str, tmp_path: Path) -> Command:
    return Command(database_url, tmp_path / "data")


def records(count: int, start: int = 0) -> list[dict[str, Any]]:
    return [
        {"prompt": f"picture {n}", "image_url": f"https://x/{n}.png", "seed": n} for n in range(start, start + count)
    ]


def write_jsonl(path: Path, lines: Iterable[dict[str, Any] | str]) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


async def rows(primary: Primary, user: str, columns: str = "prompt, image_url, seed") -> list[tuple[Any, ...]]:
    async with primary.connection() as connection:
        query = f"SELECT {columns} FROM image WHERE user_id = %s ORDER BY seed, id"
        return await (await connection.execute(query.encode(), [user])).fetchall()


async def count(primary: Primary, user: str) -> int:
    return len(await rows(primary, user, "seed, id"))


async def version(primary: Primary, user: str) -> str:
    async with writing(primary, user) as write:
        return str(await write.cursor())


async def test_the_same_input_twice_changes_nothing(command: Command, primary: Primary, tmp_path: Path):
    file = write_jsonl(tmp_path / "in.jsonl", [*records(2_500), *records(1), *records(1)])
    code, out, err = await command(file, "--user", "ada")
    assert (code, err) == (0, "")
    assert out.startswith("2,502 records for ada: 2,502 saved, 0 were there already, 0 left out.\n")
    before, seen = await rows(primary, "ada", "*"), await version(primary, "ada")
    assert len(before) == 2_502

    code, out, err = await command(file, "--user", "ada")
    assert (code, out, err) == (0, "2,502 records for ada: 0 saved, 2,502 were there already, 0 left out.\n", "")
    assert (await rows(primary, "ada", "*"), await version(primary, "ada")) == (before, seen)

    assert (await command(file, "--user", "grace"))[0] == 0
    assert await count(primary, "grace") == 2_502
    assert await rows(primary, "ada", "*") == before


async def test_every_field_arrives_as_it_was_written(command: Command, primary: Primary, tmp_path: Path):
    values = {
        "id": "0190b5a0-0000-7000-8000-000000000001",
        "prompt": 'a "whale", 🐋\nat dusk',
        "negative_prompt": "",
        "image_url": "https://x/1.png?a=1&b=%20",
        "model": "dream",
        "seed": -(2**63),
        "steps": 20,
        "width": 512,
        "height": 768,
        "source": "scheduler",
        "persona_id": "p",
        "persona_name": "مرحبا",
        "alt_text": "t",
        "description": "d",
        "meta": {"cfg": 7.5, "list": [1, None, {"ä": "\u2028"}], "big": 10**25},
        "created_at": "2024-02-29T12:00:00.123456+00:00",
    }
    assert (await command(write_jsonl(tmp_path / "in.jsonl", [values]), "--user", "ada"))[0] == 0
    (row,) = await rows(primary, "ada", ", ".join(values))
    found = dict(zip(values, row, strict=True))
    assert {**found, "id": str(found["id"]), "created_at": found["created_at"].isoformat()} == {
        **values,
        "meta": json.loads(json.dumps(values["meta"]), parse_int=int),
    }


async def test_csv_and_json_lines_of_the_same_records_are_the_same_images(
    command: Command, primary: Primary, tmp_path: Path
):
    with (tmp_path / "in.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["prompt", "imageUrl", "seed", "negativePrompt", "meta"])
        writer.writerows([one["prompt"], one["image_url"], one["seed"], "", '{"a":1}'] for one in records(1_200))
    code, out, _ = await command(tmp_path / "in.csv", "--user", "ada")
    assert (code, out.splitlines()[0]) == (0, "1,200 records for ada: 1,200 saved, 0 were there already, 0 left out.")
    same = write_jsonl(tmp_path / "in.jsonl", [one | {"meta": {"a": 1}} for one in records(1_200)])
    code, out, _ = await command(same, "--user", "ada")
    assert (code, out) == (0, "1,200 records for ada: 0 saved, 1,200 were there already, 0 left out.\n")
    assert await count(primary, "ada") == 1_200


async def test_a_folder_of_pictures(command: Command, primary: Primary, tmp_path: Path):
    folder = tmp_path / "pictures" / "2024"
    folder.mkdir(parents=True)
    for n in range(30):
        parameters = (
            f"a whale, number {n}\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, Seed: {n}, Model: dream"
        )
        (folder / f"{n}.png").write_bytes(png(text("parameters", parameters), width=8, height=6))
    (folder / "copy.png").write_bytes((folder / "7.png").read_bytes())
    (folder / "notes.txt").write_text("not a picture")
    args = (tmp_path / "pictures", "--user", "ada", "--url-prefix", "https://cdn.example/")
    code, out, err = await command(*args)
    assert (code, err) == (0, "")
    assert out.startswith("31 records for ada: 30 saved, 1 were there already, 0 left out.\n")
    found = await rows(primary, "ada", "prompt, negative_prompt, seed, steps, width, height, model, source, image_url")
    assert found[29] == (
        *("a whale, number 29", "blurry", 29, 20, 8, 6, "dream", "automatic1111"),
        "https://cdn.example/2024/29.png",
    )
    code, out, _ = await command(*args)
    assert (code, out) == (0, "31 records for ada: 0 saved, 31 were there already, 0 left out.\n")


async def test_bad_records_are_told_by_line_and_left_out(command: Command, primary: Primary, tmp_path: Path):
    lines: list[dict[str, Any] | str] = [*records(30)]
    lines[3] = '{"prompt": "x"'
    lines[7] = {"prompt": "", "image_url": "u", "seed": "x"}
    lines[11] = records(1)[0] | {"cfg": 7}
    file = write_jsonl(tmp_path / "in.jsonl", lines)
    code, out, err = await command(file, "--user", "ada")
    assert code == 1
    assert out.startswith("30 records for ada: 27 saved, 0 were there already, 3 left out.\n")
    assert err.splitlines() == [
        "left out: line 4: is not JSON: Input data was truncated",
        err.splitlines()[1],
        "left out: line 12: cfg: is not a field of an image",
    ]
    assert err.splitlines()[1].startswith("left out: line 8: ")
    assert "prompt: " in err.splitlines()[1]
    assert "seed: " in err.splitlines()[1]
    assert await count(primary, "ada") == 27

    lines[3], lines[7] = records(1, 3)[0], records(1, 7)[0]
    code, out, _ = await command(write_jsonl(file, lines), "--user", "ada", "--unknown", "meta")
    assert (code, out.splitlines()[0]) == (0, "30 records for ada: 3 saved, 27 were there already, 0 left out.")


async def test_many_bad_records_are_counted_after_the_first_twenty(command: Command, tmp_path: Path):
    lines = [*records(1), *({"prompt": f"\x1b[2J{n}"} for n in range(2_000))]
    code, out, err = await command(write_jsonl(tmp_path / "in.jsonl", lines), "--user", "ada")
    told = err.splitlines()
    assert (code, len(told), told[-1]) == (1, 21, "left out: 1,980 more")
    assert told[19] == "left out: line 21: image_url: is missing"
    assert "\x1b" not in err
    assert "2,000 left out" in out


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("in.jsonl", "", "holds nothing to import"),
        ("in.jsonl", "\n\n", "holds nothing to import"),
        ("in.jsonl", "prompt,image_url\nx,y\n", "none of its 2 records can be imported"),
        ("in.csv", "", "The input is empty"),
        ("in.csv", "prompt,image_url,cfg\nx,y,1\n", "Images have no field 'cfg'"),
        ("in.csv", "prompt,seed\nx,1\n", "does not name 'image_url'"),
        ("in.csv", "\ufeffprompt,image_url\n", "holds nothing to import"),
        ("in.txt", "x", "no telling the format"),
    ],
)
async def test_what_holds_nothing_that_can_be_read_is_told(
    command: Command, primary: Primary, tmp_path: Path, name: str, content: str, reason: str
):
    (tmp_path / name).write_text(content)
    code, out, err = await command(tmp_path / name, "--user", "ada")
    assert (code, out) == (2, "")
    assert reason in err
    assert "Traceback" not in err
    assert await count(primary, "ada") == 0


@pytest.mark.parametrize(
    "args",
    [
        ("missing.jsonl", "--user", "ada"),
        ("in.jsonl",),
        ("in.jsonl", "--user", ""),
        ("in.jsonl", "--user", "x" * 256),
        (".",),
    ],
)
async def test_wrong_use_is_told(command: Command, tmp_path: Path, args: tuple[str, ...]):
    write_jsonl(tmp_path / "in.jsonl", records(1))
    code, _, err = await command(tmp_path / args[0], *args[1:])
    assert code == 2
    assert "Traceback" not in err


async def test_a_database_without_tables_is_told(empty_database_url: str, tmp_path: Path):
    command = Command(empty_database_url, tmp_path / "data")
    code, _, err = await command(write_jsonl(tmp_path / "in.jsonl", records(1)), "--user", "ada")
    assert code == 1
    assert "tidepool migrate" in err
    assert "Traceback" not in err


async def test_the_owner_reads_what_was_imported(command: Command, store: Store, tmp_path: Path):
    await store.sync("ada")
    file = write_jsonl(tmp_path / "in.jsonl", records(1_500))
    assert (await command(file, "--user", "ada"))[0] == 0
    assert (await store.sync("ada")).applied == 1_500
    read = await store.read("ada", lambda db: db.execute("SELECT prompt, seed FROM image ORDER BY seed").fetchall())
    assert [tuple(row) for row in read.value] == [(one["prompt"], one["seed"]) for one in records(1_500)]


# ── Ended on the way ──


@asynccontextmanager
async def importing_from_a_pipe(command: Command, primary: Primary) -> AsyncIterator[Process]:
    """An import that was given 2,500 records, has saved two batches of them, and waits for more."""
    process = await command.fed("-", "--user", "ada")
    assert process.stdin is not None
    try:
        process.stdin.write("".join(json.dumps(one) + "\n" for one in records(2_500)).encode())
        await process.stdin.drain()
        async with asyncio.timeout(TIME_MAX_S):
            while await count(primary, "ada") < 2_000:
                await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_the_standard_input_is_read(command: Command, primary: Primary):
    given = "".join(json.dumps(one) + "\n" for one in records(10)).encode()
    code, out, _ = await command("-", "--user", "ada", given=given)
    assert (code, out.splitlines()[0]) == (0, "10 records for ada: 10 saved, 0 were there already, 0 left out.")
    assert await count(primary, "ada") == 10


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_a_killed_import_leaves_whole_batches_and_is_gone_on_with(
    command: Command, primary: Primary, tmp_path: Path, how: signal.Signals
):
    async with importing_from_a_pipe(command, primary) as process:
        process.send_signal(how)
        await asyncio.wait_for(process.wait(), TIME_MAX_S)
    assert await count(primary, "ada") == 2_000
    file = write_jsonl(tmp_path / "in.jsonl", records(2_500))
    code, out, _ = await command(file, "--user", "ada")
    assert (code, out.splitlines()[0]) == (0, "2,500 records for ada: 500 saved, 2,000 were there already, 0 left out.")
    assert await rows(primary, "ada") == [(one["prompt"], one["image_url"], one["seed"]) for one in records(2_500)]


async def test_ctrl_c_ends_it_at_once_and_says_how_to_go_on(command: Command, primary: Primary):
    async with importing_from_a_pipe(command, primary) as process:
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(5):
            assert process.stderr is not None
            err = (await process.stderr.read()).decode()
            assert await process.wait() == 130
    assert "interrupted; 2,000 records for ada: 2,000 saved" in err
    assert "Run the same command again" in err
    assert "Traceback" not in err
    assert "Fatal" not in err
    assert await count(primary, "ada") == 2_000


async def test_a_postgres_that_goes_away_is_told_and_the_import_gone_on_with(
    proxy: PostgresProxy, primary: Primary, tmp_path: Path
):
    command = Command(proxy.url, tmp_path / "data")
    async with importing_from_a_pipe(command, primary) as process:
        await proxy.cut()
        out, err = await asyncio.wait_for(process.communicate(b""), TIME_MAX_S)
        assert process.returncode == 1
    assert "2,000 saved" in err.decode()
    assert "Run the same command again" in err.decode()
    assert "Traceback" not in err.decode()
    assert out == b""
    assert await count(primary, "ada") == 2_000


async def test_without_postgres_nothing_is_begun(tmp_path: Path):
    command = Command("postgresql://nobody@127.0.0.1:1/none", tmp_path / "data")
    code, out, err = await command(write_jsonl(tmp_path / "in.jsonl", records(1)), "--user", "ada")
    assert (code, out) == (1, "")
    assert "TIDEPOOL_DATABASE_URL" in err


async def test_a_write_from_elsewhere_in_the_meantime_does_no_harm(
    command: Command, primary: Primary, database_url: str
):
    async with importing_from_a_pipe(command, primary) as process:
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
            await connection.execute("DELETE FROM image WHERE user_id = 'ada' AND seed = 5")
        out, _ = await asyncio.wait_for(process.communicate(b""), TIME_MAX_S)
    assert out.decode().startswith("2,500 records for ada: 2,500 saved")
    assert await count(primary, "ada") == 2_499
