"""`tidepool verify`: compare replicas with the primary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from gateway.cli.environment import primary_of, read_settings, run
from gateway.cli.failures import FAILED
from gateway.cli.user import USER
from gateway.settings import Settings

if TYPE_CHECKING:
    from replica.verify import UserReport


@click.command("verify")
@click.option("--user", "users", type=USER, multiple=True, help="Only this user's replica; may be given again.")
def verify_command(users: tuple[str, ...]) -> None:
    """Compare replicas with the primary.

    Row by row, all but what changed since the replica was synced; prints what differs, and exits 1 if
    anything does. The server may run meanwhile.
    """
    raise SystemExit(run(_verify(read_settings(), users)))


async def _verify(settings: Settings, users: tuple[str, ...]) -> int:
    from primary.gallery.tables import catalog
    from primary.postgres_feed import PostgresFeed
    from replica.location import DataDirectory
    from replica.verify import verify

    async with primary_of(settings) as primary:
        feed = PostgresFeed(primary, catalog)
        total = await verify(settings.data_dir, feed, catalog, users or None, _tell)
    for user in users:
        if not DataDirectory(settings.data_dir).of(user).database.exists():
            click.echo(f"{user}: has no replica here, so there is nothing to compare.", err=True)
    behind = f"; {total.behind:,} changed since and were left out" if total.behind else ""
    if total.clean:
        click.echo(f"replicas: {total.users:,}, rows: {total.compared:,}; all are as in the primary{behind}.")
        return 0
    click.echo(f"{len(total.differing):,} of {total.users:,} replicas differ from the primary{behind}.")
    click.echo("  A replica that differs is made anew with `tidepool rebuild USER`.", err=True)
    return FAILED


def _tell(one: UserReport) -> None:
    for difference in one.differences:
        click.echo(f"{one.user}: {difference}")
    if one.more_differences:
        click.echo(f"{one.user}: and {one.more_differences:,} more")
