"""What an error of the driver means to who calls: Postgres away, busy, not migrated, or a value that it refuses."""

from __future__ import annotations

import re

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout

from primary.errors import (
    InTheWay,
    InvalidValue,
    MigrationsPending,
    NotAllowed,
    PrimaryBusy,
    PrimaryError,
    PrimarySlow,
    PrimaryUnavailable,
)
from primary.patience import Stopped

_UNAVAILABLE = ("08", "57P", "53300")  # connection exceptions, shutting down or starting up, too many connections
_IN_THE_WAY = ("40", "55P03")  # deadlock or conflict, a lock's time limit
_BUSY = ("53", "57014")  # no room, a statement's time limit
_STANDBY = "55000"  # what asking for the write position raises during recovery
_PROMOTE = "Point TIDEPOOL_DATABASE_URL to the primary, or wait until this one is promoted."
_NO_TABLE = ("42P01", "3F000")  # no such table, no such schema
_NOT_NULL, _CHECK = "23502", "23514"
_NO_RIGHT = "42501"
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
            if state.startswith("22"):  # data exceptions: the message tells of the value alone
                return InvalidValue(error.diag.column_name or "", error.diag.message_primary or "is refused")
            if state == _NOT_NULL:
                return InvalidValue(error.diag.column_name or "", "must be given")
            if state == _CHECK:
                return InvalidValue(error.diag.constraint_name or "", "is not kept by the value given")
    return None


def _unreached(error: psycopg.Error) -> str:
    """Say in one line why Postgres was not reached, for who runs this: a wrong password is no outage."""
    # What is before an @ may be a part of a password that has one, taken for the host's name.
    reason = re.sub(r"\S+@", "…@", " ".join(str(error).split()))[:_REASON_MAX_CHARS]
    return f"The primary database cannot be reached: {reason}" if reason else ""
