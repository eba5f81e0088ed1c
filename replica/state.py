"""The one row in which a replica says whose it is and where it stands."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

import apsw

from primary.cursor import Cursor
from replica.errors import Doubt


@dataclass(frozen=True, slots=True)
class State:
    """A replica's state.

    ``position`` is that of the pull which brought it to ``cursor`` (see `primary.feed.Pull`), ``base_version`` where it
    was built: changes after it are marked in `_change`.
    """

    user: str
    cursor: Cursor
    position: int
    base_version: int
    schema_hash: str
    synced_at: str

    @classmethod
    def at(cls, user: str, cursor: Cursor, position: int, base_version: int, schema_hash: str) -> State:
        """Give the state of a replica that is brought to ``cursor`` now."""
        return cls(
            user, cursor, position, base_version, schema_hash, datetime.now(UTC).isoformat(timespec="milliseconds")
        )

    @classmethod
    def read(cls, connection: apsw.Connection) -> State:
        """Read the state. Raises `Doubt` where there is none."""
        row = connection.execute(
            "SELECT user_id, epoch, version, position, base_version, schema_hash, synced_at FROM _replica"
        ).fetchone()
        if row is None:
            raise Doubt("the file does not say whose it is")
        user, epoch, version, position, base, schema_hash, synced_at = row
        return cls(user, Cursor(epoch, version), position, base, schema_hash, synced_at)

    def write(self, connection: apsw.Connection) -> None:
        """Write the state over the one that is there."""
        connection.execute(
            "INSERT OR REPLACE INTO _replica "
            "(lock, user_id, epoch, version, position, base_version, schema_hash, synced_at) "
            "VALUES (1, ?, ?, ?, ?, ?, ?, ?)",
            (
                self.user,
                self.cursor.epoch,
                self.cursor.version,
                self.position,
                self.base_version,
                self.schema_hash,
                self.synced_at,
            ),
        )
