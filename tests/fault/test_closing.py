"""The end of a store: orderly, soon, and for good."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import apsw
import pytest

from primary.declaration import Catalog
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from replica import seal, tasks
from replica.errors import DataDirectoryLocked, ReplicaUnavailable
from replica.slots import Slot
from replica.store import Store
from tests.support.bay import Bay
from tests.support.open_files import open_files
from tests.support.proxy import PostgresProxy
from tests.support.replicas import change, count_images, grow


async def test_closing_under_load_is_orderly(bay: Bay) -> None:
    users = [f"user {n}" for n in range(6)]
    for user in users:
        await grow(bay.primary, user, 30)
        await bay.store.sync(user)
    threads = set(threading.enumerate())
    refused = asyncio.Event()
    worked = 0

    async def client(user: str) -> None:
        nonlocal worked
        while True:
            try:
                await change(bay.primary, user, rows=1)
                await bay.store.sync(user)
                await bay.store.read(user, count_images)
                worked += 1
            except ReplicaUnavailable:
                refused.set()
                return

    clients = [asyncio.create_task(client(user)) for user in users for _ in range(2)]
    while worked < 10:
        await asyncio.sleep(0.005)
    async with asyncio.timeout(20):
        await bay.close()
    assert not open_files(bay.directory.root)
    left = [thread for thread in set(threading.enumerate()) - threads if not thread.name.startswith("asyncio_")]
    for thread in left:  # one that has answered its last call may still be on its way out
        thread.join(5)
    assert not [thread.name for thread in left if thread.is_alive()]
    assert not any(thread.name.startswith("reads-") for thread in threading.enumerate())
    assert not [*bay.directory.replicas.rglob("*-wal")], "every log was taken in"
    async with asyncio.timeout(20):
        await asyncio.gather(*clients)
    assert refused.is_set()
    await bay.open()
    for user in users:
        await bay.store.sync(user)
    await bay.assert_same(*users)
    assert bay.store.counts().doubts == 0
    assert bay.store.counts().rebuilds == 0


async def test_a_store_that_is_closed_refuses_and_does_not_hang(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await bay.close()
    async with asyncio.timeout(5):
        for asked in (
            bay.store.read("ann", count_images),
            bay.store.sync("ann"),
            bay.store.cursor("ann"),
            bay.store.rebuild("bob"),
            bay.store.describe("ann"),
        ):
            with pytest.raises(ReplicaUnavailable):
                await asked
    await bay.open()


async def test_a_store_that_is_closing_refuses_too_and_has_the_directory_to_the_end(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    async with bay.store._slot("ann").lock:  # as while something is done with it
        closing = asyncio.create_task(bay.close())
        await asyncio.sleep(0)
        assert bay.store.counts().open_replicas == 1
        with pytest.raises(ReplicaUnavailable):
            await bay.store.cursor("ann")
        with pytest.raises(DataDirectoryLocked):
            await Store(bay.directory.root, bay.catalog, bay.feed).open()
    await closing
    await bay.open()
    await bay.assert_same("ann")


async def test_closing_does_not_wait_for_a_primary_that_does_not_answer(bay: Bay) -> None:
    await grow(bay.primary, "ann", 3)
    bay.feed.gate.clear()
    waiting = asyncio.create_task(bay.store.sync("ann"))
    await bay.feed.looked(1)
    async with asyncio.timeout(5):
        await bay.close()
        with pytest.raises(ReplicaUnavailable):
            await waiting
    assert not bay.left_behind()
    bay.feed.gate.set()
    await bay.open()
    await bay.assert_same("ann")


async def test_closing_is_not_held_up_by_a_dead_link(proxy: PostgresProxy, catalog: Catalog, data_dir: Path) -> None:
    primary = Primary(proxy.url)
    await primary.open()
    try:
        store = Store(data_dir, catalog, PostgresFeed(primary, catalog))
        await store.open()
        await store.sync("ann")
        proxy.stall()
        syncing = [asyncio.create_task(store.sync(user)) for user in ("ann", "bob")]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(4):
            await store.close()
        for each in syncing:
            with pytest.raises(ReplicaUnavailable):
                await each
    finally:
        await proxy.resume()
        await primary.close()


async def _last_stage(bay: Bay, statements: list[str], calls: Callable[[], object]) -> Coroutine[Any, Any, None]:
    """Sync ann; give a last stage of her replica, of these statements, in which ``calls()`` is called."""
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    slot = bay.store._slot("ann")
    replica = slot.replica
    assert replica is not None

    def prepare(connection: apsw.Connection) -> None:
        connection.create_scalar_function("calls", lambda *_: calls(), 0)

    writer = await replica._begin_writing()
    await writer.run(prepare)
    await replica._end_writing()
    replica.unfinished = statements
    return bay.store._open._finish(slot)


async def test_closing_does_not_wait_until_a_long_stage_is_done(bay: Bay) -> None:
    loop, begun = asyncio.get_running_loop(), asyncio.Event()
    long = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 50000000) SELECT "
    endless = f"CREATE TABLE endless AS {long} CASE WHEN i = 1000 THEN calls() END FROM n"
    finishing = await _last_stage(bay, [endless], lambda: str(loop.call_soon_threadsafe(begun.set)))
    bay.store._tasks.start(finishing)
    await begun.wait()
    async with asyncio.timeout(4):
        await bay.close()
    await bay.open()
    await bay.assert_same("ann")
    assert bay.store.counts().rebuilds == 0, "what was begun was taken back, and the file sealed"


async def test_what_comes_to_its_end_though_it_was_broken_off_is_sealed(bay: Bay) -> None:
    """An interrupt between two statements stops neither: the file may change for as long as the thread is at it."""
    loop, begun, left = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hesitate() -> None:
        loop.call_soon_threadsafe(begun.set)
        left.wait(10)
        time.sleep(0.2)  # nobody waits for it: the file is sealed meanwhile, and written then

    finishing = asyncio.create_task(await _last_stage(bay, ["SELECT calls()", "CREATE TABLE late (a)"], hesitate))
    await begun.wait()
    finishing.cancel()
    left.set()
    await asyncio.wait([finishing])
    replica = bay.store._slot("ann").replica
    assert replica is not None
    assert replica._writer is not None
    await replica._writer.run(_tables)  # it has come to its end
    await bay.reopen()
    bay.feed.away = True
    await bay.assert_same("ann")
    assert "late" in (await bay.store.read("ann", _tables)).value, "it was not stopped"
    assert bay.store.counts().doubts == 0


def _tables(connection: apsw.Connection) -> set[str]:
    return {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}


async def test_a_file_that_is_being_closed_for_another_is_closed_though_that_is_broken_off(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its writing thread would keep the process from ending, and nobody would take its log in and seal that."""
    monkeypatch.setattr(tasks, "CLOSE_GRACE_S", 0.0)
    loop, begun, left = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    slot = bay.store._slot("ann")
    writing = {thread for thread in threading.enumerate() if "_connection_worker" in thread.name}
    assert writing

    def wait(_: apsw.Connection) -> None:
        loop.call_soon_threadsafe(begun.set)
        left.wait(10)

    reading = asyncio.create_task(bay.store.read("ann", wait, long=True))
    await begun.wait()
    making_room = bay.store._tasks.start(_closing(bay, slot))
    while slot.replica is not None:
        await asyncio.sleep(0)
    closing = asyncio.create_task(bay.close())
    while not making_room.cancelling():
        await asyncio.sleep(0)
    left.set()
    async with asyncio.timeout(10):
        await asyncio.gather(closing, reading)
    for thread in writing:
        thread.join(5)
    assert not any(thread.is_alive() for thread in writing)
    await bay.open()
    bay.feed.away = True
    await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0


async def test_a_file_that_was_put_in_its_place_is_sealed_though_that_is_broken_off(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the data directory would be another's before this process is done with it."""
    monkeypatch.setattr(tasks, "CLOSE_GRACE_S", 0.0)
    loop, begun, left = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def hesitate(point: str) -> None:
        if point == "build.renamed":
            loop.call_soon_threadsafe(begun.set)
            left.wait(10)
            time.sleep(0.2)

    await grow(bay.primary, "ann", 3)
    bay.passing = hesitate
    syncing = asyncio.create_task(bay.store.sync("ann"))
    await begun.wait()
    (task,) = bay.store._tasks._tasks
    closing = asyncio.create_task(bay.close())
    while not task.cancelling():
        await asyncio.sleep(0)
    left.set()
    async with asyncio.timeout(10):
        await closing
    assert "build.sealed" in bay.passed
    with pytest.raises(ReplicaUnavailable):
        await syncing
    await bay.open()
    bay.feed.away = True
    await bay.assert_same("ann")
    assert bay.store.counts().doubts == 0


async def _closing(bay: Bay, slot: Slot) -> None:
    async with slot.lock:
        await bay.store._open.close(slot)


async def test_a_seal_is_written_though_who_waits_for_it_is_broken_off(
    bay: Bay, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, begun, write = asyncio.get_running_loop(), asyncio.Event(), seal.write
    await grow(bay.primary, "ann", 3)
    await bay.store.sync("ann")
    await change(bay.primary, "ann")
    await bay.store.sync("ann")
    replica = bay.store._slot("ann").replica
    assert replica is not None

    def hesitate(*given: Any) -> None:
        loop.call_soon_threadsafe(begun.set)
        time.sleep(0.2)
        write(*given)

    with monkeypatch.context() as patched:
        patched.setattr(seal, "write", hesitate)
        checkpoint = asyncio.create_task(replica.checkpoint())
        await begun.wait()
        checkpoint.cancel()
        await asyncio.wait([checkpoint])
    assert checkpoint.cancelled()
    assert seal.holds(replica.location, seal.look(replica.location))
    await bay.assert_same("ann")
