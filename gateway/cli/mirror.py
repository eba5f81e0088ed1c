"""`tidepool mirror`: how deliveries to users' upstream servers go, and trying them again."""

from __future__ import annotations

import click

from gateway.cli.environment import primary_of, read_settings, run
from gateway.cli.user import USER
from gateway.settings import Settings


@click.group("mirror")
def mirror() -> None:
    """Look after deliveries to users' upstream servers.

    The server makes them; these commands work beside it.
    """


@mirror.command("status")
@click.option("--user", type=USER, help="Only of this user.")
def mirror_status(user: str | None) -> None:
    """Show for each user how many changes wait or are parked, and why."""
    run(_status(read_settings(), user))


@mirror.command("retry")
@click.option("--user", type=USER, help="Only of this user.")
def mirror_retry(user: str | None) -> None:
    """Try again at once what failed or was parked."""
    run(_retry(read_settings(), user))


async def _status(settings: Settings, user: str | None) -> None:
    from primary.gallery import outbox

    async with primary_of(settings) as primary:
        found = await outbox.standings(primary, user)
    if not found:
        click.echo("Nobody mirrors anything." if user is None else f"{user} mirrors nothing.")
    for one in found:
        state = "on" if one.enabled else "off"
        click.echo(f"{one.user}: {state}, {one.pending:,} pending, {one.parked:,} parked, {one.endpoint}")
        if one.last_error is not None and one.last_error_at is not None:
            click.echo(f"  {one.last_error_at:%Y-%m-%d %H:%M:%S%z}  {one.last_error}")


async def _retry(settings: Settings, user: str | None) -> None:
    from primary.gallery import outbox

    async with primary_of(settings) as primary:
        count = await outbox.rearm(primary, user)
    click.echo(f"{count:,} changes are tried again, by the server if it runs.")
