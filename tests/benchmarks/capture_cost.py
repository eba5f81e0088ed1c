"""What capture costs those who write: commits a second with its triggers, beside the same table without."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import psycopg

from primary.embedded.binaries import binary
from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, at_least, fact, ratio, spread

TITLE = "Commits with capture, of commits without"

WRITERS = 8
_USERS = 1_000

_SCRIPT = """\\set number random(1, {users})
INSERT INTO image (user_id, prompt, image_url, model, seed, steps) VALUES ('user-' || :number,
  'amber basalt cedar dune ember fjord glacier harbor', 'https://images.example/amber.png', 'flux-1-schnell', 48, 20);
"""


async def measure(bench: Bench) -> list[Figure]:
    """Measure both in turn: commits that wait for the disk, commits that do not, and one user's alone."""
    capturing = await bench.migrated("capture_on")
    bare = await bench.migrated("capture_off")
    async with await psycopg.AsyncConnection.connect(bare, autocommit=True) as connection:
        for event in ("insert", "update", "delete"):
            await connection.execute(f"ALTER TABLE image DISABLE TRIGGER tidepool_{event}".encode())
    many, one = bench.folder / "many.sql", bench.folder / "one.sql"
    many.write_text(_SCRIPT.format(users=_USERS))
    one.write_text(_SCRIPT.format(users=1))
    cases = {
        f"{WRITERS} writers, {_USERS:,} users": (many, "on"),
        "the same, commits that do not wait for the disk": (many, "off"),
        f"{WRITERS} writers, all for one user": (one, "on"),
    }
    figures = []
    for place, (what, (script, waits)) in enumerate(cases.items()):
        if place and bench.quick:
            break
        rates: dict[str, list[float]] = {capturing: [], bare: []}
        for number in range(bench.rounds + 1):
            for url, found in rates.items():
                rate = await _commits_each_s(url, script, waits, bench.seconds if number else 1)
                if number:  # the first is to warm up
                    found.append(rate)
        value = ratio(rates[capturing], rates[bare])
        detail = f"with {spread(rates[capturing])}, without {spread(rates[bare])} commits/s"
        figures.append(
            at_least(what, value, 0.6, detail=detail) if place == 0 else fact(what, f"{value:.3g} ×", detail)
        )
    return figures


async def _commits_each_s(url: str, script: Path, waits: str, seconds: float) -> float:
    process = await asyncio.create_subprocess_exec(
        *(str(binary("pgbench")), "-n", "-M", "prepared", "-c", str(WRITERS), "-j", "2"),
        *("-T", f"{seconds:.0f}", "-f", str(script), url),
        env={"PGOPTIONS": f"-c synchronous_commit={waits}"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    found = re.search(rb"tps = ([\d.]+)", said)
    if process.returncode != 0 or found is None:
        raise RuntimeError(f"pgbench failed: {said.decode(errors='replace')[-500:]}")
    return float(found[1])
