"""`tidepool rebuild`: make a user's replica anew from the primary."""

from __future__ import annotations

import time

import click

from gateway.cli.environment import primary_of, read_settings, run
from gateway.settings import Settings


@click.command()
@click.argument("user")
def rebuild(user: str) -> None:
    """Build the replica of USER anew.

    From the primary; the server must not run meanwhile. Nothing can be lost by it: a replica holds only
    what the primary has.
    """
    run(_rebuild(read_settings(), user))


async def _rebuild(settings: Settings, user: str) -> None:
    from primary.gallery.tables import catalog
    from primary.postgres_feed import PostgresFeed
    from replica.store import Store

    async with primary_of(settings) as primary:
        store = Store(settings.data_dir, catalog, PostgresFeed(primary, catalog))
        await store.open()
        try:
            begun = time.monotonic()
            result = await store.rebuild(user)
            took_s = time.monotonic() - begun
        finally:
            await store.close()
    click.echo(f"rebuilt: {result.applied:,} rows at {result.version}, in {took_s:.1f} s")
