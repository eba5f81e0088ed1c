"""`tidepool token`: let somebody in."""

from __future__ import annotations

import click

from gateway.cli.environment import read_settings
from gateway.cli.failures import USAGE, Failure
from gateway.settings import Settings

DAY_S = 86_400


@click.command()
@click.argument("user")
@click.option("--admin", is_flag=True, help="Say that USER is an administrator; so far only GET /api/me tells of it.")
@click.option("--ttl-s", type=click.IntRange(min=1), default=DAY_S, show_default=True, help="How long it is good for.")
def token(user: str, admin: bool, ttl_s: int) -> None:
    """Print a token that speaks for USER.

    It is signed with TIDEPOOL_JWT_SECRET, or with the secret that the server keeps in the data directory.
    """
    click.echo(make_token(read_settings(), user, admin=admin, ttl_s=ttl_s))


def make_token(settings: Settings, user: str, *, admin: bool = False, ttl_s: int = DAY_S) -> str:
    """Sign a token as the server with these settings believes it. Raises `Failure`."""
    from gateway.auth.secret import NAME, load_or_create_secret
    from gateway.auth.tokens import issue

    if settings.jwks_url is not None:
        raise Failure(
            f"tokens are made by whoever holds the keys behind {settings.jwks_url}.",
            "Unset TIDEPOOL_JWKS_URL to have this server sign its own.",
        )
    secret = settings.jwt_secret
    if secret is None:
        found = (settings.data_dir / NAME).exists()
        secret = load_or_create_secret(settings.data_dir)
        if not found:  # on stderr, for the token alone is the output
            where = settings.data_dir.absolute()
            click.echo(f"tidepool: made the secret that signs it in {where}, where there was none.", err=True)
            click.echo("  A server whose data is elsewhere does not believe it: set TIDEPOOL_DATA_DIR.", err=True)
    try:
        return issue(secret, user, admin=admin, ttl_s=ttl_s, audience=settings.jwt_audience, issuer=settings.jwt_issuer)
    except ValueError as error:
        raise Failure(f"{error}.", exit_code=USAGE) from error
