"""I1, I2, I7 of the gallery's own writes: after any of them, in any order, a replica shows what a plain model does."""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from pathlib import Path
from uuid import uuid4

import pytest

from primary.gallery import upstreams
from primary.gallery.errors import NotFound
from primary.gallery.tables import catalog, metadata
from primary.once import Asked, Given, once
from primary.postgres import Primary
from primary.write import Write, writing
from replica.results import StoreLimits
from replica.store import Store
from tests.support.gallery_model import Model, shown
from tests.support.http import execute
from tests.support.oracle import Oracle

USERS = ["ada", "grace"]


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A new one each time, told where the test fails; TIDEPOOL_TEST_SEED repeats one."""
    seed = int(os.environ.get("TIDEPOOL_TEST_SEED") or random.randrange(10**9))
    request.node.add_report_section("setup", "seed", f"TIDEPOOL_TEST_SEED={seed}")
    return seed


async def live(primary: Primary, store: Store, oracle: Oracle, user: str, model: Model, steps: int) -> Counter[str]:
    """Do things at random, some of them asked for again under their key; look at the replica now and then."""
    done: Counter[str] = Counter()

    async def work(write: Write) -> Given:
        done[await model.step(write)] += 1
        return Given(200, b"")

    for _ in range(steps):
        asked = Asked(str(uuid4()), b"")
        try:
            for again in range(model.rng.choice([1, 1, 2])):
                given = await once(primary, user, asked, work, kept_s=60)
                assert given.again is (again > 0)
        except NotFound:
            done["not found"] += 1  # and nothing has changed, in the model neither
        if model.rng.random() < 0.1:
            await store.sync(user)
            reading = await store.read(user, shown)
            assert reading.value == model.shown(), f"{user} after {done}"
            held = await store.read(user, oracle.held)
            assert held.value == await oracle.expected(user, held.version.version)
            done["looked"] += 1
    return done


async def told_upstream(database_url: str, user: str) -> dict[str, tuple[int | None, int]]:
    """What a server of theirs would know of each image once all that waits has arrived: its rating and its O."""
    told: dict[str, tuple[int | None, int]] = {}
    sql = "SELECT image_id::text, kind, amount FROM upstream_outbox WHERE user_id = %s ORDER BY id"
    for image, kind, amount in await execute(database_url, sql, user):
        rating, o = told.get(image, (None, 0))
        told[image] = (amount, o) if kind == "rating" else (rating, o + amount)
    return {image: known for image, known in told.items() if known != (None, 0)}


async def test_whatever_is_done_to_a_gallery_its_replica_shows_what_a_plain_model_does(
    primary: Primary, database_url: str, data_dir: Path, seed: int
) -> None:
    oracle = Oracle(primary, metadata)
    store = Store(data_dir, catalog, oracle, StoreLimits())
    await store.open()
    models = {user: Model(random.Random(f"{seed} {user}")) for user in USERS}
    try:
        for user in USERS:
            async with writing(primary, user) as write:
                await upstreams.save(write, endpoint="https://stash.example/graphql", sealed_key=b"k", enabled=True)
        told = await asyncio.gather(*(live(primary, store, oracle, user, models[user], 220) for user in USERS))
        for user in USERS:
            await store.sync(user)
            version, rows = await oracle.look(user)
            held = await store.read(user, oracle.held)
            assert (held.version.version, held.value) == (version, rows)
            assert (await store.read(user, shown)).value == models[user].shown()
            assert await told_upstream(database_url, user) == models[user].rated_or_counted()
    finally:
        await store.close()
    # A test that cannot fail is a defect: it all happened.
    for done in told:
        assert done["looked"] > 5
        assert done["not found"] > 0
        assert all(done[name] for name in ("_move", "_put", "_take_back", "_delete", "_edit")), done
