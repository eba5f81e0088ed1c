"""Following: the replicas of the users that this node serves keep themselves current.

A user is followed from the first read or event stream on, until neither was there for a while. The tail tells which
users moved; those of them that are followed are synced at once, under a bound, the hottest first. So a thousand
followed users cost the primary one poll, and not one query each.

Nothing is missed between joining and following: a user is put on the list *before* its replica is synced, and the
tail's last look was earlier still. What that sync did not see yet was not visible to that look either, so the next
look tells of it. When the tail knows nothing of what was before (its first look, another primary), a new *era* begins,
and each replica has to be synced once more before it counts as followed. While the tail is silent, nobody is followed.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from primary.cursor import Cursor
from primary.errors import PrimaryError, PrimaryUnavailable, is_told_already
from primary.tail import Moves, Tail
from replica.backoff import Backoff
from replica.ending import cut_off
from replica.errors import ReplicaUnavailable
from replica.followed import Followed
from replica.results import FollowLimits, SyncResult

_GROWTH = 1.1  # of the pause between two looks that find nothing: who moved may well move again within 0.1 s
_UNASKED_S = 1.0  # after a check that took too long, reads of the same user do not wait for another
_TIDY_S = 1.0  # between two looks at who is to be let go, or tried again

_log = structlog.get_logger("replica.follower")


class Replicas(Protocol):
    """What is asked of the store here."""

    async def cursor(self, user: str) -> Cursor:
        """Give the cursor of the user's replica, building it first if there is none."""
        ...

    async def sync(self, user: str, *, at_least: Cursor | None = None) -> SyncResult:
        """Sync the user's replica."""
        ...


@dataclass(frozen=True, slots=True)
class FollowerCounts:
    """How many users are followed, streams are open, and looks were had; for how many seconds the tail is silent."""

    followed: int
    streams: int
    looks: int
    silent_s: float


class Follower:
    """Keeps the replicas of the users of one node current. To be used from one event loop.

    ``away`` says whether the primary is known to be out of reach: then nobody waits for it. ``time`` is the clock, in
    seconds; the event loop's, unless another is given.
    """

    def __init__(
        self,
        store: Replicas,
        tail: Tail,
        limits: FollowLimits,
        away: Callable[[], bool],
        time: Callable[[], float] | None = None,
    ) -> None:
        self._store = store
        self._tail = tail
        self._limits = limits
        self._away = away
        self._time = time or asyncio.get_running_loop().time
        self._followed: dict[str, Followed] = {}
        self._wanted = asyncio.Event()
        self._streams = 0
        self._looks = 0
        self._era = 0
        self._begun = False  # whether the tail has looked in this era
        self._heard_at = self._time()  # when the last look began that was answered; before the first, when it was due
        self._lost = False  # whether the last look was not
        self._due: list[tuple[tuple[bool, float], int, Followed]] = []
        self._order = itertools.count()
        self._syncing: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow for as long as the block runs."""
        loop = asyncio.create_task(self._run(), name="follower")
        try:
            yield
        finally:
            self._due.clear()
            self._followed.clear()
            await cut_off({loop, *self._syncing})

    def counts(self) -> FollowerCounts:
        """Give the follower's counters."""
        silent_s = self._time() - self._heard_at if self._followed else 0.0
        return FollowerCounts(len(self._followed), self._streams, self._looks, silent_s)

    # ------------------------------------------------------------- what readers ask

    def serves(self, user: str) -> bool:
        """Say whether the user's replica can be read as it is; note that it is read, and follow it from now on.

        If not, `check` it first.
        """
        now = self._time()
        followed = self._follow(user, now)
        if not (followed.serves(self._era, now) and self._hears(now)):
            return False
        followed.checked = True  # whatever a check came to while the primary was away
        return True

    def vouches(self, user: str) -> bool:
        """Say whether the user's replica is followed, or was as the primary has it when it was checked last."""
        followed = self._followed.get(user)
        return followed is not None and followed.checked

    async def check(self, user: str) -> bool:
        """Bring the user's replica to where the primary is, if that can be had within ``check_wait_s``; say whether.

        Otherwise it stays as it is, and `vouches` says so. Raises what `Store.cursor` does where there is none yet.
        """
        followed = self._follow(user, self._time())
        if self._away() or self._time() < followed.unasked_until:
            followed.checked = False
            return False
        await self._store.cursor(user)  # a first copy takes the time that it takes
        followed = self._follow(user, self._time())  # it may have been let go meanwhile
        era, target = self._joinable(), followed.target
        known = followed.known(era) if self._hears(self._time()) else None
        try:
            async with asyncio.timeout(self._limits.check_wait_s):
                result = await self._store.sync(user, at_least=known)
        except (TimeoutError, PrimaryError, ReplicaUnavailable) as error:
            followed.checked = False
            if not isinstance(error, PrimaryUnavailable):
                followed.unasked_until = self._time() + _UNASKED_S
            return False
        followed.reach(result.version, target, era)
        return True

    # ------------------------------------------------------------- who is followed

    def wake(self, user: str, cursor: Cursor) -> None:
        """Bring a followed user to ``cursor``, which was written here, without waiting for the tail to tell of it."""
        followed = self._followed.get(user)
        if followed is not None and followed.write(cursor, self._time()):
            self._schedule(followed)

    @contextmanager
    def stream(self, user: str) -> Iterator[None]:
        """Follow a user for as long as the block runs, because someone listens."""
        followed = self._follow(user, self._time())
        followed.streams += 1
        self._streams += 1
        try:
            yield
        finally:
            followed.streams -= 1
            followed.read_at = self._time()
            self._streams -= 1

    def _follow(self, user: str, now: float) -> Followed:
        followed = self._followed.get(user)
        if followed is None:
            followed = self._followed[user] = Followed(user, now)
            self._wanted.set()
        followed.read_at = now
        return followed

    def _tidy(self, now: float) -> None:
        """Let go of those who were not read for long, and try again to bring those who could not be brought.

        Where more moves than can be synced, the coldest may wait for ever: they are let go, too, and the others wait in
        the order of how hot they are by now.
        """
        oldest = now - self._limits.follow_idle_s
        due, self._due = sorted(self._due), []
        for *_, followed in due:
            followed.waiting = False
            if not followed.is_idle(oldest):
                self._put(followed)
        for followed in [*self._followed.values()]:
            if followed.waiting:
                continue
            if followed.is_idle(oldest):
                del self._followed[followed.user]
            elif self._hears(now) and followed.lacks(self._joinable()) and now >= followed.unbrought_until:
                self._schedule(followed)

    # ------------------------------------------------------------- listening to the tail

    async def _run(self) -> None:
        backoff = Backoff()
        pause_s = self._limits.look_min_s
        tidied_at = self._time()
        while True:
            if (now := self._time()) - tidied_at > _TIDY_S:
                self._tidy(now)
                tidied_at = now
            if not self._followed:
                await self._rest()
            began = self._time()
            try:
                moves = await self._tail.poll()
            except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
                if not self._lost:
                    _log.warning("tail_lost", error=str(error), exc_info=not isinstance(error, PrimaryError))
                self._lost = True
                pause_s = backoff.next_s()
            else:
                backoff.reset()
                moved = self._take_in(moves, began)
                pause_s = self._limits.look_min_s if moved else self._longer(pause_s)
            await asyncio.sleep(pause_s)

    async def _rest(self) -> None:
        """Wait until someone is followed, without asking the primary for anything."""
        self._tail.forget()
        self._begun = False
        self._wanted.clear()
        await self._wanted.wait()
        self._heard_at = self._time()

    def _take_in(self, moves: Moves, began: float) -> bool:
        """Take in what a look told that began then; say whether anybody who is followed has moved."""
        self._looks += 1
        if moves.reset:
            self._era += 1
        since, self._heard_at = self._heard_at, began
        silent = self._lost or began - since > self._limits.silence_max_s
        if silent and self._begun:
            _log.info("tail_back", users=len(self._followed))
        self._begun, self._lost = True, False
        moved = False
        for user, cursor in moves.users.items():
            followed = self._followed.get(user)
            if followed is not None and followed.hear(cursor, since):
                moved = True
                self._put(followed)
        if moves.reset or silent:
            for followed in [*self._followed.values()]:
                if followed.joined != self._era or followed.target is not None:
                    self._put(followed)
        self._sync_next()
        return moved

    def _hears(self, now: float) -> bool:
        return self._begun and not self._lost and now - self._heard_at <= self._limits.silence_max_s

    def _longer(self, pause_s: float) -> float:
        most_s = self._limits.look_live_s if self._streams else self._limits.look_idle_s
        return min(max(pause_s, self._limits.look_min_s) * _GROWTH, most_s)

    def _joinable(self) -> int | None:
        """Give the era that a replica joins whose sync begins now; None while the tail has not looked yet."""
        return self._era if self._begun else None

    # ------------------------------------------------------------- syncing those who moved

    def _schedule(self, followed: Followed) -> None:
        self._put(followed)
        self._sync_next()

    def _put(self, followed: Followed) -> None:
        if not followed.waiting:
            followed.waiting = True
            heapq.heappush(self._due, (followed.heat(), next(self._order), followed))

    def _sync_next(self) -> None:
        while self._due and len(self._syncing) < self._limits.follow_concurrency:
            *_, followed = heapq.heappop(self._due)
            task = asyncio.create_task(self._bring(followed))
            self._syncing.add(task)
            task.add_done_callback(self._brought)

    def _brought(self, task: asyncio.Task[None]) -> None:
        self._syncing.discard(task)
        self._sync_next()

    async def _bring(self, followed: Followed) -> None:
        """Sync a user that moved, or that is to join."""
        target, era = followed.target, self._joinable()
        try:
            result = await self._store.sync(followed.user, at_least=followed.known(era))
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again
            followed.fail(self._time())
            if not is_told_already(error):
                ours = isinstance(error, PrimaryError | ReplicaUnavailable)
                _log.warning("follow_failed", error=str(error), exc_info=not ours)
            return
        finally:
            followed.waiting = False
        followed.reach(result.version, target, era)
        if followed.lacks(self._joinable()):
            self._schedule(followed)
