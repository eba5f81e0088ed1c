"""Whether the server can do all of its work: each thing it needs, checked and named."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from time import monotonic

import msgspec

from primary.declaration import Catalog
from primary.errors import PrimaryError, PrimaryUnavailable
from primary.migrate import pending
from primary.postgres import Primary

CHECK_TIMEOUT_S = 2.0  # what asks is a probe that gives up after a few seconds
KEPT_S = 1.0  # anybody may ask, however often; the database is asked once in this time


class Check(msgspec.Struct):
    """One thing that the server needs."""

    ok: bool
    detail: str


class Readiness:
    """Checks what the server needs, and remembers the answer for a moment."""

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[str]]]) -> None:
        self._checks = checks
        self._lock = asyncio.Lock()
        self._kept: dict[str, Check] = {}
        self._kept_until = float("-inf")

    @classmethod
    def of(cls, primary: Primary, catalog: Catalog, data_dir: Path) -> Readiness:
        """Check the primary, its migrations, and the data directory."""

        async def reached() -> str:
            await primary.ping()
            return "reachable"

        async def migrated() -> str:
            if waiting := await pending(primary, catalog):
                raise NotReady(f"{len(waiting)} pending; run: tidepool migrate")
            return "current"

        async def writable() -> str:
            await asyncio.to_thread(_write_and_remove, data_dir)
            return "writable"

        return cls({"primary": reached, "migrations": migrated, "data_directory": writable})

    async def check(self) -> dict[str, Check]:
        """Check everything at once; those who ask meanwhile share the answer."""
        async with self._lock:
            if monotonic() >= self._kept_until:
                results = await asyncio.gather(*(_result(check) for check in self._checks.values()))
                self._kept = dict(zip(self._checks, results, strict=True))
                self._kept_until = monotonic() + KEPT_S
            return self._kept


class NotReady(Exception):
    """A check failed; the text says what about it, fit for anybody to read."""


async def _result(check: Callable[[], Awaitable[str]]) -> Check:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return Check(True, await check())
    except NotReady as error:
        return Check(False, str(error))
    except PrimaryUnavailable:
        return Check(False, "the primary database cannot be reached")
    except PrimaryError as error:
        return Check(False, f"{error}; {error.hint}" if error.hint else str(error))
    except TimeoutError:
        return Check(False, f"no answer within {CHECK_TIMEOUT_S:g} s")
    except OSError as error:
        return Check(False, os.strerror(error.errno) if error.errno else "input/output error")  # without the path


def _write_and_remove(data_dir: Path) -> None:
    probe = data_dir / f".ready-{os.getpid()}"
    probe.write_bytes(b"ready")
    probe.unlink()
