"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import sqlite3  # noqa: TID251 - its version
import subprocess
from importlib.metadata import version
from pathlib import Path

import psutil

from primary.embedded.binaries import binary
from replica.library import VERSION

_LIBRARIES = ("litestar", "uvicorn", "uvloop", "sqlalchemy", "psycopg", "apsw", "msgspec")


def busy() -> str:
    """Say how many processes ran or waited to run over the last minute: what is more than ours was others'."""
    return f"{os.getloadavg()[0]:.1f}"


def facts(generator: str, busy_before: str) -> list[tuple[str, str]]:
    """Give the machine, the system and the versions that matter, each with its name; once the run is over."""
    return [
        ("processor", f"{os.cpu_count()} × {_processor()}"),
        ("memory", f"{psutil.virtual_memory().total / 2**30:.0f} GiB"),
        (
            "system",
            f"{platform.system()} {platform.release()}, load {busy_before} before the run and {busy()} after it",
        ),
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
