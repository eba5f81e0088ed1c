"""What can go wrong at the primary.

PrimaryError
├── PrimaryUnavailable      Postgres cannot be reached; trying again can help
│   ├── PrimarySlow         it can, but took longer than it may
│   └── PrimaryBusy         it can, but gave this up: a time limit of its own, no room
│       └── InTheWay        another transaction has what this one needs: a lock, a deadlock
├── NotAllowed              the role that is connected as lacks a right
├── MigrationsPending       the database is not the one that this program declares
├── UnsupportedDeclaration  a table cannot be synced as it is declared
├── InvalidCursor           a text is not a cursor
├── EpochMismatch           two cursors do not belong to the same primary
└── Refused                 Postgres refused what was to be written; names the rule
    ├── InvalidValue        for what it is: too long, missing, against a check
    └── Conflict            for what is there: a key that is taken, a row that is referred to
"""

from __future__ import annotations


class PrimaryError(Exception):
    """Something went wrong at the primary."""

    hint: str = ""

    def __init__(self, message: str = "", *, hint: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").partition("\n")[0])
        if hint is not None:
            self.hint = hint


class PrimaryUnavailable(PrimaryError):
    """The primary database cannot be reached."""

    hint = "Try again shortly; check that Postgres runs and that TIDEPOOL_DATABASE_URL points to it."


class PrimarySlow(PrimaryUnavailable):
    """The primary database took too long, and was told to stop."""

    hint = (
        "Ask for less at once, or end the open transaction that holds what it needs; "
        "what takes long on an idle machine too will not get better by trying again."
    )


class PrimaryBusy(PrimaryUnavailable):
    """The primary database gave this up; nothing was written."""

    hint = "Try again: it may have been in another's way, or over a limit of the database."


class InTheWay(PrimaryBusy):
    """Another transaction has what this one needs; nothing was written."""


class NotAllowed(PrimaryError):
    """The database role that tidepool connects as lacks a right."""

    hint = "Connect as the owner of the tables, or GRANT what is missing; tidepool migrate is for the owner alone."


class MigrationsPending(PrimaryError):
    """The database is not migrated to what this program declares."""

    hint = "Run: tidepool migrate"


class UnsupportedDeclaration(PrimaryError):
    """A table cannot be synced as it is declared."""


class InvalidCursor(PrimaryError, ValueError):
    """The text is not a cursor."""

    hint = "Hand back a `version` as an answer gave it, unchanged."


class EpochMismatch(PrimaryError):
    """The cursors belong to different primaries and cannot be ordered."""

    hint = "Forget the old cursor and read again without it."


class Refused(PrimaryError):
    """Postgres refused what was to be written; nothing was.

    ``field`` is the constraint's name or the column's, ``table`` the table's; each is empty where Postgres does not
    say it. None of it holds a value, nor does ``reason``. ``said`` may: it is what Postgres said, for the log alone.
    """

    def __init__(self, field: str, reason: str, *, table: str = "", said: str = "") -> None:
        super().__init__(": ".join(filter(None, (table, field, reason))))
        self.field = field
        self.reason = reason
        self.table = table
        self.said = said


class InvalidValue(Refused, ValueError):
    """Postgres refused a value."""


class Conflict(Refused):
    """Postgres refused a row for others that are there, or are not."""

    hint = "Read again what there is: change what you write, or what is in its way."


def is_told_already(error: BaseException) -> bool:
    """Tell whether an error needs no line of its own in the log, for who watches the primary writes of what it says."""
    return isinstance(error, PrimaryUnavailable) and not isinstance(error, PrimarySlow)
