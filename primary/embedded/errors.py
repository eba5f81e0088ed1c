"""What can go wrong with the embedded Postgres: one error, whose hint says what to type."""

from __future__ import annotations

from primary.errors import PrimaryError


class EmbeddedPostgresError(PrimaryError):
    """The embedded Postgres cannot be used."""
