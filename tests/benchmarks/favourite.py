"""A heart, from the click to the page that shows it: the write, the sync and the read, each over HTTP."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence

from tests.benchmarks.bench import USERS, Bench
from tests.benchmarks.data import image_id, user_name
from tests.benchmarks.figures import Figure, at_most, fact, shown
from tests.benchmarks.process import serving
from tests.support.raw import RawConnection, connected

TITLE = "A favourite: written, synced and read back over HTTP"

WITHIN_MS = 15
_USER = USERS - 2  # nobody else measures with its rows


async def measure(bench: Bench) -> list[Figure]:
    """Click the hearts of one user's images, one after the other, and read each back in two ways, in turn."""
    database = await bench.gallery()
    times = 100 if bench.quick else 300
    whole_s: list[float] = []
    parts_s: tuple[list[float], list[float], list[float]] = ([], [], [])
    handed_back_s: list[float] = []
    async with (
        serving(bench.folder / "favourite", database) as target,
        connected(target.url, user_name(_USER)) as client,
    ):
        for number in range(times + 20):
            image = f"/api/images/{image_id(_USER, number)}"
            began = time.perf_counter()
            await _click(client, image, True)
            clicked = time.perf_counter()
            await _ask(client, "POST", "/api/sync")
            synced = time.perf_counter()
            assert (await _ask(client, "GET", image))["is_favorite"] is True
            ended = time.perf_counter()
            version = await _click(client, image, False)
            assert (await _ask(client, "GET", f"{image}?min_version={version}"))["is_favorite"] is False
            handed_back = time.perf_counter()
            if number >= 20:  # the first ones are to warm up
                whole_s.append(ended - began)
                handed_back_s.append(handed_back - ended)
                for part, seconds in zip(parts_s, (clicked - began, synced - clicked, ended - synced), strict=True):
                    part.append(seconds)
    write, sync, read = (shown(_ms(part, 50)) for part in parts_s)
    return [
        at_most("write, sync and read, p50", _ms(whole_s, 50), WITHIN_MS, " ms", f"{write} + {sync} + {read} ms"),
        fact("… p99", f"{shown(_ms(whole_s, 99))} ms"),
        at_most("write, and read at its version, p50", _ms(handed_back_s, 50), WITHIN_MS, " ms"),
        fact("… p99", f"{shown(_ms(handed_back_s, 99))} ms"),
    ]


async def _click(client: RawConnection, image: str, favorite: bool) -> str:
    told = await _ask(client, "PUT", f"{image}/favorite", json.dumps({"favorite": favorite}).encode())
    return str(told["version"])


async def _ask(client: RawConnection, method: str, path: str, body: bytes = b"") -> dict[str, object]:
    status, answer = await client.ask(method, path, body)
    assert status == 200, f"{method} {path}: {status}"
    told: dict[str, object] = json.loads(answer)
    return told


def _ms(seconds: Sequence[float], percent: int) -> float:
    return sorted(seconds)[len(seconds) * percent // 100] * 1e3
