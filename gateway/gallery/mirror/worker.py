"""Delivering: takes what is due from the outbox, tells it to its server, and notes what became of it.

    async with mirroring(primary, settings):
        ...    # the server serves

It asks the primary at an interval, and again as soon as something was delivered. What it holds is what is under way,
a few rows; all else is in the primary. While that is away nothing is delivered.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from gateway.gallery.mirror.client import UpstreamClient
from gateway.gallery.mirror.graphql import Call, MirrorFailure, RowRefused, ServerFailed, o_call, rating_call
from gateway.gallery.mirror.limits import MirrorLimits
from gateway.gallery.mirror.sealing import CannotOpen, Sealer
from gateway.settings import Settings
from primary.errors import MigrationsPending, PrimaryBusy, PrimaryError, is_told_already
from primary.gallery import outbox
from primary.gallery.outbox import Taken
from primary.postgres import Primary
from replica.backoff import wait_s
from replica.ending import beside, cut_off

_log = structlog.get_logger("tidepool.mirror")

_SEALED_ELSEWHERE = "the key was sealed with another secret than this server has: save the settings again"


class Mirror:
    """The deliveries of one process. `run` goes on until it is cancelled; `stop` then ends what is under way."""

    def __init__(self, primary: Primary, sealer: Sealer, limits: MirrorLimits, client: UpstreamClient) -> None:
        self._primary = primary
        self._sealer = sealer
        self._limits = limits
        self._client = client
        self._look = outbox.Look(primary.url)
        self._under_way: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()  # something that was under way, so that there may be more to take
        self._to_show: set[str] = set()  # users who are shown what was; no more than had something delivered since
        self._show_at = 0.0
        self._sweep_at = 0.0
        self._in_trouble = False

    async def run(self) -> None:
        """Deliver, until cancelled."""
        while True:
            self._ended.clear()
            try:
                more = await self._take()
                await self._show()
                self._in_trouble = False
            except Exception as error:  # noqa: BLE001  # whatever it is, deliveries go on when it is over
                self._tell_trouble(error)
                await asyncio.sleep(self._limits.poll_interval_s)
                continue
            if more and len(self._under_way) < self._limits.concurrency:
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.poll_interval_s):
                    await self._ended.wait()

    async def stop(self) -> None:
        """Give what is under way a moment to end; the rest is cut off, and delivered again when its lease is over."""
        if self._under_way:
            _, late = await asyncio.wait(self._under_way, timeout=self._limits.stop_grace_s)
            await cut_off(late)
        await self._look.close()

    async def _take(self) -> bool:
        """Take what is due, as far as there is room, and begin to deliver it; give whether there was any."""
        limits = self._limits
        room = limits.concurrency - len(self._under_way)
        if room <= 0 or not await self._look.anything():
            return False
        taken = await outbox.take(self._primary, most=room, user_most=limits.user_concurrency, lease_s=limits.lease_s)
        for one in taken:
            task = asyncio.create_task(self._deliver(one), name="mirror-delivery")
            self._under_way.add(task)
            task.add_done_callback(self._end)
        return bool(taken)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._ended.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell_trouble(error)

    async def _deliver(self, taken: Taken) -> None:
        """Tell one change, and note how it went."""
        leased_until = time.monotonic() + self._limits.lease_s
        try:
            key = self._sealer.open(taken.sealed_key, taken.user, taken.endpoint)
            await self._client.tell(taken.endpoint, key, call_of(taken))
        except CannotOpen:
            noting = self._failure(taken, ServerFailed(_SEALED_ELSEWHERE, settled=True))
        except (ServerFailed, RowRefused) as failure:
            noting = self._failure(taken, failure)
        else:
            noting = outbox.delivered
        await self._note(taken, noting, leased_until)
        self._to_show.add(taken.user)

    def _failure(self, taken: Taken, failure: MirrorFailure) -> Callable[[Primary, Taken], Awaitable[None]]:
        """Decide what follows from a failure: when to try again, if at all."""
        limits = self._limits
        of_server = isinstance(failure, ServerFailed)
        before, last = (taken.server_attempts, taken.server_error) if of_server else (taken.attempts, taken.error)
        failures = before + 1
        # What will not get better is so if it comes twice in a row, whatever else failed before.
        parked = failures >= limits.tries_max or (failure.settled and str(failure) == last)
        wait = wait_s(failures, first_s=limits.backoff_first_s, max_s=limits.backoff_max_s)
        if parked:
            _log.warning("mirror_parked", user=taken.user, failures=failures, reason=str(failure))

        async def note(primary: Primary, taken: Taken) -> None:
            fail = outbox.server_failed if of_server else outbox.row_failed
            await fail(primary, taken, error=str(failure), wait_s=wait, parked=parked)

        return note

    async def _note(
        self, taken: Taken, noting: Callable[[Primary, Taken], Awaitable[None]], leased_until: float
    ) -> None:
        """Note an outcome, again while the primary is away: what is not noted is delivered once more.

        Only while the row is leased; after that it may be somebody else's.
        """
        while True:
            try:
                return await noting(self._primary, taken)
            except PrimaryError:
                if time.monotonic() + self._limits.poll_interval_s >= leased_until:
                    raise
                await asyncio.sleep(self._limits.poll_interval_s)

    async def _show(self) -> None:
        """Bring up to date what users see of it, if it is time."""
        now = time.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + self._limits.sweep_interval_s
            self._to_show.update(await outbox.outdated(self._primary))
        if not self._to_show or now < self._show_at:
            return
        self._show_at = now + self._limits.show_interval_s
        for user in list(self._to_show):
            self._to_show.discard(user)  # before: what ends meanwhile asks for another time
            shown = False
            try:
                with contextlib.suppress(PrimaryBusy):  # we gave way to a write of the user's own
                    shown = await outbox.show(self._primary, user)
            finally:
                if not shown:
                    self._to_show.add(user)

    def _tell_trouble(self, error: BaseException) -> None:
        """Log what keeps this from working, once until it works again. What others tell of the primary is known."""
        known = isinstance(error, MigrationsPending) or is_told_already(error)
        if not self._in_trouble and not known:
            _log.error("mirror_failed", exc_info=error)
        self._in_trouble = True


def call_of(taken: Taken) -> Call:
    """Give the call that a row asks for next."""
    if taken.kind == "rating":
        return rating_call(taken.stash_id, taken.amount)
    return o_call(taken.stash_id, more=(taken.amount or 0) > 0)


@asynccontextmanager
async def mirroring(primary: Primary, settings: Settings, limits: MirrorLimits | None = None) -> AsyncIterator[None]:
    """Deliver while the block lasts, within the limits of the settings where none are given."""
    limits = limits or MirrorLimits.of(settings)
    client = UpstreamClient(limits, private_allowed=settings.mirror_private_addresses_allowed)
    mirror = Mirror(primary, Sealer.of(settings), limits, client)
    try:
        async with beside(mirror.run(), "mirror"):
            yield
    finally:
        await mirror.stop()
        await client.close()
