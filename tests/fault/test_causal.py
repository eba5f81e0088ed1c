"""I1, I2, I3, I5 over several nodes: whatever breaks, each client sees its user's rows, and never an older state.

Three nodes, each with its own data directory and its own connection to one Postgres. Clients write, sync, read and
listen on any of them, while nodes are killed and paused and their connections cut, stalled and left without an answer.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path

import pytest

from primary.declaration import Catalog
from primary.feed import Feed
from replica.verify import verify
from tests.support.causal import FRESH_S, History, install_witness, truth
from tests.support.crowd import FAULTS, Client, Listener, Node, Reader, Stranger, go_wrong, nodes, settled
from tests.support.http import execute

NODES = 3
USERS = ("ann", "bob", "cy")
QUIET = "dee"  # is written to past the nodes only: what they know of it, they know from the tail alone
SHORT_S, LONG_S = (0.1, 0.5), 3.0  # less and more than what following makes up for
SETTLE_S = 30  # on a busy machine; a connection that nobody answers is given up after 5 s


async def a_crowd_at_work(nodes: list[Node], database_url: str, seed: int, rounds: int) -> History:
    """Let clients work while each node suffers everything there is, so many times, in an order of its own."""
    rng = random.Random(seed)
    history = History()

    def chance() -> random.Random:
        return random.Random(rng.random())

    clients = [Client(name, user, nodes, history, chance()) for user in USERS for name in ("one", "two")]
    strangers = [Stranger(database_url, user, history, chance()) for user in (*USERS, QUIET)]
    listeners = [Listener(user, nodes, history, chance()) for user in USERS for _ in range(2)]
    readers = [Reader(user, nodes, history, chance()) for user in (*USERS, QUIET)]
    everyone: list[Client | Listener | Reader] = [*clients, *strangers, *listeners, *readers]
    async with asyncio.TaskGroup() as group:
        for each in everyone:
            group.create_task(each.run())
        async with asyncio.TaskGroup() as faults:
            for node in nodes:
                due: list[tuple[str, float]] = []
                for _ in range(rounds):
                    long = "stall" if node is nodes[0] else rng.choice(FAULTS)
                    order = rng.sample(FAULTS, len(FAULTS))
                    due += [(fault, LONG_S if fault == long else rng.choice(SHORT_S)) for fault in order]
                faults.create_task(go_wrong(node, due, chance()))
        await asyncio.sleep(0.5)  # some more work on nodes that are well
        for one in everyone:
            one.stop()
    return history


async def _converged(nodes: list[Node], database_url: str) -> None:
    """Check that every node comes to where the primary is, by itself, once the writes that were given up have ended."""
    async with asyncio.timeout(SETTLE_S):
        while True:
            began = await _heads(database_url)
            await asyncio.sleep(FRESH_S)  # what is not marked stale after that has everything
            found = [(node, user, await settled(node, user, SETTLE_S)) for node in nodes for user in (*USERS, QUIET)]
            if began == await _heads(database_url):
                break
    known = await truth(database_url)
    for node, user, (version, rows) in found:
        assert version.version == began[user], f"{user} on {node.name}"
        assert rows == known[user][version.version], f"{user} on {node.name}"


async def _heads(database_url: str) -> dict[str, int]:
    return dict(await execute(database_url, "SELECT user_id, version FROM tidepool.head"))


async def prove(folder: Path, database_url: str, catalog: Catalog, feed: Feed, seed: int, rounds: int) -> Counter[str]:
    """Do it, check what was seen, and give what there was of it."""
    await install_witness(database_url)
    async with nodes(folder, database_url, NODES) as crowd:
        history = await a_crowd_at_work(crowd, database_url, seed, rounds)
        violations = history.violations(await truth(database_url))
        assert not violations, "\n".join([f"{len(violations)} violations", *violations[:5]])
        await _converged(crowd, database_url)
        for node in crowd:
            assert await node.process.stop() == 0
            report = await verify(node.data_dir, feed, catalog)
            assert report.clean, (node.name, report.differing)
            assert report.users == len(USERS) + 1
    return history.counts


async def test_with_three_nodes_that_break_no_client_sees_an_older_state_or_another_users(
    data_dir: Path, database_url: str, catalog: Catalog, feed: Feed, seed: int
) -> None:
    counts = await prove(data_dir, database_url, catalog, feed, seed, rounds=1)
    # A test that cannot fail is a defect: it all happened, be the machine ever so busy.
    assert counts["write 201"] > 5
    assert counts["write by psql"] > 5
    assert counts["read"] > 20
    assert counts["event changes"] > 5


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("run", range(3))
async def test_for_minutes_no_client_sees_an_older_state_or_another_users(
    data_dir: Path, database_url: str, catalog: Catalog, feed: Feed, seed: int, run: int
) -> None:
    await prove(data_dir, database_url, catalog, feed, seed, rounds=8)
