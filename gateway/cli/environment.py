"""What every command starts from: the settings, an event loop, and the database that the settings name."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.cli.failures import Ended, Failure
from gateway.ending import orders
from gateway.settings import Settings
from replica.ending import to_its_end
from replica.faults import CRASH_VARIABLE

if TYPE_CHECKING:
    from primary.postgres import Primary

T = TypeVar("T")


def read_settings(overrides: Mapping[str, object] | None = None) -> Settings:
    """Read the settings from the environment, with what options of the command put over them.

    Raises `SettingsError`.
    """
    environment = {name: value for name, value in os.environ.items() if name != CRASH_VARIABLE}
    given = {name: str(value) for name, value in (overrides or {}).items() if value is not None}
    return Settings.from_environment(environment | {f"TIDEPOOL_{name.upper()}": v for name, v in given.items()})


def set_up_logs(settings: Settings) -> None:
    """Log as the settings ask, for a command that serves."""
    from gateway.observe.logs import configure_logs

    configure_logs(settings.log_level, settings.log_format)
    # It tells of its own workings; the steps that it takes are told by who asked for them.
    logging.getLogger("alembic").setLevel(logging.WARNING)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's work to its end, on the loop that the server uses.

    An order to end cancels it, so that it clears away what it has begun, its Postgres too. Raises `Ended`.
    """
    try:
        import uvloop
    except ImportError:  # not made for this platform
        return asyncio.run(_endable(work))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_endable(work))


async def _endable(work: Coroutine[Any, Any, T]) -> T:
    this = asyncio.current_task()
    assert this is not None
    given: list[signal.Signals] = []

    def end(order: signal.Signals) -> None:
        given.append(order)
        if len(given) == 1:  # a terminal that is closed gives two: the next one would break off the clearing away
            this.cancel()

    try:
        with orders(end, but={signal.SIGINT}):  # which is Python's, as KeyboardInterrupt
            return await work
    except asyncio.CancelledError:
        if not given:
            raise
        raise Ended(given[0]) from None


@asynccontextmanager
async def database(settings: Settings, *, create: bool = False) -> AsyncIterator[str]:
    """Give the address of the database that the settings name.

    An embedded one is started if it does not run, and stopped at the end if nobody else uses it by then.
    Without ``create`` it must be there already: a command in the wrong folder is to say so, not to start
    from nothing.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    from primary.embedded import EmbeddedPostgres

    server = EmbeddedPostgres(settings.data_dir)
    try:
        there = server.cluster.exists()
    except PermissionError:
        there = True  # and another's: what starts it says so
    if not create and not there:
        raise Failure(
            f"there is no data in {settings.data_dir.absolute()}.",
            "Set TIDEPOOL_DATA_DIR to where it is, or TIDEPOOL_DATABASE_URL; `tidepool dev` makes a new one.",
        )
    url = await server.start()
    try:
        yield url
    finally:
        await to_its_end(server.stop())


@asynccontextmanager
async def primary_of(settings: Settings, *, create: bool = False) -> AsyncIterator[Primary]:
    """Open the primary that the settings name, and see that it answers. Raises `PrimaryUnavailable`."""
    from primary.postgres import Primary

    async with database(settings, create=create) as url:
        primary = Primary(url, pool_max=settings.primary_pool_max, prepared_statements=settings.prepared_statements)
        await primary.open()
        try:
            await primary.ping()
            yield primary
        finally:
            await primary.close()
