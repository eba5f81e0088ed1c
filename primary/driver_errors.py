"""What an error of the driver means to who calls: Postgres away, busy, not migrated, or a write that it refuses."""

from __future__ import annotations

import re

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from primary.errors import (
    Conflict,
    InTheWay,
    InvalidValue,
    MigrationsPending,
    NotAllowed,
    PrimaryBusy,
    PrimaryError,
    PrimarySlow,
    PrimaryUnavailable,
    Refused,
)
from primary.patience import Stopped

_UNAVAILABLE = ("08", "57P", "53300")  # connection exceptions, shutting down or starting up, too many connections
_IN_THE_WAY = ("40", "55P03")  # deadlock or conflict, a lock's time limit
_BUSY = ("53", "57014", "25P03", "25P04", "25006")  # no room, time limits of statement and transaction, only reads now
_STANDBY = "55000"  # what asking for the write position raises during recovery
_PROMOTE = "Point TIDEPOOL_DATABASE_URL to the primary, or wait until this one is promoted."
_NO_TABLE = ("42P01", "3F000")  # no such table, no such schema
_NO_RIGHT = "42501"
_INVALID = {
    "22001": "a value is too long",
    "22003": "a value is out of range",
    "22": "a value cannot be taken",  # any other data exception; of none of these the column is told
    "23502": "must be given",
    "23514": "breaks a rule of its table",
    "44000": "the row is not of those that the view shows",
    "54000": "a value is too large",  # for an index, or for a search vector
    "P0001": "the row breaks a rule of the database",  # RAISE EXCEPTION without a code of its own
}
_CONFLICT = {
    "23001": "a row that is there refers to it",
    "23503": "it refers to a row that is not there, or a row that is there to it",
    "23505": "there is such a row already",
    "23P01": "a row that is there excludes it",
}
_REASON_MAX_CHARS = 500


def translate(error: BaseException | None) -> PrimaryError | None:
    """Give the error that a driver's error means to callers, None where it is a defect of ours."""
    match error:
        case Stopped():
            return PrimarySlow()
        case TimeoutError():
            return PrimaryUnavailable("the primary database did not answer in time")
        case PoolTimeout():
            return PrimaryBusy("no connection to the primary database became free in time")
        case PoolClosed() | psycopg.InterfaceError():
            return PrimaryUnavailable()
        case psycopg.DataError() if error.sqlstate is None:  # refused by the driver, before Postgres saw it
            return InvalidValue("", str(error))
        case psycopg.Error():
            state = error.sqlstate or ""
            if state.startswith(_UNAVAILABLE) or (isinstance(error, psycopg.OperationalError) and not state):
                return PrimaryUnavailable(_unreached(error))
            if state.startswith(_IN_THE_WAY):
                return InTheWay(error.diag.message_primary or "")
            if state.startswith(_BUSY):
                return PrimaryBusy(error.diag.message_primary or "")
            if state == _STANDBY:
                return PrimaryUnavailable("the database is a standby", hint=_PROMOTE)
            if state == _NO_RIGHT:
                return NotAllowed(error.diag.message_primary or "")
            if state in _NO_TABLE:
                return MigrationsPending()
            if (reason := _CONFLICT.get(state)) is not None:
                return _refused(Conflict, reason, error)
            if (reason := _INVALID.get(state) or _INVALID.get(state[:2])) is not None:
                return _refused(InvalidValue, reason, error)
    return None


def _refused(kind: type[Refused], reason: str, error: psycopg.Error) -> Refused:
    """Name what was refused. What Postgres says of it may hold the values of a row, and whose that is nobody knows."""
    diag = error.diag
    said = (diag.message_primary or "")[:_REASON_MAX_CHARS]
    return kind(diag.constraint_name or diag.column_name or "", reason, table=diag.table_name or "", said=said)


def _unreached(error: psycopg.Error) -> str:
    """Say in one line why Postgres was not reached, for who runs this: a wrong password is no outage."""
    # What is before an @ may be a part of a password that has one, taken for the host's name.
    reason = re.sub(r"\S+@", "…@", " ".join(str(error).split()))[:_REASON_MAX_CHARS]
    return f"The primary database cannot be reached: {reason}" if reason else ""
