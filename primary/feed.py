"""The feed: what changed for one user since a cursor. A promise, with no I/O in this file.

    async with feed.pull(user, since) as pull:
        pull.cursor      where the user stands in the snapshot that the pull reads
        pull.kind        what the batches hold
        pull.whole       all batches, if they are few
        pull.batches()   all batches, to be read in a thread that may wait for them

All batches of a pull come from **one** snapshot of the primary, and ``pull.cursor`` is the user's cursor in that
same snapshot. A replica that was at ``since`` and applies all of them is, at ``pull.cursor``, the user's rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from primary.cursor import Cursor

Row = Sequence[Any]
"""The values of a row's columns as a replica stores them, in the order of `SyncedTable.columns`."""

Change = Sequence[Any]
"""What became of one row since the cursor.

Its key within its table (a JSON array of canonical texts), the version at which it was touched last, whether it is
gone (at `GONE`), and from `VALUES` on the values of a `Row`; of a row that is gone those of its key, and None.
"""

GONE = 2
VALUES = 3
"""Where in a `Change` it says whether its row is gone, and where the row's values begin."""


class Kind(Enum):
    """What a pull holds."""

    UNCHANGED = "unchanged"
    """Nothing: ``since`` is where the user stands."""

    CHANGES = "changes"
    """The rows that changed after ``since``: apply them over a replica that is at ``since``."""

    SNAPSHOT = "snapshot"
    """Every row: build a replica from nothing. `Pull.reason` says why ``since`` was of no use."""


class Reason(Enum):
    """Why a pull is a snapshot."""

    NEW = "there was no replica"
    EPOCH = "the primary is another one than the cursor's"
    FLOOR = "the changes after the cursor have been compacted away"
    AHEAD = "the cursor is ahead of the primary"
    OLDER = "the primary is an older copy of what it was"


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows of one table. A snapshot's batch has ``rows``, an incremental one has ``changes``."""

    table: str
    rows: Sequence[Row] = field(default=())
    changes: Sequence[Change] = field(default=())


class Pull(Protocol):
    """One answer of a feed; its batches can be read once."""

    cursor: Cursor
    position: int
    """How far the source's history went when the pull looked. It never goes back, but where the source itself does."""
    kind: Kind
    reason: Reason | None
    whole: Sequence[Batch] | None
    """All batches, where they are here already; else None, and they are still to come."""
    coming: Mapping[str, int]
    """Of changes that are still to come, how many there are of each table; empty where the pull is anything else."""

    def batches(self) -> Iterator[Batch]:
        """Read the rows in batches of bounded size, a table's batches together, parents before children.

        The source is waited for: where the pull is not ``whole``, by any thread but the event loop's, and while the
        pull lasts. It may be left half way.
        """
        ...

    def stop(self) -> None:
        """Have `batches` raise, also where another thread waits in it. To be called where that one's caller leaves."""
        ...


class Feed(Protocol):
    """Where replicas are filled from."""

    def pull(self, user: str, since: Cursor | None, position: int = 0) -> AbstractAsyncContextManager[Pull]:
        """Read what changed for ``user`` since a cursor, or everything when ``since`` is None or of no use.

        ``position`` is that of the pull that led to ``since``: a source that is before it has lost what it gave then.
        Raises `PrimaryUnavailable` when the source cannot be reached, at entry or while batches are read;
        nothing that was read of a pull that failed may be kept.
        """
        ...

    def ahead(self, user: str, since: Cursor, position: int, at_least: Cursor) -> Pull | None:
        """Give what is known already, without a look at the source, of what changed for ``user`` since a cursor.

        A pull that is `whole` and gets at least as far as told, which the source was at once; None where there is none.
        It can be had once. Unlike what `pull` gives, it may be of before the call.
        """
        ...
