"""`tidepool psql`: look into the primary with the psql that comes along."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

import click

from gateway.cli.environment import database, read_settings, run
from gateway.settings import Settings


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Run psql on the primary database.

    With what it is given: `tidepool psql -c 'TABLE album'`.
    """
    raise SystemExit(run(_psql(read_settings(), arguments)))


async def _psql(settings: Settings, arguments: tuple[str, ...]) -> int:
    from primary.embedded import psql_path

    loop = asyncio.get_running_loop()
    async with database(settings) as url:
        # Ctrl-C is for psql, which ends a query with it.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        try:
            process = await asyncio.create_subprocess_exec(psql_path(), url, *arguments)
            try:
                return await process.wait()
            except asyncio.CancelledError:
                with suppress(ProcessLookupError):  # the order was for all of a terminal's, and ended it already
                    process.terminate()
                await process.wait()
                raise
        finally:
            loop.remove_signal_handler(signal.SIGINT)
