"""`tidepool dev`: everything at once, for trying it out. `make run` is this."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import AsyncExitStack

import click

from gateway.cli.environment import database, primary_of, read_settings, run, set_up_logs
from gateway.cli.token import DAY_S, make_token
from gateway.ending import orders
from gateway.settings import Settings

# A token pasted into a browser or a script on Monday should still work on Friday.
TOKEN_TTL_S = 30 * DAY_S


@click.command()
@click.option("--host", help="Where to listen (TIDEPOOL_HOST).")
@click.option("--port", type=int, help="At which port, 0 for any free one (TIDEPOOL_PORT).")
def dev(host: str | None, port: int | None) -> None:
    """Run everything at once, for trying it out.

    That is: the gateway, a database, its migrations and, on the first start, a demo user. Prints an
    address, a token and what to type. Ctrl-C stops everything; the next start has all the data.
    """
    overrides = {"host": host, "port": port}
    if not {"TIDEPOOL_LOG_FORMAT", "LOG_FORMAT"} & os.environ.keys() and sys.stderr.isatty():
        overrides["log_format"] = "console"
    settings = read_settings(overrides)
    set_up_logs(settings)
    raise SystemExit(run(_dev(settings)))


async def _dev(settings: Settings) -> int:
    from gateway.demo import IMAGES, USER, ensure_demo
    from gateway.memory import freeze_startup, settle_allocator
    from gateway.server import serve
    from primary.gallery.tables import catalog
    from primary.migrate import migrate

    settle_allocator()
    # Held from here on, so that serving below joins it instead of starting it a second time.
    async with AsyncExitStack() as stack, database(settings, create=True):
        async with primary_of(settings) as primary:
            for step in await migrate(primary, catalog):
                click.echo(f"applied: {step}")
            if await ensure_demo(primary):
                click.echo(f"made the user {USER} with {IMAGES} images")

        def ready(host: str, port: int) -> None:
            freeze_startup()
            click.echo(_welcome(settings, _address(host, port)))

        code = await serve(settings, ready=ready)
        stack.enter_context(orders(lambda _: None))  # given again, one would break off what stops the database
        return code


def _address(host: str, port: int) -> str:
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _welcome(settings: Settings, address: str) -> str:
    from gateway.demo import USER

    where = f"tidepool is up at {address}; its data is in {settings.data_dir}. Ctrl-C stops everything."
    if settings.jwks_url is not None:
        return f"\n{where}\nTokens come from {settings.jwks_url}.\n"
    token = make_token(settings, USER, ttl_s=TOKEN_TTL_S)
    authorization = f"-H 'Authorization: Bearer {token}'"
    image = '{"prompt": "a tide pool at low water", "image_url": "https://example.com/pool.png"}'
    return f"""
{where}

Token of the user {USER}, good for {TOKEN_TTL_S // DAY_S} days:
{token}

Save an image:
curl -sS {address}/api/images {authorization} -H 'Content-Type: application/json' -d {shlex.quote(image)}

Sync it into {USER}'s own SQLite file:
curl -sS -X POST {address}/api/sync {authorization}

List the newest, read from that file:
curl -sS '{address}/api/images?limit=3' {authorization}
"""
