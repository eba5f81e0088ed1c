"""What a store is bounded by, and what it gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from primary.cursor import Cursor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """The bounds within which a store works."""

    replica_open_max: int = 128  # open files: a connection each, which reads and takes 200 KiB
    writers_open_max: int = 8  # as many as write at once: each takes a thread and 350 KiB, and 1 ms to be made again
    sync_concurrency: int = 8  # pulls at once: each holds a connection to the primary and a snapshot there
    read_lanes: int = 1  # threads for long reads: more of them fight the event loop for the interpreter
    read_timeout_ms: int = 2_000  # no page takes a hundredth of it; what does is stopped
    apart_timeout_s: float = 600  # 1,000,000 rows take seconds; while one is read, its file's log cannot begin anew
    quarantine_max: int = 20  # files set aside that are kept for inspection


@dataclass(frozen=True, slots=True)
class FollowLimits:
    """The bounds within which users are followed."""

    follow_idle_s: float = 60  # a user that was not read for so long is let go; the next read looks first
    follow_concurrency: int = 4  # syncs of those who moved at once: half of all, so that readers find room
    look_min_s: float = 0.002  # between two looks while somebody moves
    look_live_s: float = 0.008  # at most, while an event stream is open: an event is late by half of it, on average
    look_idle_s: float = 0.1  # at most, while users are only read: how old what they read may be
    silence_max_s: float = 1.0  # without a look for so long, nobody counts as followed
    check_wait_s: float = 0.5  # a check takes 1 ms; a read that waited so long for it says that it may be stale


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What a sync did: where the replica stands now, the number of rows it wrote, and whether it was built anew."""

    version: Cursor
    applied: int
    rebuilt: bool


@dataclass(frozen=True, slots=True)
class Reading(Generic[T]):
    """What a read gave, and the cursor of the state that it saw."""

    version: Cursor
    value: T


@dataclass(frozen=True, slots=True)
class ReplicaInfo:
    """A replica as its user may see it: its state, the bytes of its files, and the rows of each table."""

    version: Cursor
    synced_at: str
    bytes: int
    rows: dict[str, int]


@dataclass(frozen=True, slots=True)
class StoreCounts:
    """What the store has done since it was opened, and what it holds now."""

    syncs: int
    rebuilds: int
    doubts: int
    open_replicas: int
