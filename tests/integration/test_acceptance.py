"""The whole of it, as people use it: a running program, its command line, HTTP, and SQL behind its back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from replica.library import connect
from replica.location import DataDirectory
from tests.support.forked import forked
from tests.support.server import SECRET, ServerProcess

MANY = 100_000
FEW = 1_000
OTHERS = 50


@pytest.fixture
async def program(data_dir: Path, database_url: str) -> AsyncIterator[ServerProcess]:
    process = ServerProcess(data_dir, database_url, {})
    await process.start()
    try:
        yield process
    finally:
        assert await process.stop() == 0


class Commands:
    """`tidepool` in a shell, with the settings of the running program."""

    def __init__(self, data_dir: Path, database_url: str) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("TIDEPOOL_")}
        settings = {"DATA_DIR": str(data_dir), "DATABASE_URL": database_url, "JWT_SECRET": SECRET}
        self._environment = clean | {f"TIDEPOOL_{name}": value for name, value in settings.items()}

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Run a command to its end; give its exit code, and all that it printed."""
        process = await forked("gateway.cli", arguments, self._environment, stdout=True)
        out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, (out + err).decode()


def write_records(path: Path, user: str, count: int) -> None:
    """Write JSON Lines as a generator's export looks: most fields given, some not, some strange."""
    with path.open("w") as file:
        for n in range(count):
            record: dict[str, Any] = {
                "prompt": f"{user} no. {n}: a tide pool, amber light, {'🌊 ' if n % 7 == 0 else ''}35mm",
                "image_url": f"https://images.example/{user}/{n}.png",
                "seed": n * 7_919,
                "created_at": f"2024-{n % 12 + 1:02}-{n % 28 + 1:02}T{n % 24:02}:{n % 60:02}:00Z",
            }
            if n % 2:
                record |= {"model": "sdxl-1.0", "steps": 30, "width": 1_024, "height": 1_024}
            if n % 5 == 0:
                record["meta"] = {"sampler": "Euler a", "cfg": 7.5, "n": n}
            file.write(json.dumps(record) + "\n")


async def all_pages(client: httpx.AsyncClient, limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        answer = await client.get("/api/images", params={"limit": limit} | ({"cursor": cursor} if cursor else {}))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        found += page["images"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


# Each is one transaction, as someone types it into psql: edits, deletes, a new owner, and some of it in bulk.
BY_HAND = [
    "UPDATE image SET prompt = 'edited in psql' WHERE user_id = 'user 1' AND seed = 7919",
    "UPDATE image SET description = 'all of them' WHERE user_id = 'user 2'",
    "DELETE FROM image WHERE user_id = 'user 3' AND seed % 2 = 0",
    "DELETE FROM image WHERE user_id = 'user 4'",
    "UPDATE image SET user_id = 'user 6' WHERE user_id = 'user 5' AND seed < 7919 * 100",
    "UPDATE image SET user_id = 'somebody new' WHERE user_id = 'user 7'",
    "UPDATE image SET meta = meta || '{\"bulk\": true}' WHERE user_id = 'many' AND seed % 10 = 3",
    "DELETE FROM image WHERE user_id = 'many' AND seed % 10 = 7",
    "INSERT INTO image (user_id, prompt, image_url) SELECT 'many', 'SQL ' || i, 'u' FROM generate_series(1, 500) AS i",
    """INSERT INTO image_activity (user_id, image_id, is_favorite)
    SELECT user_id, id, true FROM image WHERE user_id = 'user 8'""",
    "INSERT INTO profile (user_id, username) SELECT DISTINCT user_id, upper(user_id) FROM image",
    "UPDATE image SET id = gen_random_uuid() WHERE user_id = 'user 9' AND seed < 7919 * 10",
    """WITH moved AS (DELETE FROM image WHERE user_id = 'user 10' RETURNING prompt, image_url)
    INSERT INTO image (user_id, prompt, image_url) SELECT 'user 11', prompt, image_url FROM moved""",
]


@pytest.mark.timeout(300)  # 150,000 rows, through every part
async def test_from_an_import_through_edits_by_hand_to_a_clean_verify(
    program: ServerProcess, data_dir: Path, database_url: str, tmp_path: Path
) -> None:
    tidepool = Commands(data_dir, database_url)
    users = ["many", *(f"user {n}" for n in range(OTHERS))]
    clients = {user: program.client(user) for user in [*users, "somebody new"]}

    # Import, with the server running: one large, and beside it fifty others.
    files = {user: str(tmp_path / f"{user}.jsonl") for user in users}
    for user, file in files.items():
        write_records(Path(file), user, MANY if user == "many" else FEW)

    async def import_others() -> None:
        for user in users[1:]:
            code, told = await tidepool.run("import", files[user], "--user", user)
            assert (code, f"{FEW:,} saved" in told) == (0, True), told

    (code, told), _ = await asyncio.gather(
        tidepool.run("import", files["many"], "--user", "many"),
        import_others(),
    )
    assert (code, f"{MANY:,} saved" in told) == (0, True), told
    code, told = await tidepool.run("import", files["user 0"], "--user", "user 0")
    assert (code, f"0 saved, {FEW:,} were there already" in told) == (0, True), told

    # Read over HTTP: whoever was not seen before gets all there is; pages hold every image once.
    for user in ("user 0", "user 49"):
        found = await all_pages(clients[user], 100)
        assert len({image["id"] for image in found}) == len(found) == FEW
        assert sorted(image["seed"] for image in found) == [n * 7_919 for n in range(FEW)]
        assert all(image["prompt"].startswith(f"{user} no. ") for image in found)
        newest_first = sorted(found, key=lambda image: (image["created_at"], image["id"]), reverse=True)
        assert found == newest_first
    answer = await clients["many"].get("/api/images?limit=500")
    assert answer.status_code == 200, answer.text
    first = answer.json()
    assert (len(first["images"]), first["next_cursor"] is not None) == (500, True)
    assert (await clients["many"].get("/api/me")).json()["replica"]["rows"]["image"] == MANY

    async def sync(user: str) -> int:
        answer = await clients[user].post("/api/sync")
        assert answer.status_code == 200, answer.text
        applied: int = answer.json()["applied"]
        return applied

    for user in users:
        await sync(user)

    # Edit and delete behind its back, then sync all.
    async with await psycopg.AsyncConnection.connect(database_url) as psql:
        for statement in BY_HAND:
            await psql.execute(statement.encode())
            await psql.commit()
    applied = dict(zip(users, await asyncio.gather(*(sync(user) for user in users)), strict=True))
    assert applied["user 1"] == 3  # an image, what it was before, and the profile
    assert applied["user 2"] == 2 * FEW + 1
    assert applied["user 12"] == 1
    assert applied["many"] <= MANY // 10 * 3 + 500 + 1  # who was read is followed: some may have been there already
    rows_of_many = (await clients["many"].get("/api/me")).json()["replica"]["rows"]
    assert (rows_of_many["image"], rows_of_many["profile"]) == (MANY - MANY // 10 + 500, 1)
    assert await all_pages(clients["user 4"], 500) == []
    assert len(await all_pages(clients["user 6"], 500)) == FEW + 100
    assert len(await all_pages(clients["somebody new"], 500)) == FEW
    assert len(await all_pages(clients["user 11"], 500)) == 2 * FEW
    assert all(image["is_favorite"] for image in await all_pages(clients["user 8"], 500))

    # Over HTTP too.
    saved = (await clients["user 0"].post("/api/images", json={"prompt": "by HTTP", "image_url": "u"})).json()
    await clients["user 0"].patch(f"/api/images/{saved['id']}", json={"seed": 1})
    await clients["user 0"].delete(f"/api/images/{saved['id']}")
    await sync("user 0")

    # All are the same as the primary, and verify says what it has looked at.
    images = MANY - MANY // 10 + 500 + OTHERS * FEW - FEW // 2 - FEW
    rows = images + FEW + OTHERS  # the activity of user 8, and a profile for each who had images left
    rows += MANY // 10 + FEW + 1  # what many, user 2 and user 1 had edited of them
    code, told = await tidepool.run("verify")
    assert code == 0, told
    assert "all are as in the primary" in told
    assert f"{len(clients)}" in told
    assert f"{rows:,}" in told, told

    # A row that someone changes in a replica, behind the server's back, is found and named.
    location = DataDirectory(data_dir).of("user 20")
    with closing(connect(location.uri("rw"))) as replica:
        id_ = replica.execute("SELECT id FROM image WHERE seed = 7919 * 5").get
        replica.execute("UPDATE image SET prompt = 'a lie' WHERE id = ?", [id_])
    code, told = await tidepool.run("verify")
    assert code == 1, told
    assert f"user 20: image ('{id_}',): differs in prompt" in told, told
    assert "tidepool rebuild" in told
    code, told = await tidepool.run("verify", "--user", "user 21")
    assert code == 0, told

    # It is made anew while the server runs, which never serves the lie.
    code, told = await tidepool.run("rebuild", "user 20")
    assert code == 0, told
    found = await all_pages(clients["user 20"], 500)
    assert len(found) == FEW
    assert not any(image["prompt"] == "a lie" for image in found)
    code, told = await tidepool.run("verify")
    assert code == 0, told
    assert f"{rows:,}" in told, told
    assert (await clients["many"].get("/health/ready")).status_code == 200
    for client in clients.values():
        await client.aclose()
