"""Writes of a user's upstream settings: where the mirror goes to, its sealed key, and whether it is on."""

from __future__ import annotations

from dataclasses import dataclass

from primary.gallery.outbox import REARM_ROWS, SHOW
from primary.write import Write


class KeyNeeded(Exception):
    """There is no key for this endpoint yet: one must be given with it."""


@dataclass(frozen=True, slots=True)
class SavedUpstream:
    """The settings as they are stored, with what waits: what the user is shown."""

    endpoint: str
    pending: int
    parked: int


# The row that users see comes before all others: whoever shows it takes it before the user's head too.
_NAME = """
INSERT INTO upstream AS u (user_id, endpoint) VALUES (%(user)s, %(endpoint)s)
ON CONFLICT (user_id) DO UPDATE SET endpoint = excluded.endpoint"""

_CURRENT = "SELECT endpoint FROM upstream WHERE user_id = %(user)s FOR UPDATE"

_KEY = """
INSERT INTO upstream_key (user_id, sealed_key) VALUES (%(user)s, %(sealed_key)s)
ON CONFLICT (user_id) DO UPDATE SET sealed_key = excluded.sealed_key"""

_REARM = """
UPDATE upstream_key SET attempts = 0, parked = false, error = NULL, failed_at = NULL, due_at = now()
WHERE user_id = %(user)s"""

_SWITCH = """
INSERT INTO profile AS p (user_id, sync_upstream) VALUES (%(user)s, %(enabled)s)
ON CONFLICT (user_id) DO UPDATE SET sync_upstream = excluded.sync_upstream
WHERE p.sync_upstream <> excluded.sync_upstream"""

_OFF = "UPDATE profile SET sync_upstream = false WHERE user_id = %(user)s AND sync_upstream"

_FORGET = "DELETE FROM upstream WHERE user_id = %(user)s"

_SHOWN = "SELECT endpoint, pending, parked FROM upstream WHERE user_id = %(user)s"


async def save(write: Write, *, endpoint: str, sealed_key: bytes | None, enabled: bool) -> SavedUpstream:
    """Store the settings, and try again at once what failed or was parked; what waits goes to the new endpoint.

    Turned off, what waits is dropped. Without a key the stored one stays, which opens its own endpoint alone: raises
    `KeyNeeded` where there is none, or the endpoint is another.
    """
    asked = {"user": write.user, "endpoint": endpoint, "sealed_key": sealed_key, "enabled": enabled}
    if sealed_key is None and (await write.execute(_CURRENT, asked)).value() != endpoint:
        raise KeyNeeded
    await write.execute(_NAME, asked)
    if sealed_key is not None:
        await write.execute(_KEY, asked)
    for sql in (_REARM, REARM_ROWS, _SWITCH, SHOW):
        await write.execute(sql, asked)
    shown = (await write.execute(_SHOWN, asked)).one_or_none()
    return SavedUpstream(shown.endpoint, shown.pending, shown.parked)


async def forget(write: Write) -> None:
    """Turn the mirror off, and forget the endpoint, the key and what waits. Nothing happens where there is none."""
    for sql in (_CURRENT, _OFF, _FORGET):
        await write.execute(sql, {"user": write.user})
