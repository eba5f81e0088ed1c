"""I1, I2, I3 where a write looks at what it changed in the round trip of its commit: `primary.ahead`."""

from __future__ import annotations

import asyncio
import random
import weakref
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from uuid import UUID, uuid4

import pytest

from primary import ahead, postgres_feed, touched
from primary.cursor import Cursor
from primary.declaration import Catalog
from primary.errors import PrimaryUnavailable
from primary.feed import Pull
from primary.gallery import activity, images
from primary.gallery.errors import NotFound
from primary.gallery.records import NewImage
from primary.gallery.statements import INSERT_RETURNING
from primary.once import Asked, Given, once
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from primary.write import Write
from tests.support.bay import Bay, opened
from tests.support.databases import through
from tests.support.gallery_model import Model
from tests.support.http import execute
from tests.support.proxy import proxied
from tests.support.replicas import Rows, assert_same, held, truth

Looks = list[str]

A_POOL = NewImage(prompt="a pool", image_url="https://images.example/1.png")
OTHER = "INSERT INTO image (user_id, prompt, image_url) VALUES (%s, 'by SQL', 'u')"


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    """The users after whom a write looked, in order."""
    seen: Looks = []
    ask = postgres_feed._Look.ask

    async def counted(look: postgres_feed._Look) -> None:
        seen.append(str(look.pull._asked["user"]))
        await ask(look)

    monkeypatch.setattr(postgres_feed._Look, "ask", counted)
    return seen


async def write(
    primary: Primary, work: Callable[[Write], Awaitable[object]], user: str = "ann", key: str | None = None
) -> Cursor:
    """Do a write as routes do; give the cursor that it is answered with."""

    async def told(write: Write) -> Given:
        await work(write)
        return Given(200, str(await write.cursor()).encode())

    asked = Asked(key, b"d") if key else None
    return Cursor.parse((await once(primary, user, asked, told, kept_s=60)).body.decode())


async def save(primary: Primary, user: str = "ann", key: str | None = None) -> Cursor:
    return await write(primary, lambda write: images.create(write, A_POOL), user, key)


async def image_of(primary: Primary, user: str = "ann") -> UUID:
    """Save an image; give its id."""
    made: list[UUID] = []

    async def make(write: Write) -> None:
        made.append(UUID((await images.create(write, A_POOL)).image.id))

    await write(primary, make, user)
    return made[0]


async def followed(bay: Bay, primary: Primary, user: str = "ann") -> None:
    """Bring the user to where a write looks ahead: its statements have been seen, and its replica stands."""
    await save(primary, user)
    await bay.store.sync(user)


async def test_a_write_and_the_sync_up_to_it_are_one_round_trip(
    database_url: str, catalog: Catalog, looks: Looks
) -> None:
    async with (
        proxied(database_url) as proxy,
        through(proxy.url, pool_max=1) as primary,
        opened(primary, catalog, PostgresFeed(primary, catalog)) as bay,
    ):
        await followed(bay, primary)
        for key, trips in ((None, 1), ("k", 3)) * 4:
            before = proxy.round_trips
            cursor = await save(primary, key=key and str(uuid4()))
            result = await bay.store.sync("ann", at_least=cursor)
            assert (result.version, result.applied, result.rebuilt) == (cursor, 1, False)
            assert proxy.round_trips - before == trips
            await bay.assert_same("ann")
        assert looks == ["ann"] * 8


async def test_who_asks_for_what_is_new_now_looks_now(bay: Bay, database_url: str, primary: Primary) -> None:
    await followed(bay, primary)
    cursor = await save(primary)
    await execute(database_url, OTHER, "ann")
    near, far = await asyncio.gather(bay.store.sync("ann", at_least=cursor), bay.store.sync("ann"))
    assert near.version.covers(cursor)
    assert far.version.version == cursor.version + 1
    await bay.assert_same("ann")
    cursor = await save(primary)
    await execute(database_url, OTHER, "ann")
    assert (await bay.store.sync("ann")).version.version == cursor.version + 1
    await bay.assert_same("ann")


async def test_what_is_ahead_of_another_state_is_not_taken(bay: Bay, database_url: str, primary: Primary) -> None:
    await followed(bay, primary)
    cursor = await save(primary)
    await execute(database_url, OTHER, "ann")
    beyond = Cursor(cursor.epoch, cursor.version + 1)
    assert (await bay.store.sync("ann", at_least=beyond)).version == beyond  # it does not get there
    await bay.assert_same("ann")
    first, second = await save(primary), await save(primary)  # of two in a row, the first is looked after
    assert (await bay.store.sync("ann", at_least=second)).version == second
    assert second.version == first.version + 1
    await bay.assert_same("ann")


@pytest.mark.parametrize(("later", "taken"), [(0, True), (1 << 40, False)])
async def test_it_is_taken_once_and_not_where_the_primary_is_an_older_copy_of_itself(
    bay: Bay, primary: Primary, later: int, taken: bool
) -> None:
    await followed(bay, primary)
    replica = bay.store._slot("ann").replica
    assert replica is not None
    since, position = replica.state.cursor, replica.state.position + later  # how far the primary's log went
    cursor = await save(primary)
    assert (bay.feed.ahead("ann", since, position, cursor) is not None) is taken
    assert bay.feed.ahead("ann", since, position, cursor) is None


async def test_of_two_replicas_that_one_feed_fills_each_is_at_its_own_place(bay: Bay, primary: Primary) -> None:
    async with opened(primary, bay.catalog, bay.feed) as other:
        await other.store.sync("ann")
        await followed(bay, primary)
        cursor = await save(primary)
        for one in (other, bay):  # what is ahead is so of the second's place alone
            assert (await one.store.sync("ann", at_least=cursor)).version == cursor
            await one.assert_same("ann")


async def test_who_is_not_synced_here_is_looked_after_in_vain_but_once(
    bay: Bay, primary: Primary, looks: Looks
) -> None:
    await save(primary, "bob")
    assert looks == []
    await followed(bay, primary)
    for _ in range(3):
        await save(primary)
    assert looks == ["ann"]
    await bay.store.sync("ann")
    await save(primary)
    assert looks == ["ann"] * 2


async def test_a_write_that_changes_nothing_unlearns_nothing(bay: Bay, primary: Primary) -> None:
    image = await image_of(primary)
    for favorite, looks in ((True, 1), (True, 0), (False, 0)):
        await bay.store.sync("ann")
        cursor = await write(primary, partial(activity.set_favorite, image_id=image, favorite=favorite))
        counted = bay.feed.looks
        assert (await bay.store.sync("ann", at_least=cursor)).version == cursor
        assert bay.feed.looks - counted == looks


async def test_it_is_bounded_by_users_and_by_statements(
    bay: Bay, primary: Primary, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead, "PULLS_MAX", 2)
    monkeypatch.setattr(touched, "STATEMENTS_MAX", 1)
    image = await image_of(primary)
    await write(primary, partial(activity.toggle_favorite, image_id=image))
    assert len(primary.touched._by) == 1, "and what saved it is pushed out already"
    cursors = {}
    users = ["ann", "bob", "cid"]
    for user in users:
        await followed(bay, primary, user)
    for user in users:
        cursors[user] = await save(primary, user)
    assert looks == users
    counted = bay.feed.looks
    for user, cursor in cursors.items():
        assert (await bay.store.sync(user, at_least=cursor)).version == cursor
        await bay.assert_same(user)
    assert bay.feed.looks - counted == 1  # ann's was pushed out
    assert [*primary.touched._by] == [(INSERT_RETURNING,)]


async def test_what_nobody_takes_is_let_go_soon(bay: Bay, primary: Primary, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = asyncio.Event()
    keep = ahead.Ahead.keep

    def kept(self: ahead.Ahead, user: str, since: Cursor, pull: Pull) -> None:
        keep(self, user, since, pull)
        weakref.finalize(pull, gone.set)

    monkeypatch.setattr(ahead.Ahead, "keep", kept)
    monkeypatch.setattr(ahead, "KEPT_S", 0.05)
    await followed(bay, primary)
    await save(primary)
    async with asyncio.timeout(10):
        await gone.wait()


@pytest.mark.parametrize("key", [None, "k"])
@pytest.mark.parametrize(
    "fails",
    # The connection ends when all was sent that is asked; else nobody could say whether there was a commit.
    ["SELECT 1 / 0", "SELECT pg_terminate_backend(pg_backend_pid()) FROM pg_sleep(0.1)"],
    ids=["with an error", "with the connection"],
)
async def test_a_look_that_fails_leaves_the_write_as_it_is(
    bay: Bay, primary: Primary, looks: Looks, monkeypatch: pytest.MonkeyPatch, fails: str, key: str | None
) -> None:
    told: list[Cursor] = []
    await followed(bay, primary)
    primary.watch(lambda user, cursor: told.append(cursor))
    with monkeypatch.context() as broken:
        broken.setattr(postgres_feed, "STAND", f"{fails} WHERE %(user)s <> '' AND %(since)s <> 0")
        cursor = await save(primary, key=key)
    assert looks == ["ann"]
    assert told == [cursor]
    async with primary.connection() as connection:
        assert connection.info.transaction_status.name == "IDLE"
    assert (await bay.store.sync("ann", at_least=cursor)).version == cursor
    await bay.assert_same("ann")
    assert await save(primary, key=key) == (cursor if key else Cursor(cursor.epoch, cursor.version + 1))


async def test_a_file_in_doubt_is_found_on_this_way_too(bay: Bay, primary: Primary) -> None:
    await followed(bay, primary)
    cursor = await save(primary)
    with bay.directory.of("ann").database.open("ab") as file:
        file.write(b"more")
    result = await bay.store.sync("ann", at_least=cursor)
    assert result.rebuilt
    assert result.version.covers(cursor)
    await bay.assert_same("ann")


async def test_it_needs_no_primary_and_a_disk_that_fails_in_it_loses_nothing(bay: Bay, primary: Primary) -> None:
    def full(point: str) -> None:
        if point == "apply.stated":
            raise OSError(28, "No space left on device")

    await followed(bay, primary)
    cursor = await save(primary)
    bay.feed.away = True
    assert (await bay.store.sync("ann", at_least=cursor)).version == cursor
    cursor = await save(primary)
    bay.passing = full
    with suppress(PrimaryUnavailable):
        await bay.store.sync("ann", at_least=cursor)
    bay.passing = lambda point: None
    bay.feed.away = False
    assert (await bay.store.sync("ann", at_least=cursor)).version == cursor
    await bay.assert_same("ann")


async def test_whatever_is_written_a_replica_that_takes_what_is_ahead_is_the_primarys(
    bay: Bay, database_url: str, primary: Primary, looks: Looks, seed: int
) -> None:
    """Writes at random, others' by SQL before and after them; each state that the replica comes to must have been."""
    rng = random.Random(seed)
    model = Model(random.Random(seed))
    states: dict[int, Rows] = {}
    took: Counter[bool] = Counter()

    async def remember() -> None:
        (found,) = await execute(database_url, "SELECT version FROM tidepool.head WHERE user_id = 'ann'") or [(0,)]
        states[found[0]] = await truth(primary, bay.catalog, "ann")

    await bay.store.sync("ann")
    for number in range(150):
        if rng.random() < 0.2:
            await execute(database_url, OTHER, "ann")
            await remember()
        cursor = None
        with suppress(NotFound):
            cursor = await write(primary, model.step, key=rng.choice([None, f"k{number}"]))
        await remember()
        if rng.random() < 0.2:
            await execute(database_url, "UPDATE image SET model = 'm' || %s WHERE user_id = 'ann'", str(number))
            await remember()
        if cursor is not None and rng.random() < 0.8:
            counted = bay.feed.looks
            result = await bay.store.sync("ann", at_least=cursor)
            assert result.version.covers(cursor)
            took[bay.feed.looks == counted and result.applied > 0] += 1
            assert await held(bay.store, "ann") == states[result.version.version]
    await bay.store.sync("ann")
    await assert_same(bay.store, primary, "ann")
    assert took[True] > 10 < took[False], took


async def test_hearts_that_are_given_from_two_sides_at_once_are_in_each_replica(bay: Bay, primary: Primary) -> None:
    users = [f"user {n}" for n in range(10)]
    made = {user: await image_of(primary, user) for user in users}

    async def give(user: str) -> None:
        for _ in range(8):
            cursor = await write(primary, partial(activity.toggle_favorite, image_id=made[user]), user)
            assert (await bay.store.sync(user, at_least=cursor)).version.covers(cursor)

    for user in users:
        await bay.store.sync(user)
    await asyncio.gather(*(give(user) for user in users for _ in range(2)))
    await bay.assert_same(*users)
    for user in users:
        await bay.store.sync(user)
    await bay.assert_same(*users)
