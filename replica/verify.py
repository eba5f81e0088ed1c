"""Comparing replicas with the primary, row by row.

A replica at cursor V is compared with the primary as of now: every row that did not change since V must be the same
on both sides, and rows that did are left out on both. So a server may run meanwhile, and no replica is written to.
(SQLite makes the index of a log beside each that it opens; who opens the replica to write takes it away.)
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import apsw

from primary.declaration import Catalog, SyncedTable
from primary.feed import VALUES, Feed, Kind, Pull
from replica.apply import match_sql
from replica.errors import Doubt
from replica.library import connect
from replica.location import DataDirectory, Location
from replica.rendering import quoted
from replica.schema import Schema
from replica.state import State

T = TypeVar("T")

Missing = dict[str, dict[tuple[object, ...], str]]
"""By table, what differs of the rows of the primary that are not as they are there, by key."""

DIFFERENCES_MAX = 20  # of one replica that are told in full; the others are counted


@dataclass(slots=True)
class UserReport:
    """What comparing one replica found: rows compared and left out, and what differs, as sentences."""

    user: str
    compared: int = 0
    behind: int = 0
    differences: list[str] = field(default_factory=list)
    more_differences: int = 0

    def differ(self, sentence: str) -> None:
        """Note a difference."""
        if len(self.differences) < DIFFERENCES_MAX:
            self.differences.append(sentence)
        else:
            self.more_differences += 1


@dataclass(slots=True)
class VerifyReport:
    """What comparing all replicas found."""

    users: int = 0
    compared: int = 0
    behind: int = 0
    differing: list[UserReport] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing differs."""
        return not self.differing


async def verify(
    data_dir: Path,
    feed: Feed,
    catalog: Catalog,
    users: Iterable[str] | None = None,
    report: Callable[[UserReport], None] = lambda _: None,
) -> VerifyReport:
    """Compare the replicas of a data directory, or of some users, with the primary; ``report`` is told of each.

    Raises `PrimaryUnavailable`. A user without a replica has nothing to compare.
    """
    directory = DataDirectory(data_dir)
    schema = Schema(catalog)
    locations = directory.all() if users is None else (directory.of(user) for user in users)
    total = VerifyReport()
    for location in locations:
        if not location.database.exists():
            continue
        one = await _verify_file(directory, location, feed, schema)
        total.users += 1
        total.compared += one.compared
        total.behind += one.behind
        if one.differences:
            total.differing.append(one)
        report(one)
    return total


async def _verify_file(directory: DataDirectory, location: Location, feed: Feed, schema: Schema) -> UserReport:
    report = UserReport(f"(file {location.database.name})")
    try:
        with closing(connect(location.uri("ro"))) as connection:
            connection.execute("BEGIN")
            state = State.read(connection)
            report.user = state.user
            if directory.of(state.user) != location:
                report.differ("the file lies in another user's place")
            elif state.schema_hash != schema.hash:
                report.differ("the file has another schema; it is rebuilt when its user reads")
            else:
                await _compare(connection, state, feed, schema, report)
    except (apsw.Error, Doubt, ValueError) as error:
        report.differ(f"the file cannot be read: {error}")
    return report


async def _compare(connection: apsw.Connection, state: State, feed: Feed, schema: Schema, report: UserReport) -> None:
    unseen = {table.name: _Unseen(connection, table) for table in schema.catalog}
    async with feed.pull(state.user, None) as pull:
        if pull.cursor.epoch != state.cursor.epoch:
            report.differ(f"the file is of the epoch {state.cursor.epoch}, the primary is {pull.cursor.epoch}")
            return
        if pull.cursor < state.cursor:
            report.differ(f"the file is at {state.cursor}, ahead of the primary, which is at {pull.cursor}")
            return
        missing = await _reading(pull, _look_up, unseen, report)
    # Taken after the snapshot, so that these are all that can have changed between the file's state and it.
    async with feed.pull(state.user, state.cursor) as pull:
        if pull.kind is Kind.SNAPSHOT:
            report.differ(f"the file is at {state.cursor}, from which the primary has no changes any more")
            return
        await _reading(pull, _leave_out, unseen, missing, report)
    for name, differences in missing.items():
        for sentence in differences.values():
            report.differ(sentence)
        for key in unseen[name].keys:
            report.differ(f"{name} {key}: is in the replica and not in the primary")


async def _reading(pull: Pull, work: Callable[..., T], *given: Any) -> T:
    """Run ``work`` with a pull in a thread; when the caller is cancelled it is ended, and waited for."""
    working = asyncio.ensure_future(asyncio.to_thread(work, pull, *given))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        pull.stop()
        await asyncio.wait([working])
        raise


def _look_up(pull: Pull, unseen: dict[str, _Unseen], report: UserReport) -> Missing:
    missing: Missing = {name: {} for name in unseen}
    for batch in pull.batches():
        found = unseen[batch.table]
        for row in batch.rows:
            report.compared += 1
            if difference := found.check(row):
                missing[batch.table][found.key_of(row)] = difference
    return missing


def _leave_out(pull: Pull, unseen: dict[str, _Unseen], missing: Missing, report: UserReport) -> None:
    for batch in pull.batches():
        for change in batch.changes:
            report.behind += 1
            key = unseen[batch.table].key_of(change[VALUES:])
            missing[batch.table].pop(key, None)
            unseen[batch.table].keys.discard(key)


class _Unseen:
    """One table of the replica, and the keys of its rows that the primary has not shown yet."""

    def __init__(self, connection: apsw.Connection, table: SyncedTable) -> None:
        self._connection = connection
        self._table = table
        self._places = table.key_places
        self._find = f"SELECT * FROM {quoted(table.name)} WHERE {match_sql(table)}"
        keys = ", ".join(quoted(name) for name in table.key) or "NULL"
        self.keys = {
            tuple(row) if table.key else () for row in connection.execute(f"SELECT {keys} FROM {quoted(table.name)}")
        }

    def key_of(self, row: Any) -> tuple[object, ...]:
        return tuple(row[place] for place in self._places)

    def check(self, row: Any) -> str:
        """Compare a row of the primary with the replica's; say what differs, if anything does."""
        key = self.key_of(row)
        self.keys.discard(key)
        found = self._connection.execute(self._find, key).fetchone()
        if found is None:
            return f"{self._table.name} {key}: is in the primary and not in the replica"
        if found == tuple(row):  # as nearly all are
            return ""
        names = [
            column.name for column, ours, theirs in zip(self._table.columns, found, row, strict=True) if ours != theirs
        ]
        return f"{self._table.name} {key}: differs in {', '.join(names)}"
