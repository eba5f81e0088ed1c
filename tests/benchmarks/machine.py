"""What the figures were measured on."""

from __future__ import annotations

import json
import mmap
import os
import platform
import sqlite3  # noqa: TID251 - its version
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

import psutil

from primary.embedded.binaries import binary
from replica.library import VERSION

SLOW = 3  # times its median: so long nothing of the loop's own takes
_LIBRARIES = ("litestar", "uvicorn", "uvloop", "sqlalchemy", "psycopg", "apsw", "msgspec")


def busy() -> str:
    """Say how many processes ran or waited to run over the last minute: what is more than ours was others'."""
    return f"{os.getloadavg()[0]:.1f}"


def steadiness(seconds: float = 2) -> str:
    """Say how evenly a loop of this process goes on an idle machine: what is above it in a p99 may be ours."""
    text = json.dumps([{"id": "x" * 36, "prompt": "amber basalt " * 6, "seed": n} for n in range(24)])
    took, ends_at = [], time.perf_counter() + seconds
    while (began := time.perf_counter()) < ends_at:
        json.loads(text)
        took.append(time.perf_counter() - began)
    took.sort()
    usual = took[len(took) // 2]
    slow_s = sum(each for each in took if each > SLOW * usual)
    return (
        f"a loop's p99.9 {took[len(took) * 999 // 1000] / usual:.1f} × its median before the run, "
        f"{slow_s / seconds:.1%} of the time over {SLOW} ×"
    )


def new_page_us(size: int = 512 << 20) -> float:
    """Give how many µs a page of memory takes that this process never used, on average over ``size`` bytes.

    Some 0.5 where the system has it. Where the system is a guest whose host takes back what is free, the host gives it
    first, which takes 8 to 11: then all that writes much (a first build, its file) is slower by half.
    """
    with mmap.mmap(-1, size) as memory:
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            memory.madvise(mmap.MADV_NOHUGEPAGE)
        began = time.perf_counter()
        for place in range(0, size, mmap.PAGESIZE):
            memory[place] = 1
        return (time.perf_counter() - began) * 1e6 / (size // mmap.PAGESIZE)


def facts(generator: str, busy_before: str, steady: str, page_us: float) -> list[tuple[str, str]]:
    """Give the machine, the system and the versions that matter, each with its name; once the run is over."""
    return [
        ("processor", f"{os.cpu_count()} × {_processor()}"),
        ("memory", f"{psutil.virtual_memory().total / 2**30:.0f} GiB, a new page of it took {page_us:.2g} µs"),
        (
            "system",
            f"{platform.system()} {platform.release()}, load {busy_before} before the run and {busy()} after it",
        ),
        ("steadiness", steady),
        ("python", f"{platform.python_version()}, SQLite {VERSION} (Python's own {sqlite3.sqlite_version})"),
        ("postgres", _postgres()),
        ("libraries", ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)),
        ("load from", generator),
    ]


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _postgres() -> str:
    said = subprocess.run([binary("postgres"), "--version"], capture_output=True, text=True, check=False).stdout
    return f"{said.strip()}, embedded, its own settings (every commit flushed)"
