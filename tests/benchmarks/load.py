"""Load on a server over HTTP, made by a process of its own: wrk where it is installed, else `generator`."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median

import httpx

from tests.benchmarks.process import Target
from tests.support.server import token

CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Asked:
    """A GET that is sent over and over: as a user, or as nobody; with an ETag that the client has, or none."""

    path: str
    user: str | None = None
    etag: str = ""

    def headers(self) -> dict[str, str]:
        """Give its headers."""
        headers = {"Authorization": f"Bearer {token(self.user)}"} if self.user is not None else {}
        return headers | ({"If-None-Match": self.etag} if self.etag else {})


@dataclass(frozen=True, slots=True)
class Rate:
    """What a server answered within one measurement; ``cpu_us`` is its processor time for each answer."""

    rate: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_us: float = 0


class Load:
    """Puts load on a server; ``folder`` is for the files of the load generator."""

    def __init__(self, target: Target, folder: Path) -> None:
        self._target = target
        self._folder = folder
        self._numbers = count(1)
        self._files: dict[Sequence[Asked], Path] = {}

    async def run(self, asked: Sequence[Asked], seconds: float) -> Rate:
        """Send the requests in turn over `CONNECTIONS` connections, each waiting for its answer."""
        if (file := self._files.get(asked)) is None:
            file = self._files[asked] = self._folder / f"requests-{next(self._numbers)}"
            lines = (f"{one.path}\t{token(one.user) if one.user else ''}\t{one.etag}\n" for one in asked)
            file.write_text("".join(lines))
        cpu_s = self._target.cpu_s()
        process = await asyncio.create_subprocess_exec(
            *_command(self._target.url, file, seconds), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            said, _ = await process.communicate()
        except asyncio.CancelledError:
            process.kill()
            raise
        lines_said = said.decode(errors="replace").strip().splitlines()
        if process.returncode != 0 or not lines_said:
            raise RuntimeError(f"the load generator failed: {lines_said[-3:]}")
        rate = Rate(**json.loads(lines_said[-1]))
        if rate.errors:
            raise RuntimeError(f"{asked[0].path}: {rate.errors} of the answers were errors")
        return replace(rate, cpu_us=(self._target.cpu_s() - cpu_s) / (rate.rate * seconds) * 1e6)


async def etags(url: str, asked: Sequence[Asked]) -> tuple[Asked, ...]:
    """Give the same requests with the ETag of their answers, which the server then need not send again."""
    async with httpx.AsyncClient(base_url=url) as client:
        tagged = []
        for one in asked:
            answer = await client.get(one.path, headers=one.headers())
            tagged.append(Asked(one.path, one.user, answer.headers["etag"]))
    return tuple(tagged)


async def check(url: str, asked: Sequence[Asked], status: int, contains: str = "") -> None:
    """Ask each once: what is measured must be the answer that is meant, and replicas be there already."""
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        for one in asked:
            answer = await client.get(one.path, headers=one.headers())
            if answer.status_code != status or contains not in answer.text:
                raise RuntimeError(f"GET {one.path} gave {answer.status_code}: {answer.text[:300]}")


def generator_name() -> str:
    """Say what makes the load."""
    found = shutil.which("wrk")
    return (
        f"wrk, 1 thread, {CONNECTIONS} connections"
        if found
        else f"tests.benchmarks.generator, {CONNECTIONS} connections"
    )


def told(rates: Sequence[Rate]) -> str:
    """Write the medians over rounds."""
    names = ("rate", "p50_ms", "p99_ms", "cpu_us")
    rate, p50, p99, cpu = (median(getattr(one, name) for one in rates) for name in names)
    return f"{rate:,.0f}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, cpu {cpu:.0f} µs"


def _command(url: str, file: Path, seconds: float) -> list[str]:
    if wrk := shutil.which("wrk"):
        script = str(Path(__file__).with_name("load.lua"))
        return [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", "-s", script, url, "--", str(file)]
    module = "tests.benchmarks.generator"
    return [sys.executable, "-m", module, url, str(file), str(CONNECTIONS), str(seconds)]
