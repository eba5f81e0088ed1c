"""`tidepool database-url`: where the primary is, for psql and other tools."""

from __future__ import annotations

import click

from gateway.cli.environment import read_settings
from gateway.cli.failures import Failure
from gateway.settings import Settings


@click.command("database-url")
def database_url() -> None:
    """Print the address of the primary database.

    As psql and libpq read it. An embedded Postgres has one while it runs.
    """
    click.echo(_address(read_settings()))


def _address(settings: Settings) -> str:
    from primary.embedded import EmbeddedPostgres

    url = settings.database_url or EmbeddedPostgres(settings.data_dir).running_url()
    if url is None:
        raise Failure(
            f"the embedded Postgres of {settings.data_dir.absolute()} is not running.",
            "`tidepool dev` and `tidepool serve` run it; `tidepool psql` starts it for a while.",
        )
    return url
