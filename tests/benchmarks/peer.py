"""The same reads on another server, by that server's own load script, both in one go and in turn.

The other is a Durable Object runtime: a folder with run.sh (start), seed.mjs (load) and bench.sh (measure), which
can be pointed at any server of this shape. It is given as ``--peer-dir``, with its npm packages installed.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.benchmarks.bench import ROWS_EACH, USERS, Bench
from tests.benchmarks.data import image_id, user_name
from tests.benchmarks.figures import Figure, at_least, at_most, beside, fact, ratio, shown
from tests.benchmarks.load import Asked, check
from tests.benchmarks.process import free_ports, output_of, running, serving
from tests.support.server import SECRET

TITLE = f"Beside Durable Objects on workerd: {USERS} users, 1,000 rows each"

START_S = 30

_LINE = re.compile(
    r"^(?P<what>.*?)\s+rps=(?P<rps>[\d.]+) p50_ms=\S+ p99_ms=(?P<p99>[\d.]+) "
    r".*errors=(?P<errors>\d+) cores=(?P<cores>[\d.]+)"
)

Found = dict[str, tuple[float, float, float]]
"""By kind of read: requests a second, p99 in ms, and the server's processor time for a request in µs."""


async def measure(bench: Bench) -> list[Figure]:
    """Measure both in turn, in several rounds."""
    if bench.peer_dir is None:
        return [fact("skipped", "", "give the peer's folder with --peer-dir")]
    if missing := [name for name in ("wrk", "node") if shutil.which(name) is None]:
        return [fact("skipped", "", f"not installed: {', '.join(missing)}")]
    database = await bench.gallery()
    folder = bench.folder / "peer"
    folder.mkdir()
    tokens = folder / "tokens.txt"
    async with _peer(bench.peer_dir, folder) as (peer_url, peer_pid):
        seed = {"BASE_URL": peer_url, "TOKENS": str(tokens), "JWT_SECRET": SECRET}
        await output_of(["node", str(bench.peer_dir / "seed.mjs"), str(USERS), str(ROWS_EACH)], seed)
        async with serving(folder / "ours", database) as target:
            # One secret and the same names: the peer's tokens are good here too, in the same order of users.
            common = {"TOKENS": str(tokens), "USERS": str(USERS), "DURATION": f"{bench.seconds * 2:.0f}"}
            ours = common | {
                "BASE_URL": target.url,
                "API": "/api/images",
                "ONE_ID": str(image_id(0, ROWS_EACH // 2)),
                "SERVER_PID": str(target.pid),
            }
            # The peer's objects have their rows; so must our replicas, which the first read builds.
            await check(target.url, [Asked("/api/images?limit=20", user_name(user)) for user in range(USERS)], 200)
            theirs = common | {"BASE_URL": peer_url, "SERVER_PID": str(peer_pid)}
            bench_sh = str(bench.peer_dir / "bench.sh")
            rounds = [
                (_read(await output_of(["bash", bench_sh], theirs)), _read(await output_of(["bash", bench_sh], ours)))
                for _ in range(2 if bench.quick else 3)
            ]
    figures = []
    for what in rounds[0][0]:
        rps = [[side[what][0] for side in both] for both in zip(*rounds, strict=True)]
        p99 = [[side[what][1] for side in both] for both in zip(*rounds, strict=True)]
        cpu = [[side[what][2] for side in both] for both in zip(*rounds, strict=True)]
        figures += [
            at_least(f"{what}: rate", ratio(rps[1], rps[0]), 1.5, detail=beside(rps[1], rps[0], "/s")),
            at_most(f"{what}: p99", ratio(p99[1], p99[0]), 0.2, detail=beside(p99[1], p99[0], " ms")),
            fact(f"{what}: processor time", f"{shown(ratio(cpu[1], cpu[0]))} ×", beside(cpu[1], cpu[0], " µs")),
        ]
    return figures


def _read(said: str) -> Found:
    """Read what bench.sh writes; refuse a measurement in which something failed."""
    found: Found = {}
    for line in said.splitlines():
        if (match := _LINE.match(line)) is not None:
            if match["errors"] != "0":
                raise RuntimeError(f"there were errors: {line}")
            found[match["what"]] = (
                rate := float(match["rps"]),
                float(match["p99"]),
                float(match["cores"]) / rate * 1e6,
            )
    if not found:
        raise RuntimeError(f"bench.sh measured nothing: {said[-500:]}")
    return found


@asynccontextmanager
async def _peer(peer_dir: Path, folder: Path) -> AsyncIterator[tuple[str, int]]:
    """Run the peer on a free port, with its data in ``folder``."""
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port}"
    environment = {"LISTEN": address, "DATA_DIR": str(folder / "theirs"), "JWT_SECRET": SECRET}
    command = ["bash", str(peer_dir / "run.sh")]
    log = folder / "peer.log"
    async with running(command, environment, port=port, log=log, start_s=START_S) as pid:
        yield f"http://{address}", pid
