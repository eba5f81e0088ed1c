"""More users than files may be open: each is read in turn, then again, then again after a write of each."""

from __future__ import annotations

import time

import httpx
import psycopg

from tests.benchmarks.bench import Bench
from tests.benchmarks.figures import Figure, at_most, fact, shown
from tests.benchmarks.process import Target, Usage, serving
from tests.support.server import token

TITLE = "Users read in turn, 128 replicas open at most"

USERS = 1_000
_USERS_QUICK = 300
OPEN_MAX = 128
_ROWS_EACH = 50
# A database, its log and the log's index, for the connection that reads and for the one that writes.
_FILES_EACH = 6
_LOOK_EVERY = 25

_FILL = """
INSERT INTO image (user_id, prompt, image_url)
SELECT 'user-' || n, 'amber basalt cedar dune ember fjord glacier harbor', 'https://images.example/amber.png'
FROM generate_series(1, %s) AS n, generate_series(1, %s)"""


async def measure(bench: Bench) -> list[Figure]:
    """Go round all users three times, looking at the process on the way."""
    users = _USERS_QUICK if bench.quick else USERS
    url = await bench.migrated("many_users")
    async with (
        await psycopg.AsyncConnection.connect(url, autocommit=True) as connection,
        serving(bench.folder / "many", url, replica_open_max=OPEN_MAX) as target,
        httpx.AsyncClient(base_url=target.url, timeout=30) as client,
    ):
        await connection.execute(_FILL, (users, _ROWS_EACH))
        start = target.usage()
        reader = _Reader(target, client, users)
        built_s = await reader.go_round(sync=False)
        after_first = reader.most
        opened_s = await reader.go_round(sync=False)
        await connection.execute(_FILL, (users, 1))
        synced_s = await reader.go_round(sync=True)
        most, last = reader.most, target.usage()
    files_max = start.files + OPEN_MAX * _FILES_EACH
    threads_max = start.threads + OPEN_MAX + 16
    return [
        at_most("errors", reader.errors, 0, "", f"of {reader.asked:,} requests by {users:,} users"),
        at_most("open files", most.files, files_max, "", f"{start.files} at start; 6 a replica that is open"),
        at_most("threads", most.threads, threads_max, "", f"{start.threads} at start; 1 a replica that was synced"),
        fact(
            "resident memory",
            f"{shown(most.rss_mib)} MiB",
            f"{shown(start.rss_mib)} at start, {shown(after_first.rss_mib)} after a round, {shown(last.rss_mib)} last",
        ),
        fact(
            "a read, one at a time",
            f"{shown(opened_s / users * 1e3)} ms",
            f"that opens a replica; {shown(built_s / users * 1e3)} ms builds it first, "
            f"{shown(synced_s / users * 1e3)} ms opens, syncs and reads",
        ),
    ]


class _Reader:
    """Reads every user's page in turn, and keeps the most that the process held."""

    def __init__(self, target: Target, client: httpx.AsyncClient, users: int) -> None:
        self._target = target
        self._client = client
        self._tokens = [token(f"user-{number}") for number in range(1, users + 1)]
        self.most = Usage(0, 0, 0)
        self.errors = 0
        self.asked = 0

    async def go_round(self, *, sync: bool) -> float:
        """Read each user once, after a sync if so asked; give the seconds."""
        began = time.perf_counter()
        for place, each in enumerate(self._tokens):
            headers = {"Authorization": f"Bearer {each}"}
            if sync:
                self._note(await self._client.post("/api/sync", headers=headers), "applied")
            self._note(await self._client.get("/api/images?limit=20", headers=headers), "image_url")
            if place % _LOOK_EVERY == 0:
                self._look()
        self._look()
        return time.perf_counter() - began

    def _note(self, answer: httpx.Response, contains: str) -> None:
        self.asked += 1
        self.errors += answer.status_code != 200 or contains not in answer.text

    def _look(self) -> None:
        now, most = self._target.usage(), self.most
        self.most = Usage(max(now.files, most.files), max(now.threads, most.threads), max(now.rss_mib, most.rss_mib))
