"""`tidepool serve`: run the gateway."""

from __future__ import annotations

import click

from gateway.cli.environment import read_settings


@click.command()
@click.option("--host", help="Where to listen (TIDEPOOL_HOST).")
@click.option("--port", type=int, help="At which port, 0 for any free one (TIDEPOOL_PORT).")
def serve(host: str | None, port: int | None) -> None:
    """Run the gateway until Ctrl-C or SIGTERM.

    Without TIDEPOOL_DATABASE_URL it runs a Postgres of its own in the data directory, and migrates it. A
    database of your own is migrated with `tidepool migrate`.
    """
    settings = read_settings({"host": host, "port": port})
    from gateway import server
    from gateway.observe.logs import configure_logs

    configure_logs(settings.log_level, settings.log_format)
    raise SystemExit(server.run(settings))
