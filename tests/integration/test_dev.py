"""`make run`: everything at once, from nothing, and again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from gateway.demo import IMAGES, USER, demo_images, ensure_demo
from primary.embedded import EmbeddedPostgres
from primary.gallery import images
from primary.postgres import Primary
from primary.write import writing
from tests.support import busy


class Dev:
    """`tidepool dev` in a terminal's stead: what it printed, and Ctrl-C."""

    def __init__(self, data_dir: Path) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEPOOL_")}
        self.environment = clean | {"TIDEPOOL_DATA_DIR": str(data_dir), "TIDEPOOL_PORT": "0"}
        self.data_dir = data_dir
        self.printed = ""
        self.curls: list[str] = []

    async def start(self) -> float:
        """Start it, wait until the last curl line is printed, and tell how many seconds it took."""
        begun = time.monotonic()
        self.printed, self.curls = "", []
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", "dev"),
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            while len(self.curls) < 3:
                line = (await self.process.stdout.readline()).decode()
                assert line, f"it ended early: {self.printed}"
                self.printed += line
                if line.startswith("curl "):
                    self.curls.append(line.strip())
        return time.monotonic() - begun

    async def begin(self) -> None:
        """Start it, and come back while it is still starting its Postgres."""
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "gateway.cli", "dev"),
            env=self.environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        async with asyncio.timeout(20):
            while not (self.data_dir / "postgres.start").exists():
                await asyncio.sleep(0.005)

    async def ctrl_c(self, order: signal.Signals = signal.SIGINT) -> tuple[int, float]:
        """Press Ctrl-C, and give the exit code and the seconds until it had ended."""
        begun = time.monotonic()
        os.killpg(self.process.pid, order)  # as a terminal does: to every process of the group
        return await self.process.wait(), time.monotonic() - begun

    def paste(self, curl: str) -> Any:
        """Run a line as it was printed, and give the JSON that it answered."""
        done = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture
async def dev(data_dir: Path) -> AsyncIterator[Dev]:
    made = Dev(data_dir)
    yield made
    if made.process.returncode is None:
        await made.ctrl_c()


@pytest.mark.skipif(shutil.which("curl") is None, reason="the lines are for curl, which is not here")
@pytest.mark.alone
async def test_from_nothing_to_three_lines_that_work_and_again_with_all_the_data(dev: Dev, data_dir: Path) -> None:
    await dev.start()
    save, sync, list_ = dev.curls
    assert f"made the user {USER} with {IMAGES} images" in dev.printed
    saved = dev.paste(save)
    synced = dev.paste(sync)
    page = dev.paste(list_)
    assert synced["version"] == saved["version"]
    assert page["images"][0]["id"] == saved["id"]
    code, took_s = await dev.ctrl_c()
    assert code == 0
    assert took_s < busy.alone(5)
    assert "crash" not in (data_dir / "postgres.log").read_text()
    assert not EmbeddedPostgres(data_dir).running()

    assert await dev.start() < busy.alone(3)
    assert "made the user" not in dev.printed
    again = dev.paste(dev.curls[2].replace("limit=3", "limit=100"))
    assert len(again["images"]) == IMAGES + 1
    assert again["images"][0]["id"] == saved["id"]
    assert not re.search(r"Warning|Traceback", dev.printed)


async def test_a_second_one_on_the_same_data_is_refused_and_leaves_the_first_alone(dev: Dev) -> None:
    await dev.start()
    second = subprocess.run(
        [sys.executable, "-m", "gateway.cli", "dev"],
        env=dev.environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=60,
    )
    assert second.returncode == 1
    assert "in use by another process" in second.stderr
    assert "Traceback" not in second.stderr
    assert await asyncio.to_thread(dev.paste, dev.curls[2])


@pytest.mark.usefixtures("terminal")
async def test_a_terminal_that_is_closed_leaves_nothing_behind(dev: Dev, data_dir: Path) -> None:
    await dev.start()
    code, took_s = await dev.ctrl_c(signal.SIGHUP)
    assert code == 0
    assert took_s < busy.alone(5)
    assert not EmbeddedPostgres(data_dir).running()


@pytest.mark.usefixtures("terminal")
@pytest.mark.alone
@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_end_while_everything_is_still_starting_leaves_nothing_behind(
    dev: Dev, data_dir: Path, order: signal.Signals
) -> None:
    await dev.begin()
    _, took_s = await dev.ctrl_c(order)
    assert dev.process.stderr is not None
    said = (await dev.process.stderr.read()).decode()
    assert took_s < busy.alone(5)
    assert "Traceback" not in said
    assert not EmbeddedPostgres(data_dir).running()


@pytest.mark.usefixtures("terminal")
@pytest.mark.alone
@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_end_that_is_ordered_again_while_everything_is_still_starting_leaves_nothing_behind_either(
    dev: Dev, data_dir: Path, order: signal.Signals
) -> None:
    """A terminal that is closed says so twice, by the system and by its shell; and who is impatient does."""
    await dev.begin()
    for _ in range(2):
        dev.process.send_signal(order)  # and not to those that it has started: they go on
        await asyncio.sleep(0.05)
    await dev.process.communicate()
    assert not EmbeddedPostgres(data_dir).running()


@pytest.mark.usefixtures("terminal")
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not show which signals wait")
@pytest.mark.parametrize("order", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_an_end_that_is_ordered_again_while_postgres_is_stopped_leaves_nothing_behind_either(
    dev: Dev, data_dir: Path, order: signal.Signals
) -> None:
    await dev.start()
    postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGSTOP)
    try:
        dev.process.send_signal(order)
        async with asyncio.timeout(20):
            while not _waiting(postmaster):
                await asyncio.sleep(0.005)
        dev.process.send_signal(order)
    finally:
        os.kill(postmaster, signal.SIGCONT)
    assert await dev.process.wait() == 0
    assert not EmbeddedPostgres(data_dir).running()


def _waiting(pid: int) -> bool:
    """Tell whether a process that is held up has been told to end."""
    lines = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return bool(int(lines["ShdPnd"], 16) >> (signal.SIGINT - 1) & 1)


def test_the_demo_images_are_the_same_at_every_making_and_no_two_alike() -> None:
    made = demo_images()
    assert made == demo_images()
    assert len({image.id for image in made}) == len({image.image_url for image in made}) == IMAGES
    assert len({image.prompt for image in made}) == IMAGES


async def test_the_demo_user_is_made_once_and_finished_where_it_was_interrupted(primary: Primary) -> None:
    async with writing(primary, USER) as write:
        await images.create_many(write, demo_images())  # as a process killed before the profile leaves it
    assert await ensure_demo(primary) is True
    assert await ensure_demo(primary) is False
    async with primary.connection() as connection:
        found = await (await connection.execute("SELECT count(*) FROM image WHERE user_id = 'demo'")).fetchone()
    assert found == (IMAGES,)
