"""What can go wrong with replicas.

ReplicaError
├── InvalidUser           a text cannot be a user's id
├── DataDirectoryLocked   another process owns the data directory
├── DataDirectoryUnusable it cannot be written, or something else is in its place
├── ReplicaUnavailable    the replica cannot be served now; trying again can help
│   ├── ReadTimeout       a read took longer than it may
│   └── Unfinished        an index that the read needs is still being made
└── Doubt                 the file may not be what was written; answered within the store by rebuilding it
"""

from __future__ import annotations


class ReplicaError(Exception):
    """Something went wrong with a replica."""

    hint: str = ""

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])
        if hint is not None:
            self.hint = hint


class InvalidUser(ReplicaError, ValueError):
    """A user's id is a text of 1 to 255 characters."""


class DataDirectoryLocked(ReplicaError):
    """Another process owns the data directory."""

    hint = "Stop the other process, or give this one a data directory of its own (TIDEPOOL_DATA_DIR)."


class DataDirectoryUnusable(ReplicaError):
    """The data directory cannot be used."""

    hint = "See that this user may write there and that the disk has room, or name another folder (TIDEPOOL_DATA_DIR)."


class ReplicaUnavailable(ReplicaError):
    """The replica cannot be served now."""

    hint = "Try again shortly."


class ReadTimeout(ReplicaUnavailable):
    """The read took too long and was stopped."""

    hint = "Ask for less at once."


class Unfinished(ReplicaUnavailable):
    """An index that the read needs is still being made; the store waits for it, as long as a read may take."""


class Doubt(ReplicaError):
    """The file may not be what was written."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
