"""`tidepool rebuild`: make a user's replica anew from the primary."""

from __future__ import annotations

import time

import click

from gateway.cli.environment import primary_of, read_settings, run
from gateway.cli.user import USER
from gateway.settings import Settings


@click.command()
@click.argument("user", type=USER)
def rebuild(user: str) -> None:
    """Build the replica of USER anew.

    From the primary. While the server runs, the file is only set aside: the server builds another when the
    user reads next. Nothing can be lost by it: a replica holds only what the primary has.
    """
    from replica.errors import DataDirectoryLocked

    settings = read_settings()
    try:
        run(_rebuild(settings, user))
    except DataDirectoryLocked:
        _set_aside(settings, user)


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


def _set_aside(settings: Settings, user: str) -> None:
    """Take the file away under the server, which looks after it before each read and each write."""
    from replica.location import DataDirectory
    from replica.quarantine import set_aside
    from replica.results import StoreLimits

    directory = DataDirectory(settings.data_dir)
    location = directory.of(user)
    if location.database.exists():
        set_aside(location, directory.quarantine, StoreLimits().quarantine_max)
        click.echo(f"set aside: the server, which is running, builds the replica of {user} anew when it is read next")
    else:
        click.echo(f"there is no replica of {user}: the server, which is running, builds it when it is read")
