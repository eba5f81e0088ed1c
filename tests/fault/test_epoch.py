"""I3, I4: another primary in the place of the one before, which gives out its versions again: never a wrong row.

Real base backups, a real standby and its promotion, a real recovery. What there was at each version, in the one history
and in the other, is told by a witness in Postgres itself (tests.support.causal).
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.settings import Settings
from primary.cursor import Cursor
from tests.support.backup import Backup, backup_of
from tests.support.causal import Rows, Truth, install_witness, truth
from tests.support.http import assert_problem, execute
from tests.support.proxy import PostgresProxy
from tests.support.server import running
from tests.support.sse import listening

WITHIN_S = 15
Known = dict[str, Truth]
"""By epoch, what there was."""


async def write(url: str, count: int, what: str, user: str = "alice") -> None:
    """Write so many images as psql does, each in a transaction of its own."""
    for number in range(count):
        await execute(
            url,
            "INSERT INTO image (user_id, prompt, image_url) VALUES (%s, %s, 'https://images.example/1.png')",
            user,
            f"{what} {number}",
        )


async def look(client: httpx.AsyncClient, **headers: str) -> tuple[Cursor, Rows]:
    answer = await client.get("/api/images", params={"limit": 500}, headers=headers)
    assert answer.status_code == 200, answer.text
    rows = {image["id"]: image["prompt"] for image in answer.json()["images"]}
    return Cursor.parse(answer.headers["x-replica-version"]), rows


async def moved_on(client: httpx.AsyncClient, known: Known, epoch: str) -> None:
    """Read until the node has found the other primary; each answer is right for the one that it names."""
    async with asyncio.timeout(WITHIN_S):
        while True:
            cursor, rows = await look(client)
            assert rows == known[cursor.epoch]["alice"][cursor.version], f"at {cursor}"
            if cursor.epoch == epoch:
                return
            await asyncio.sleep(0.01)


async def epoch_of(url: str) -> str:
    from primary.postgres import EPOCH_SQL

    return str((await execute(url, f"SELECT {EPOCH_SQL}"))[0][0])


async def make_standby_primary(backup: Backup, url: str) -> None:
    await backup.start_as_standby(streaming=True)
    await write(url, 2, "kept")
    await backup.caught_up()
    await backup.promote()


async def make_late_standby_primary(backup: Backup, url: str) -> None:
    await backup.start_as_standby(streaming=False)
    await write(url, 2, "lost")
    await backup.promote()


async def restore(backup: Backup, url: str) -> None:
    await write(url, 2, "lost")
    await backup.start_restored()


@pytest.mark.parametrize("replaced", [make_standby_primary, make_late_standby_primary, restore])
async def test_another_primary_is_noticed_by_itself_and_no_row_of_the_one_before_outlives_it(
    proxy: PostgresProxy, database_url: str, data_dir: Path, replaced: Any
) -> None:
    await install_witness(database_url)
    await write(database_url, 2, "old")
    settings = Settings(data_dir=data_dir, database_url=proxy.url)
    async with running(settings) as node, backup_of(database_url) as backup:
        client = node.client("alice")
        async with listening(node.client("alice"), changes="true") as stream:
            began = await stream.next()
            await replaced(backup, database_url)
            old, _ = await look(client, **{"X-Min-Version": await head(database_url)})
            await stream.until(str(old))
            assert old.version == Cursor.parse(began.data["version"]).version + 2
            await write(backup.url, 3, "new")  # past the versions that were given out before
            known = {
                old.epoch: await truth(database_url),
                (epoch := await epoch_of(backup.url)): await truth(backup.url),
            }
            assert epoch != old.epoch
            await proxy.lead_to(backup.url)
            moving = asyncio.create_task(moved_on(client, known, epoch))
            reset = await stream.next(WITHIN_S)
            assert (reset.name, Cursor.parse(reset.data["version"]).epoch) == ("reset", epoch)
            await moving
            assert_problem(
                await client.get("/api/images", headers={"X-Min-Version": str(old)}), 409, "cursor_epoch_changed"
            )
            # From there on it goes on as ever.
            await write(backup.url, 1, "newer")
            assert (await stream.next(WITHIN_S)).name == "changes"
            assert "newer 0" in (await look(client))[1].values()
    # So for a node that was not there when it happened, and for a client that connects anew with what it has.
    async with running(Settings(data_dir=data_dir, database_url=database_url)) as node:
        cursor, rows = await look(node.client("alice"))
        assert (cursor.epoch, rows) == (old.epoch, known[old.epoch]["alice"][cursor.version])
        async with listening(node.client("alice"), last_event_id=reset.id) as stream:
            assert (await stream.next()).name == "reset"


async def start_in_place(backup: Backup, url: str) -> None:
    await write(url, 2, "lost")
    await backup.start_in_place()


@pytest.mark.parametrize("new", [1, 2, 3], ids=["behind", "level", "past"])
async def test_a_backup_that_was_started_as_it_is_is_noticed_though_its_epoch_is_the_same(
    proxy: PostgresProxy, database_url: str, data_dir: Path, new: int
) -> None:
    await install_witness(database_url)
    await write(database_url, 2, "old")
    async with running(Settings(data_dir=data_dir, database_url=proxy.url)) as node, backup_of(database_url) as backup:
        client = node.client("alice")
        async with listening(node.client("alice"), changes="true") as stream:
            await write(database_url, 2, "lost", user="bob")  # the log of a primary grows by what all users write
            await start_in_place(backup, database_url)
            await stream.until(lost := await head(database_url))
            await write(backup.url, new, "new")
            await proxy.lead_to(backup.url)
            reset = await stream.next(WITHIN_S)
            assert (reset.name, reset.id) == ("reset", now := await head(backup.url))
            assert Cursor.parse(now).epoch == Cursor.parse(lost).epoch
            cursor, rows = await look(client)
            assert str(cursor) == now
            assert rows == (await truth(backup.url))["alice"][cursor.version]


async def head(url: str, user: str = "alice") -> str:
    """Give the cursor of a user."""
    ((version,),) = await execute(url, "SELECT version FROM tidepool.head WHERE user_id = %s", user)
    return str(Cursor(await epoch_of(url), version))
