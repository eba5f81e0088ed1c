"""Following, with a tail and a store that do as the test says: who is synced when, and who counts as current."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from primary.cursor import Cursor
from primary.errors import MigrationsPending, PrimarySlow, PrimaryUnavailable
from primary.tail import Moves
from replica import backoff
from replica.errors import ReplicaUnavailable
from replica.follower import Follower
from replica.results import FollowLimits, SyncResult

EPOCH, OTHER = "1-1-1-1", "1-2-1-1"


def at(version: int, epoch: str = EPOCH) -> Cursor:
    return Cursor(epoch, version)


class Tail:
    """A tail whose every look is put to it by the test."""

    def __init__(self) -> None:
        self.looks: asyncio.Queue[Moves | Exception] = asyncio.Queue()
        self.asked = 0
        self.waits = False  # for the test to put the next look
        self.forgotten = 0
        self.stubborn = 0  # how often it has to be cancelled to end

    async def poll(self) -> Moves:
        self.asked += 1
        self.waits = True
        try:
            look = await self.looks.get()
        except asyncio.CancelledError:
            for _ in range(self.stubborn):
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    pass
            raise
        finally:
            self.waits = False
        if isinstance(look, Exception):
            raise look
        return look

    def forget(self) -> None:
        self.forgotten += 1


class Store:
    """Replicas that are brought to ``heads``, unless ``fails`` says why not; while ``gate`` is clear syncs wait."""

    def __init__(self) -> None:
        self.heads: dict[str, Cursor] = {}
        self.at: dict[str, Cursor] = {}
        self.synced: list[str] = []
        self.fails: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = self.most_at_once = 0

    async def cursor(self, user: str) -> Cursor:
        return self.at.setdefault(user, self.heads.setdefault(user, at(1)))

    async def sync(self, user: str, *, at_least: Cursor | None = None) -> SyncResult:
        now = await self.cursor(user)
        if at_least is not None and now.epoch == at_least.epoch and now >= at_least:
            return SyncResult(now, 0, False)
        self.synced.append(user)
        self.under_way += 1
        self.most_at_once = max(self.most_at_once, self.under_way)
        try:
            seen = self.heads[user]
            await self.gate.wait()
            if self.fails is not None:
                raise self.fails
        finally:
            self.under_way -= 1
        self.at[user] = seen
        return SyncResult(seen, 1, False)


class Harness:
    """A follower that runs, and the clock that it goes by."""

    def __init__(self, limits: FollowLimits) -> None:
        self.now = 100.0
        self.away = False
        self.tail = Tail()
        self.store = Store()
        self.follower = Follower(self.store, self.tail, limits, lambda: self.away, lambda: self.now)

    async def look(self, users: dict[str, Cursor] | None = None, *, reset: bool = False, **more: Cursor) -> None:
        """Have the tail look once, and wait until that and what it led to is done."""
        await self._put(Moves((users or {}) | more, reset))

    async def lose(self, error: Exception | None = None) -> None:
        """Have a look fail."""
        await self._put(error or PrimaryUnavailable())

    async def _put(self, look: Moves | Exception) -> None:
        await self.tail.looks.put(look)
        await self.settle(lambda: self.tail.looks.empty() and self.tail.waits)  # for the next: this one was taken in

    async def settle(self, until: Callable[[], bool] = lambda: True) -> None:
        """Wait until it is so, and nothing is under way."""
        async with asyncio.timeout(5):
            while not until():
                await asyncio.sleep(0.001)
        for _ in range(20):
            await asyncio.sleep(0)

    async def follow(self, *users: str) -> None:
        """Have users read, and joined."""
        for user in users:
            if not self.follower.serves(user):
                await self.follower.check(user)

    def move(self, user: str, version: int, epoch: str = EPOCH) -> Cursor:
        """Move a user in the primary, and give the cursor."""
        self.store.heads[user] = at(version, epoch)
        return self.store.heads[user]


QUICK = {"look_min_s": 0.001, "look_live_s": 0.001, "look_idle_s": 0.001, "check_wait_s": 5}


@asynccontextmanager
async def harness(**limits: float) -> AsyncIterator[Harness]:
    made = Harness(FollowLimits(**(QUICK | limits)))  # type: ignore[arg-type]
    async with made.follower.running():
        yield made


@pytest.fixture
async def subject() -> AsyncIterator[Harness]:
    async with harness() as made:
        yield made


@pytest.fixture
async def ada(subject: Harness) -> Harness:
    """A harness in which ada is followed."""
    await subject.follow("ada")
    await subject.look(reset=True)
    assert subject.follower.serves("ada")
    subject.store.synced.clear()
    return subject


# ── Joining ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_nobody_is_asked_for_anything_while_nobody_is_followed(subject: Harness):
    await subject.settle()
    assert (subject.tail.asked, subject.tail.forgotten, subject.follower.counts().looks) == (0, 1, 0)


async def test_who_is_read_before_the_first_look_is_served_after_it_and_another_sync(subject: Harness):
    assert not subject.follower.serves("ada")
    assert await subject.follower.check("ada")
    assert subject.follower.vouches("ada")
    assert not subject.follower.serves("ada"), "what came since would not be told"
    await subject.look(reset=True)
    assert subject.follower.serves("ada")
    assert subject.store.synced == ["ada", "ada"]


async def test_who_is_read_after_it_is_served_from_the_first_check_on(ada: Harness):
    assert not ada.follower.serves("bob")
    await ada.follower.check("bob")
    assert ada.follower.serves("bob")
    assert ada.store.synced == ["bob"]
    for _ in range(5):
        assert ada.follower.serves("bob")
        await ada.look()
    assert ada.store.synced == ["bob"]


async def test_a_check_during_which_a_new_era_begins_does_not_join_it(ada: Harness):
    ada.store.gate.clear()
    checking, checked = asyncio.create_task(ada.follower.check("bob")), ada.store.gate
    await ada.settle()
    ada.store.gate = asyncio.Event()
    await ada.look(reset=True)
    assert ada.store.synced.count("bob") == 2, "it began too early"
    checked.set()
    assert await checking
    assert not ada.follower.serves("bob")
    ada.store.gate.set()
    await ada.settle()
    assert ada.follower.serves("bob"), "by the sync that came after"


async def test_who_is_let_go_while_a_first_copy_is_made_is_followed_after_it(ada: Harness):
    made, cursor = asyncio.Event(), ada.store.cursor

    async def making(user: str) -> Cursor:
        await made.wait()
        return await cursor(user)

    ada.store.cursor = making  # type: ignore[method-assign]
    with ada.follower.stream("ada"):
        checking = asyncio.create_task(ada.follower.check("bob"))
        await ada.settle()
        ada.now += 1_000
        await ada.look()
        await ada.look()
        assert ada.follower.counts().followed == 1
        made.set()
        assert await checking
        assert ada.follower.serves("bob")


async def test_who_listens_is_joined_though_nobody_reads(subject: Harness):
    with subject.follower.stream("ada"):
        await subject.look(reset=True)
        assert subject.store.synced == ["ada"]
        assert subject.follower.counts().streams == 1
    assert subject.follower.counts().streams == 0


async def test_who_listens_to_a_replica_that_could_not_be_checked_is_joined_later(ada: Harness):
    ada.store.fails = PrimaryUnavailable()
    with ada.follower.stream("bob"):
        assert not await ada.follower.check("bob")
        ada.store.fails = None
        for _ in range(3):
            ada.now += 0.6  # no silence of the tail's
            await ada.look()
        assert ada.follower.serves("bob")


async def test_a_write_before_the_first_look_is_brought_once_and_not_over_and_over(subject: Harness):
    with subject.follower.stream("ada"):
        subject.follower.wake("ada", subject.move("ada", 2))
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert subject.store.at["ada"] == at(2)
        assert len(subject.store.synced) <= 2


# ── Moving ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_who_moved_is_synced_and_nobody_else(ada: Harness):
    await ada.follow("bob")
    ada.store.synced.clear()
    await ada.look(ada=ada.move("ada", 2), stranger=at(7))
    assert ada.store.synced == ["ada"]
    assert ada.store.at["ada"] == at(2)
    assert "stranger" not in ada.store.at


async def test_a_write_through_this_node_is_brought_at_once_and_the_tail_brings_nothing_more(ada: Harness):
    ada.follower.wake("ada", ada.move("ada", 2))
    await ada.settle()
    assert ada.store.at["ada"] == at(2)
    await ada.look(ada=at(2))
    assert ada.store.synced == ["ada"]


async def test_a_read_after_a_write_through_this_node_waits_for_the_write_and_no_longer(ada: Harness):
    ada.store.gate.clear()
    ada.follower.wake("ada", ada.move("ada", 2))
    assert not ada.follower.serves("ada")
    reading = asyncio.create_task(ada.follower.check("ada"))
    await ada.settle()
    ada.store.gate.set()
    assert await reading
    assert ada.store.at["ada"] == at(2)
    assert ada.follower.serves("ada")
    ada.store.gate.clear()
    await ada.look(ada=ada.move("ada", 3))
    assert ada.follower.serves("ada"), "what somebody else wrote may come a moment later"
    ada.store.gate.set()


async def test_a_write_that_cannot_be_brought_leaves_reads_unvouched_for(ada: Harness):
    ada.store.fails = PrimaryUnavailable()
    ada.follower.wake("ada", ada.move("ada", 2))
    await ada.settle()
    assert not ada.follower.serves("ada")
    assert not await ada.follower.check("ada")
    assert not ada.follower.vouches("ada")
    ada.store.fails = None
    assert await ada.follower.check("ada")
    assert ada.follower.serves("ada")


async def test_a_check_while_the_tail_is_silent_asks_the_primary_whatever_was_heard_before(ada: Harness):
    ada.store.gate.clear()
    await ada.look(ada=ada.move("ada", 2))
    ada.store.at["ada"] = at(2)
    ada.now += 2
    ada.move("ada", 3)
    ada.store.gate.set()
    assert await ada.follower.check("ada")
    assert ada.store.at["ada"] == at(3)


async def test_what_a_sync_that_somebody_asked_for_has_brought_is_not_pulled_again(ada: Harness):
    ada.store.at["ada"] = ada.move("ada", 2)
    await ada.look(ada=at(2))
    assert ada.store.synced == []
    assert ada.follower.serves("ada")


async def test_a_move_during_a_sync_is_brought_by_another(ada: Harness):
    ada.store.gate.clear()
    await ada.look(ada=ada.move("ada", 2))
    await ada.look(ada=ada.move("ada", 3))
    await ada.look(ada=ada.move("ada", 4))
    assert ada.store.synced == ["ada"]
    ada.store.gate.set()
    await ada.settle()
    assert ada.store.synced == ["ada", "ada"]
    assert ada.store.at["ada"] == at(4)


async def test_a_move_during_a_check_is_still_to_come_after_it(ada: Harness):
    await ada.look(reset=True)
    ada.store.gate.clear()
    ada.now += 1.1  # the tail is silent: the check asks
    checking, checked = asyncio.create_task(ada.follower.check("ada")), ada.store.gate
    await ada.settle()
    ada.store.gate = asyncio.Event()
    await ada.look()
    await ada.look(ada=ada.move("ada", 2))
    checked.set()
    assert await checking
    assert ada.store.at["ada"] == at(1)
    for _ in range(3):
        ada.now += 0.4
        await ada.look()
    assert not ada.follower.serves("ada"), "what was heard of is not in it yet"
    ada.store.gate.set()
    await ada.settle()
    assert ada.follower.serves("ada")


async def test_a_sync_during_which_a_new_era_begins_does_not_join_it(ada: Harness):
    ada.store.gate.clear()
    await ada.look(ada=ada.move("ada", 2))
    await ada.look(reset=True)
    ada.store.gate.set()
    await ada.settle()
    assert ada.store.synced == ["ada"]
    assert not ada.follower.serves("ada"), "it began too early"
    assert await ada.follower.check("ada")
    assert ada.follower.serves("ada")


async def test_a_replica_that_stays_behind_is_not_served_as_current(ada: Harness):
    ada.store.gate.clear()
    await ada.look(ada=ada.move("ada", 2))
    assert ada.follower.serves("ada"), "it is a moment behind, as always"
    for _ in range(3):
        ada.now += 0.4
        await ada.look()
    assert not ada.follower.serves("ada")
    ada.store.gate.set()
    await ada.settle()
    assert ada.follower.serves("ada")


async def test_the_hottest_are_synced_first_and_no_more_than_the_bound_at_once():
    async with harness(follow_concurrency=2) as subject:
        users = [f"user {n}" for n in range(6)]
        with subject.follower.stream("user 0"):
            await subject.follow(*users)
            await subject.look(reset=True)
            for user in users:
                subject.now += 0.01
                await subject.follow(user)
            subject.store.synced.clear()
            subject.store.most_at_once = 0
            subject.store.gate.clear()
            await subject.look({user: subject.move(user, 2) for user in ("user 1", "user 2")})
            await subject.look({user: subject.move(user, 2) for user in ("user 3", "user 0", "user 5", "user 4")})
            assert len(subject.store.synced) == 2
            subject.store.gate.set()
            await subject.settle(lambda: len(subject.store.synced) == 6)
            assert subject.store.synced[2:] == ["user 0", "user 5", "user 4", "user 3"]
            assert subject.store.most_at_once == 2


async def test_who_begins_to_listen_while_a_sync_is_due_comes_before_who_was_read_later():
    async with harness(follow_concurrency=1) as subject:
        await subject.follow("ada", "bob", "eve")
        await subject.look(reset=True)
        for user in ("ada", "bob", "eve"):
            subject.now += 0.01
            await subject.follow(user)
        subject.store.synced.clear()
        subject.store.gate.clear()
        await subject.look(eve=subject.move("eve", 2))
        await subject.look(ada=subject.move("ada", 2), bob=subject.move("bob", 2))
        with subject.follower.stream("ada"):
            subject.now += 2
            subject.follower.serves("bob")  # is read once more
            await subject.look()
            await subject.look()
            subject.store.gate.set()
            await subject.settle(lambda: len(subject.store.synced) == 3)
        assert subject.store.synced == ["eve", "ada", "bob"]


# ── Silence ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_nobody_is_current_while_the_tail_is_silent_nor_after_it_who_moved_meanwhile(ada: Harness):
    """As when the process was stopped: the clock goes on, and the first to be served may be a reader."""
    await ada.follow("bob")
    ada.now += 1.1
    assert not ada.follower.serves("ada")
    ada.store.gate.clear()
    await ada.look()  # had begun before
    assert not ada.follower.serves("ada")
    await ada.look(ada=ada.move("ada", 2))
    assert ada.follower.serves("bob"), "of whom it is known that nothing happened"
    assert not ada.follower.serves("ada"), "it may be behind since the silence began"
    ada.store.gate.set()
    await ada.settle()
    assert ada.follower.serves("ada")


async def test_a_look_that_fails_ends_following_at_once_and_the_next_that_does_not_brings_it_back(ada: Harness):
    await ada.lose()
    assert not ada.follower.serves("ada")
    ada.away = True
    assert not await ada.follower.check("ada")
    assert not ada.follower.vouches("ada")
    ada.away = False
    await ada.look()
    assert ada.follower.serves("ada")
    assert ada.follower.vouches("ada"), "it is not stale any more"
    assert ada.store.synced == []


async def test_how_long_the_tail_is_silent_is_told_from_the_first_look_on_that_was_due(subject: Harness):
    subject.now += 1_000
    assert subject.follower.counts().silent_s == 0
    await subject.follow("ada")
    await subject.settle()
    subject.now += 3
    await subject.lose()
    assert subject.follower.counts().silent_s == 3
    await subject.look(reset=True)
    assert subject.follower.counts().silent_s < 3


async def test_what_fails_unforeseen_ends_following_no_less_and_is_tried_again(ada: Harness):
    await ada.lose(RuntimeError("a defect"))
    assert not ada.follower.serves("ada")
    await ada.look(ada=ada.move("ada", 2))
    assert ada.store.at["ada"] == at(2)


async def test_another_primary_has_everyone_synced_before_they_are_served(ada: Harness):
    await ada.follow("bob")
    ada.store.synced.clear()
    ada.store.gate.clear()
    ada.move("ada", 1, OTHER)
    ada.move("bob", 1, OTHER)
    await ada.look(reset=True)
    assert not ada.follower.serves("ada")
    ada.store.gate.set()
    await ada.settle()
    assert ada.follower.serves("ada")
    assert ada.follower.serves("bob")
    assert sorted(ada.store.synced) == ["ada", "bob"]
    assert ada.store.at["bob"] == at(1, OTHER)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses between looks, none of which is made."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def recorded(pause_s: float) -> None:
        if asyncio.current_task().get_name() == "follower":  # type: ignore[union-attr]
            pauses.append(pause_s)
            pause_s = 0
        await sleep(pause_s)

    monkeypatch.setattr(asyncio, "sleep", recorded)
    return pauses


async def test_pauses_between_looks_grow_while_nobody_moves_up_to_a_bound_that_is_less_while_someone_listens(
    pauses: list[float],
):
    async with harness(look_min_s=0.1, look_live_s=0.15, look_idle_s=0.2) as subject:
        await subject.follow("ada")
        await subject.look(reset=True)
        for _ in range(10):
            await subject.look()
        assert pauses[0] < 0.12
        assert pauses[-1] == 0.2
        with subject.follower.stream("ada"):
            await subject.look()
            assert pauses[-1] == 0.15
            await subject.look(ada=subject.move("ada", 2))
            assert pauses[-1] == 0.1


async def test_pauses_between_looks_that_fail_grow_to_a_bound_and_are_never_in_step(ada: Harness, pauses: list[float]):
    pauses.clear()
    for _ in range(9):
        await ada.lose()
    steps = [min(backoff.FIRST_S * 2**n, backoff.MAX_S) for n in range(9)]
    assert len(pauses) == 9
    assert all(step / 2 <= pause <= step for pause, step in zip(pauses, steps, strict=True))
    assert len({pause / step for pause, step in zip(pauses, steps, strict=True)}) == 9
    await ada.look()
    await ada.lose()
    assert pauses[-1] <= backoff.FIRST_S, "what works once begins anew"


# ── Failing ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "error", [PrimaryUnavailable(), ReplicaUnavailable(), MigrationsPending(), ZeroDivisionError()]
)
async def test_a_sync_that_fails_is_tried_again_after_a_pause_until_it_works(ada: Harness, error: Exception):
    ada.store.fails = error
    await ada.look(ada=ada.move("ada", 2))
    assert not ada.follower.vouches("ada")
    for _ in range(5):
        await ada.look()
    assert ada.store.synced == ["ada"], "not at once"
    ada.store.fails = None
    ada.now += 1.1
    for _ in range(2):
        await ada.look()
    assert ada.store.at["ada"] == at(2)
    assert ada.follower.serves("ada")


@pytest.mark.parametrize(
    ("error", "told"),
    [(PrimaryUnavailable(), []), (PrimarySlow(), [PrimarySlow.__doc__]), (ReplicaUnavailable("?"), ["?"])],
)
async def test_what_keeps_a_replica_behind_is_told_unless_it_is_an_outage(
    ada: Harness, error: Exception, told: list[str]
):
    ada.store.fails = error
    with capture_logs() as lines:
        await ada.look(ada=ada.move("ada", 2))
    assert [line["error"] for line in lines if line["event"] == "follow_failed"] == told


async def test_a_sync_that_fails_again_and_again_is_tried_less_often(ada: Harness):
    ada.store.fails = ReplicaUnavailable()
    await ada.look(ada=ada.move("ada", 2))
    for failures in range(2, 6):
        ada.now += 5
        await ada.look()
        await ada.look()
        assert len(ada.store.synced) == failures
    for _ in range(3):
        ada.now += 0.6
        await ada.look()
    assert len(ada.store.synced) == 5


async def test_what_failed_while_the_tail_was_silent_is_brought_when_it_is_heard_again(ada: Harness):
    ada.store.gate.clear()
    await ada.look(ada=ada.move("ada", 2))
    await ada.lose()
    ada.store.fails = PrimaryUnavailable()
    ada.store.gate.set()
    await ada.settle()
    for _ in range(3):
        ada.now += 5
        await ada.lose()
    assert ada.store.synced == ["ada"], "nobody asks a primary that is away"
    ada.store.fails = None
    await ada.look()
    assert ada.store.at["ada"] == at(2)


async def test_a_check_does_not_ask_a_primary_that_is_away(ada: Harness):
    ada.away = True
    assert not await ada.follower.check("bob")
    assert ada.store.synced == []
    assert "bob" not in ada.store.at


async def test_a_check_that_takes_too_long_is_given_up_and_not_repeated_for_a_moment():
    async with harness(check_wait_s=0.05) as subject:
        subject.store.gate.clear()
        assert not await subject.follower.check("bob")
        assert not await subject.follower.check("bob")
        assert subject.store.synced == ["bob"]
        subject.store.gate.set()
        subject.now += 1.1
        assert await subject.follower.check("bob")


@pytest.mark.parametrize("error", [PrimaryUnavailable(), ReplicaUnavailable(), MigrationsPending()])
async def test_a_check_that_fails_leaves_what_there_is_to_be_read(ada: Harness, error: Exception):
    assert await ada.follower.check("bob")
    assert ada.follower.vouches("bob")
    ada.store.fails = error
    assert not await ada.follower.check("bob")
    assert not ada.follower.vouches("bob"), "not for what was there before either"


# ── Letting go, and the end ─────────────────────────────────────────────────────────────────────────────────────


async def test_who_is_not_read_for_long_is_let_go_and_with_the_last_one_the_tail_is_forgotten(ada: Harness):
    await ada.follow("bob")
    ada.now += 50
    await ada.follow("bob")
    ada.now += 15
    await ada.look()
    await ada.look()
    assert ada.follower.counts().followed == 1
    assert not ada.follower.serves("ada")  # and is followed again by that
    ada.now += 70
    forgotten, looks = ada.tail.forgotten, ada.tail.asked
    await ada.tail.looks.put(Moves({}))
    await ada.settle(lambda: ada.tail.forgotten > forgotten)
    assert ada.follower.counts().followed == 0
    await ada.settle()
    assert ada.tail.asked == looks
    assert ada.follower.counts().silent_s == 0
    assert await ada.follower.check("ada")
    await ada.settle()
    assert not ada.follower.serves("ada"), "it begins anew"
    await ada.look(reset=True)
    assert ada.follower.serves("ada")


async def test_who_is_not_read_for_long_is_let_go_though_a_sync_is_due_for_which_there_is_no_time():
    async with harness(follow_concurrency=1) as subject:
        await subject.follow("ada", "bob")
        await subject.look(reset=True)
        subject.store.synced.clear()
        subject.store.gate.clear()
        await subject.look(ada=subject.move("ada", 2))
        await subject.look(bob=subject.move("bob", 2))
        subject.now += 70
        await subject.look()
        await subject.look()
        assert subject.follower.counts().followed == 1, "the one whose sync is under way"
        subject.store.gate.set()
        await subject.settle()
        assert subject.store.synced == ["ada"]


async def test_who_listens_is_not_let_go_and_for_a_while_after_neither(ada: Harness):
    with ada.follower.stream("bob"):
        await ada.follower.check("bob")
        ada.now += 1_000
        await ada.look()
        await ada.look()
        assert ada.follower.counts().followed == 1
    ada.now += 30
    await ada.look()
    await ada.look()
    assert ada.follower.counts().followed == 1


async def test_nothing_is_begun_after_the_end():
    async with harness(follow_concurrency=1) as subject:
        await subject.follow("ada", "bob")
        await subject.look(reset=True)
        subject.store.synced.clear()
        subject.store.gate.clear()
        await subject.look(ada=subject.move("ada", 2), bob=subject.move("bob", 2))
        assert len(subject.store.synced) == 1
    await subject.settle()
    assert len(subject.store.synced) == 1


async def test_the_end_waits_for_no_look_however_that_clings_to_life():
    async def within(limit_s: float, what: Callable[[], Awaitable[None]]) -> None:
        async with asyncio.timeout(limit_s):
            await what()

    async def run() -> None:
        async with harness() as subject:
            await subject.follow("ada")
            subject.tail.stubborn = 1
            subject.store.gate.clear()
            subject.follower.wake("ada", subject.move("ada", 2))
            await subject.settle(lambda: subject.tail.asked == 1)

    await within(2, run)
