"""`tidepool serve`: run the gateway."""

from __future__ import annotations

import click

from gateway.cli.environment import read_settings, set_up_logs


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

    set_up_logs(settings)
    raise SystemExit(server.run(settings))
