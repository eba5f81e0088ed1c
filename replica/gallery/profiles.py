"""Reads of what a user is told of themselves."""

from __future__ import annotations

import apsw

from primary.gallery.tables import catalog
from replica.rendering import json_members

_PROFILE = f"SELECT CAST('{{' || {json_members(catalog['profile'], 'profile')} || '}}' AS BLOB) FROM profile"

# The switch is the profile's; the rest is the mirror's own row.
_UPSTREAM = f"""
SELECT CAST('{{"enabled":' || iif((SELECT sync_upstream FROM profile), 'true', 'false') || ','
  || {json_members(catalog["upstream"], "upstream")} || '}}' AS BLOB) FROM upstream"""


def profile(connection: apsw.Connection) -> bytes | None:
    """Give the profile as a JSON object; None if the user has none."""
    row = connection.execute(_PROFILE).fetchone()
    return row[0] if row is not None else None


def upstream(connection: apsw.Connection) -> bytes | None:
    """Give how the user's mirror goes as a JSON object; None if they named no server."""
    row = connection.execute(_UPSTREAM).fetchone()
    return row[0] if row is not None else None


def profile_and_upstream(connection: apsw.Connection) -> tuple[bytes | None, bytes | None]:
    """Give both as of one moment."""
    return profile(connection), upstream(connection)
