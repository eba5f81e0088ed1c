"""I6: with the primary down, reads go on; what needs it says so soon; when it is back, all is well by itself."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import sqlalchemy as sa

from primary.declaration import Catalog
from primary.embedded import EmbeddedPostgres
from primary.errors import PrimarySlow, PrimaryUnavailable
from primary.gallery import images
from primary.gallery.records import NewImage
from primary.migrate import migrate
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from primary.write import writing
from replica.errors import ReplicaUnavailable
from tests.support.bay import Bay, opened
from tests.support.databases import through
from tests.support.http import execute
from tests.support.proxy import PostgresProxy
from tests.support.replicas import change, grow, held, truth

ROWS = 50
ANSWER_S = 1.0
"""How long the engine waits for an answer in these tests."""
SOON_S = 2.0
"""In which time whoever asks for something that needs the primary is to be told that it cannot be had."""


Refused = type[PrimaryUnavailable] | type[ReplicaUnavailable]


async def _soon(work: Awaitable[Any], *expected: Refused, within_s: float = SOON_S) -> None:
    """Check that ``work`` raises one of those within the time, with a hint."""
    begun = time.monotonic()
    with pytest.raises(expected) as raised:
        async with asyncio.timeout(30):
            await work
    assert time.monotonic() - begun < within_s
    assert raised.value.hint


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def _back(primary: Primary) -> None:
    """Ping, as a server's probe does, until Postgres answers."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await primary.ping()
            except PrimaryUnavailable:
                await asyncio.sleep(0.05)


# ------------------------------------------------------------- Postgres stops


@pytest.fixture
async def stoppable(own_postgres: EmbeddedPostgres, catalog: Catalog) -> AsyncIterator[Bay]:
    primary = Primary(own_postgres.url)
    await primary.open()
    try:
        await migrate(primary, catalog)
        async with opened(primary, catalog, PostgresFeed(primary, catalog)) as bay:
            yield bay
    finally:
        await primary.close()


async def test_reads_go_on_while_postgres_is_stopped_and_all_recovers(
    stoppable: Bay, own_postgres: EmbeddedPostgres
) -> None:
    bay = stoppable
    for user in ("ann", "bob", "cy"):
        await grow(bay.primary, user, ROWS)
        await bay.store.sync(user)
    expected = {user: await truth(bay.primary, bay.catalog, user) for user in ("ann", "bob", "cy")}
    await bay.reopen()  # bob's and cy's files are closed when Postgres goes
    await held(bay.store, "ann")
    await own_postgres.stop()

    for _ in range(2):
        assert await held(bay.store, "ann") == expected["ann"]
        await _soon(bay.store.sync("ann"), PrimaryUnavailable)
        assert not bay.primary.reachable
    assert await held(bay.store, "bob") == expected["bob"], "a closed replica can be opened"
    await _soon(held(bay.store, "new"), PrimaryUnavailable)
    await _soon(bay.store.sync("new"), PrimaryUnavailable)
    with bay.directory.of("cy").database.open("ab") as file:
        file.write(b"more")
    await _soon(held(bay.store, "cy"), ReplicaUnavailable)
    await _soon(held(bay.store, "cy"), ReplicaUnavailable, PrimaryUnavailable)
    await _soon(bay.primary.ping(), PrimaryUnavailable)
    await _soon(grow(bay.primary, "ann", 1), PrimaryUnavailable)
    await asyncio.gather(*(_soon(bay.store.sync(f"user {n}"), PrimaryUnavailable) for n in range(30)))
    await bay.reopen()  # a node that starts meanwhile serves what it has
    assert await held(bay.store, "ann") == expected["ann"]

    await own_postgres.start()
    await _back(bay.primary)
    assert bay.primary.reachable
    for user in ("ann", "bob", "cy", "new"):
        await change(bay.primary, user)
        await bay.store.sync(user)
    await bay.assert_same("ann", "bob", "cy", "new")
    assert bay.store.counts().rebuilds == 2, "of the damaged one and of the new one"


async def test_who_asks_after_a_restart_of_postgres_does_not_pay_for_the_connections_that_it_ended(
    stoppable: Bay, own_postgres: EmbeddedPostgres
) -> None:
    """Nobody asked while it was away, so nobody knows."""
    primary = stoppable.primary
    async with AsyncExitStack() as stack:
        for _ in range(10):
            await stack.enter_async_context(primary.connection())
    await own_postgres.stop()
    await own_postgres.start()
    await asyncio.gather(*(change(primary, f"user {n}") for n in range(10)))
    assert primary.reachable


async def test_syncs_go_on_by_themselves_over_restarts_of_postgres(
    stoppable: Bay, own_postgres: EmbeddedPostgres
) -> None:
    """Nothing is reopened; a probe pings, users write and sync all the while, and no change is lost."""
    bay = stoppable
    await grow(bay.primary, "ann", ROWS)
    stop = False
    done = failed = 0

    async def probe() -> None:
        while not stop:
            await asyncio.gather(bay.primary.ping(), return_exceptions=True)
            await asyncio.sleep(0.05)

    async def work(user: str) -> None:
        nonlocal done, failed
        while not stop:
            try:
                await change(bay.primary, user)
                await bay.store.sync(user)
                done += 1
            except PrimaryUnavailable:
                failed += 1
                await asyncio.sleep(0.02)

    tasks = [asyncio.create_task(task) for task in (probe(), work("ann"), work("bob"), work("ann"))]
    for _ in range(2):
        reached = done
        await _until(lambda reached=reached: done > reached + 5)  # type: ignore[misc]
        await own_postgres.stop()
        reached = failed
        await _until(lambda reached=reached: failed > reached + 2)  # type: ignore[misc]
        await own_postgres.start()
    reached = done
    await _until(lambda: done > reached + 5)
    stop = True
    await asyncio.gather(*tasks)
    for user in ("ann", "bob"):
        await bay.store.sync(user)
    await bay.assert_same("ann", "bob")
    assert bay.store.counts().doubts == 0


# ------------------------------------------------------------- the network breaks


@pytest.fixture
async def remote(proxy: PostgresProxy, catalog: Catalog, primary: Primary) -> AsyncIterator[Bay]:
    """A bay that pulls through the proxy; ``primary`` goes past it."""
    async with through(proxy.url, connect_timeout_s=2, answer_timeout_s=ANSWER_S) as far:
        try:
            async with opened(far, catalog, PostgresFeed(far, catalog)) as bay:
                await grow(primary, "ann", ROWS)
                await bay.store.sync("ann")
                yield bay
        finally:
            await proxy.resume()


async def _broken(proxy: PostgresProxy, how: str) -> None:
    if how == "stall":
        proxy.stall()
    else:
        await getattr(proxy, how)()


@pytest.mark.parametrize("how", ["cut", "stall", "deafen"])
async def test_a_broken_network_is_told_soon_and_is_healed_by_itself(
    remote: Bay, primary: Primary, proxy: PostgresProxy, how: str
) -> None:
    expected = await truth(primary, remote.catalog, "ann")
    await _broken(proxy, how)
    await _soon(remote.store.sync("ann"), PrimaryUnavailable, within_s=3 * SOON_S)
    assert not remote.primary.reachable or how == "deafen"
    assert await held(remote.store, "ann") == expected
    await _soon(held(remote.store, "new"), PrimaryUnavailable, within_s=3 * SOON_S)
    await proxy.resume()
    await _back(remote.primary)
    await change(primary, "ann")
    async with asyncio.timeout(10):
        await remote.store.sync("ann")
    assert await held(remote.store, "ann") == await truth(primary, remote.catalog, "ann")


@pytest.mark.parametrize("how", ["cut", "stall"])
@pytest.mark.parametrize("kind", ["build", "apply"])
async def test_a_pull_that_breaks_off_in_the_middle_leaves_nothing_half(
    remote: Bay, primary: Primary, proxy: PostgresProxy, how: str, kind: str
) -> None:
    """Thousands of rows are on their way when the network goes."""
    old = await truth(primary, remote.catalog, "ann")
    user = "ann" if kind == "apply" else "bob"
    await grow(primary, user, 10_000)
    rng = random.Random(7)
    sync = asyncio.create_task(remote.store.sync(user))
    if kind == "build":
        await _until(lambda: any(remote.directory.building.iterdir()))
    else:
        await _until(lambda: "apply.begun" in remote.passed)
    await asyncio.sleep(rng.random() * 0.02)
    await _broken(proxy, how)
    await _soon(sync, PrimaryUnavailable, within_s=3 * SOON_S)
    assert not remote.left_behind()
    assert await held(remote.store, "ann") == old
    await proxy.resume()
    await _back(remote.primary)
    await remote.store.sync(user)
    assert await held(remote.store, user) == await truth(primary, remote.catalog, user)


@pytest.mark.parametrize("how", ["cut", "stall"])
async def test_a_network_that_breaks_when_all_was_read_undoes_nothing(
    remote: Bay, primary: Primary, proxy: PostgresProxy, how: str
) -> None:
    """The pull's snapshot is let go after the rows were applied; that this fails is no failure of the sync."""
    loop = asyncio.get_running_loop()

    def passing(point: str) -> None:
        if point in {"apply.rows", "build.rows"}:
            asyncio.run_coroutine_threadsafe(_broken(proxy, how), loop)

    for user in ("ann", "new"):
        await change(primary, user)
        remote.passing = passing
        async with asyncio.timeout(3 * SOON_S):
            await asyncio.gather(remote.store.sync(user), return_exceptions=True)
        remote.passing = lambda point: None
        assert await held(remote.store, user) == await truth(primary, remote.catalog, user)
        await proxy.resume()
        await _back(remote.primary)


async def test_a_stalled_pull_does_not_keep_others_from_their_replicas(
    remote: Bay, primary: Primary, proxy: PostgresProxy
) -> None:
    await grow(primary, "bob", ROWS)
    await remote.store.sync("bob")
    proxy.stall()
    pulls = [asyncio.create_task(remote.store.sync(user)) for user in ("ann", "new", "newer")]
    await asyncio.sleep(0.05)
    async with asyncio.timeout(0.3):
        assert await held(remote.store, "bob") == await truth(primary, remote.catalog, "bob")
        await held(remote.store, "ann")
    for pull in pulls:
        await _soon(pull, PrimaryUnavailable, within_s=3 * SOON_S)


# ------------------------------------------------------------- it takes long, and is there


SLOWLY = (
    "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN NEW; END'",
    "CREATE TRIGGER slowly BEFORE INSERT ON image FOR EACH ROW EXECUTE FUNCTION slowly()",
)


async def test_what_takes_too_long_is_given_up_and_is_no_outage(primary: Primary, catalog: Catalog) -> None:
    """Else one request that asks for much would have everybody's refused."""
    async with (
        through(primary.url, answer_timeout_s=0.3) as near,
        opened(near, catalog, PostgresFeed(near, catalog)) as bay,
    ):
        await grow(primary, "ann", ROWS)
        await bay.store.sync("ann")
        for statement in SLOWLY:
            await execute(primary.url, statement)
        with pytest.raises(PrimarySlow):
            async with writing(near, "ann") as write:
                await images.create(write, NewImage(prompt="a pool", image_url="https://images.example/1.png"))
        assert near.reachable
        with pytest.raises(PrimarySlow):
            async with near.transaction() as connection:
                await connection.execute(sa.text("SELECT pg_sleep(60)"))
        assert near.reachable
        await bay.assert_same("ann")
        asleep = "SELECT query FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
        assert await execute(primary.url, asleep) == []
