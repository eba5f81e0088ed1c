"""Reads of the user's profile."""

from __future__ import annotations

import sqlite3

from primary.gallery.tables import catalog
from replica.rendering import json_members

_PROFILE = f"SELECT CAST('{{' || {json_members(catalog['profile'], 'profile')} || '}}' AS BLOB) FROM profile"


def profile(connection: sqlite3.Connection) -> bytes | None:
    """Give the profile as a JSON object; None if the user has none."""
    row = connection.execute(_PROFILE).fetchone()
    return row[0] if row is not None else None
