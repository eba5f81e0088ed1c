"""The server's life: what it needs is opened in order, and closed in the reverse order, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from gateway.app import create_app
from gateway.auth import JwksKeys, Keys, SecretKey, TokenVerifier, load_or_create_secret
from gateway.ending import orders
from gateway.events.streams import Streams
from gateway.gallery.mirror.worker import mirroring
from gateway.listening import Ready, Server, bind
from gateway.memory import freeze_startup, settle_allocator
from gateway.once import sweep_on
from gateway.settings import Settings, SettingsError
from primary.embedded import EmbeddedPostgres, EmbeddedPostgresError
from primary.errors import PrimaryUnavailable
from primary.gallery.tables import catalog
from primary.migrate import migrate
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from primary.postgres_tail import PostgresTail
from replica.ending import beside
from replica.faults import from_environment
from replica.follower import Follower
from replica.results import FollowLimits, StoreLimits
from replica.store import Store

REVIVE_S = 2.0  # between two looks whether our own Postgres has ended; each start on a full disk is in vain

_log = structlog.get_logger("tidepool.server")


async def serve(settings: Settings, *, ready: Ready | None = None) -> int:
    """Serve until an order to end (`gateway.ending`), or until cancelled; give the exit code.

    An embedded Postgres is migrated first. A database of one's own is migrated with ``tidepool migrate``, and
    may be away: then the server starts, serves the replicas that it has, and says what is missing at
    /health/ready. Raises what keeps it from starting: `CannotListen`, `SettingsError`, `DataDirectoryLocked`,
    `DataDirectoryUnusable`, `EmbeddedPostgresError` or another `PrimaryError`.
    """
    this = asyncio.current_task()
    assert this is not None
    server: Server | None = None
    ordered = False

    def stop(_: signal.Signals) -> None:
        nonlocal ordered
        if server is not None and server.started:
            server.should_exit = True
            server.force_exit = ordered  # the second time without waiting for requests
        elif not ordered:
            this.cancel()
        ordered = True

    with orders(stop):
        try:
            async with opened(settings) as (app, listening, streams):
                server = Server(app, ready, streams)
                await server.serve(sockets=[listening])
        except asyncio.CancelledError:
            if not ordered:
                raise
            this.uncancel()
    _log.info("stopped")
    return 0


def run(settings: Settings, *, ready: Ready | None = None) -> int:
    """Serve in an event loop of its own, uvloop's; give the exit code."""
    import uvloop  # noqa: PLC0415  # exists on no Windows

    def settled(host: str, port: int) -> Awaitable[None] | None:
        freeze_startup()
        return ready(host, port) if ready is not None else None

    settle_allocator()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(serve(settings, ready=settled))


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Any, socket.socket, Streams]]:
    """Open all that serving needs; give the application, the socket that it is to be served on, and its streams."""
    async with AsyncExitStack() as stack:
        # First, for it is what fails most, and at once.
        listening = stack.enter_context(contextlib.closing(bind(settings.host, settings.port)))
        _make(settings.data_dir)
        verifier = _verifier(settings)
        stack.push_async_callback(verifier.close)
        url = settings.database_url
        embedded: EmbeddedPostgres | None = None
        if url is None:
            embedded = EmbeddedPostgres(settings.data_dir)
            stack.push_async_callback(embedded.stop)
            url = await embedded.start()
        primary = Primary(url, pool_max=settings.primary_pool_max, prepared_statements=settings.prepared_statements)
        stack.push_async_callback(primary.close)
        await primary.open()
        if settings.database_url is None:
            for done in await migrate(primary, catalog):
                _log.info("migrated", step=done)
        limits = StoreLimits(replica_open_max=settings.replica_open_max, sync_concurrency=settings.sync_concurrency)
        passing = from_environment(os.environ)  # a test's order to die at some point of a sync; else nothing
        store = Store(settings.data_dir, catalog, PostgresFeed(primary, catalog), limits, passing)
        await store.open()
        stack.push_async_callback(store.close)
        probe = _probe(primary, settings.primary_probe_interval_s)
        await stack.enter_async_context(beside(probe, "primary-probe"))
        if embedded is not None:
            await stack.enter_async_context(beside(_revive(embedded, primary), "postgres-revive"))
        sweep = sweep_on(primary, kept_s=settings.idempotency_kept_s)
        await stack.enter_async_context(beside(sweep, "idempotency-sweep"))
        await stack.enter_async_context(mirroring(primary, settings))
        follower = Follower(store, PostgresTail(primary), _follow_limits(settings), lambda: not primary.reachable)
        primary.watch(follower.wake)
        await stack.enter_async_context(follower.running())
        streams = Streams(
            store.advances,
            follower,
            per_user_max=settings.event_streams_per_user_max,
            node_max=settings.event_streams_max,
        )
        yield create_app(settings, primary, store, follower, streams, catalog, verifier), listening, streams


async def _revive(embedded: EmbeddedPostgres, primary: Primary) -> None:
    """Start our own Postgres again where it has ended: killed for want of memory, or given up on a full disk."""
    while True:
        await asyncio.sleep(REVIVE_S)
        if primary.reachable:
            continue
        try:
            if await embedded.revive():
                _log.warning("postgres_started_again")
        except (EmbeddedPostgresError, OSError) as error:
            _log.warning("postgres_does_not_start", error=str(error))


def _follow_limits(settings: Settings) -> FollowLimits:
    return FollowLimits(
        follow_idle_s=settings.follow_idle_s,
        follow_concurrency=max(1, settings.sync_concurrency // 2),
        look_live_s=settings.look_live_ms / 1000,
        look_idle_s=settings.look_idle_ms / 1000,
    )


def _make(data_dir: Path) -> None:
    try:
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            [f"TIDEPOOL_DATA_DIR is {str(data_dir)!r}, which cannot be made: {error.strerror}"]
        ) from None


def _verifier(settings: Settings) -> TokenVerifier:
    keys: Keys
    if settings.jwks_url is not None:
        keys = JwksKeys(settings.jwks_url, cache_s=settings.jwks_cache_s)
    else:
        keys = SecretKey(settings.jwt_secret or load_or_create_secret(settings.data_dir))
    return TokenVerifier(
        keys,
        audience=settings.jwt_audience,
        issuer=settings.jwt_issuer,
        cache_max=settings.token_cache_max,
    )


async def _probe(primary: Primary, interval_s: float) -> None:
    """Ask the primary for a sign of life now and then: its going and coming is known without a request."""
    reachable = True
    while True:
        why = ""
        try:
            await primary.ping()
        except PrimaryUnavailable as error:
            why = str(error)
        if primary.reachable is not reachable:
            reachable = primary.reachable
            if reachable:
                _log.info("primary_back")
            else:
                _log.warning("primary_lost", error=why)
        await asyncio.sleep(interval_s)
