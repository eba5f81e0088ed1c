"""The commands, put together."""

from __future__ import annotations

import logging
from importlib.metadata import version
from typing import Any

import click

from gateway.cli.database_url import database_url
from gateway.cli.dev import dev
from gateway.cli.export import export_command
from gateway.cli.failures import failure_of
from gateway.cli.import_ import import_command
from gateway.cli.migrate import migrate_command, migration_command
from gateway.cli.mirror import mirror
from gateway.cli.psql import psql
from gateway.cli.rebuild import rebuild
from gateway.cli.serve import serve
from gateway.cli.status import status
from gateway.cli.token import token
from gateway.cli.verify import verify_command
from gateway.observe.logs import configure_logs


class Commands(click.Group):
    """The group of all commands: tells errors as lines and exit codes, lists commands as they were added."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command that was named."""
        try:
            return super().invoke(ctx)
        except click.ClickException:
            raise
        except Exception as error:
            told = failure_of(error)
            if told is None:
                raise
            raise told from error

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Give the commands in the order in which one meets them."""
        return list(self.commands)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 failed or different, 2 wrong use or a wrong setting.",
)
@click.version_option(version("tidepool"), message="%(version)s")
def main() -> None:
    """Write to one Postgres, read from one SQLite file per user.

    Settings come from the environment: TIDEPOOL_DATA_DIR (default: data) says where everything is kept,
    TIDEPOOL_DATABASE_URL names a Postgres of your own. The README lists them all.
    """
    # A command's own lines say how it went; those that serve set up the logs that the settings ask for.
    configure_logs("error", "console")
    logging.getLogger("psycopg").setLevel(logging.ERROR)  # which sets a level of its own when it is imported


for _command in (
    dev,
    serve,
    migrate_command,
    token,
    database_url,
    psql,
    status,
    verify_command,
    rebuild,
    mirror,
    export_command,
    import_command,
    migration_command,
):
    main.add_command(_command)
