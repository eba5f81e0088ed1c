import psycopg
import pytest

from primary.driver_errors import translate
from primary.errors import (
    Conflict,
    InTheWay,
    InvalidValue,
    MigrationsPending,
    NotAllowed,
    PrimaryBusy,
    PrimaryError,
    PrimaryUnavailable,
)


@pytest.mark.parametrize(
    ("error", "meaning"),
    [
        (psycopg.OperationalError("connection refused"), PrimaryUnavailable),
        (psycopg.errors.AdminShutdown("terminating"), PrimaryUnavailable),
        (psycopg.errors.TooManyConnections("sorry"), PrimaryUnavailable),
        (psycopg.errors.DeadlockDetected("deadlock detected"), InTheWay),
        (psycopg.errors.SerializationFailure("could not serialize"), InTheWay),
        (psycopg.errors.QueryCanceled("statement timeout"), PrimaryBusy),
        (psycopg.errors.DiskFull("no space left"), PrimaryBusy),
        (psycopg.errors.ReadOnlySqlTransaction("cannot execute INSERT"), PrimaryBusy),
        (psycopg.errors.IdleInTransactionSessionTimeout("terminating"), PrimaryBusy),
        (psycopg.errors.TransactionTimeout("terminating"), PrimaryBusy),
        (psycopg.errors.UniqueViolation("duplicate key"), Conflict),
        (psycopg.errors.RaiseException("not so"), InvalidValue),
        (psycopg.errors.InsufficientPrivilege("permission denied"), NotAllowed),
        (psycopg.errors.UndefinedTable("no such table"), MigrationsPending),
        (psycopg.errors.ObjectNotInPrerequisiteState("recovery is in progress"), PrimaryUnavailable),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_what_a_driver_says_is_told_as_what_it_means(error: psycopg.Error, meaning: type[PrimaryError]) -> None:
    assert type(translate(error)) is meaning


def test_a_defect_of_ours_is_no_trouble_of_the_primary() -> None:
    for error in (psycopg.errors.SyntaxError("at or near"), psycopg.errors.InFailedSqlTransaction("is aborted")):
        assert translate(error) is None
