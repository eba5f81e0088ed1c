"""`tidepool migrate`: bring the database to what this release declares; for engineers, write the next."""

from __future__ import annotations

import click

from gateway.cli.environment import primary_of, read_settings, run
from gateway.cli.failures import FAILED
from gateway.settings import Settings


@click.command("migrate")
@click.option("--check", is_flag=True, help="Change nothing; print what would be done, exit 1 if anything would.")
def migrate_command(check: bool) -> None:
    """Apply the migrations that the database lacks.

    All of them, or none: it is one transaction. Two at once wait for each other.
    """
    run(_migrate(read_settings(), check=check))


async def _migrate(settings: Settings, *, check: bool) -> None:
    from primary.gallery.tables import catalog
    from primary.migrate import migrate, pending

    async with primary_of(settings, create=not check) as primary:
        steps = await (pending if check else migrate)(primary, catalog)
    for step in steps:
        click.echo(("would apply: " if check else "applied: ") + step)
    if not steps:
        click.echo("The database is current.")
    elif check:
        raise SystemExit(FAILED)


@click.command("migration", hidden=True)
@click.argument("name")
def migration_command(name: str) -> None:
    """Write the migration that brings a database of the last one to what the declarations now say."""
    run(_write(name))


async def _write(name: str) -> None:
    import tempfile
    from pathlib import Path

    from primary.declaration import Catalog
    from primary.embedded import EmbeddedPostgres
    from primary.gallery.tables import metadata
    from primary.migrate import migrate, write_step
    from primary.postgres import Primary

    with tempfile.TemporaryDirectory(prefix="tidepool-migration-") as folder:
        server = EmbeddedPostgres(Path(folder), settings={"fsync": "off"})
        primary = Primary(await server.start())
        await primary.open()
        try:
            # Only the chain: what is declared since has no table yet to capture.
            await migrate(primary, Catalog([]))
            await write_step(primary, name, [metadata])  # says itself where it is
        finally:
            await primary.close()
            await server.stop()
