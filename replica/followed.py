"""What a node knows of one user whose replica it keeps current."""

from __future__ import annotations

from dataclasses import dataclass

from primary.cursor import Cursor
from replica.backoff import wait_s

_RETRY_FIRST_S, _RETRY_MAX_S = 0.5, 5.0  # between attempts at a replica that cannot be synced, the primary being there

LAG_MAX_S = 1.0  # a replica that is known to be behind for longer is not served as current


@dataclass(slots=True)
class Followed:
    """One followed user. Times are the event loop's, in seconds.

    ``joined`` is the era of the tail in which the replica was synced after it was followed: from then on, the tail
    tells of everything that it lacks. ``checked`` says whether the last attempt to compare it with the primary went
    well. ``target`` is the newest cursor that was heard of and is not in the replica yet.
    """

    user: str
    read_at: float
    streams: int = 0
    joined: int | None = None
    checked: bool = False
    unasked_until: float = 0.0  # the primary was too slow: reads do not wait for it again so soon
    at: Cursor | None = None
    target: Cursor | None = None
    behind_since: float = 0.0
    waiting: bool = False  # a sync of it is due or under way
    failures: int = 0  # to sync it, since it went well last
    unbrought_until: float = 0.0  # when that is tried again, the primary being there

    def hear(self, cursor: Cursor, since: float) -> bool:
        """Note that the user is at ``cursor``, and may be since then; say whether that is news to the replica."""
        if _is_past(self.at, cursor):
            return False
        self.behind_since = since if self.target is None else min(since, self.behind_since)
        if _is_past(self.target, cursor):
            return False
        self.target = cursor
        return True

    def reach(self, cursor: Cursor, target: Cursor | None, era: int | None) -> None:
        """Note that a sync that was begun when ``target`` was the newest, in ``era``, has brought it to ``cursor``."""
        self.at = cursor
        self.checked = True
        self.failures = 0
        if era is not None and (self.joined is None or era > self.joined):
            self.joined = era
        # What the primary has now is the truth, even where it is less than was heard: then it is another one.
        if self.target is target or _is_past(cursor, self.target):
            self.target = None

    def fail(self, now: float) -> None:
        """Note that it could not be synced."""
        self.checked = False
        self.failures += 1
        self.unbrought_until = now + wait_s(self.failures, first_s=_RETRY_FIRST_S, max_s=_RETRY_MAX_S)

    def lacks(self, era: int | None) -> bool:
        """Say whether it is to be synced though nobody reads it: something was heard of, or someone listens."""
        return self.target is not None or (self.streams > 0 and self.joined != era)

    def serves(self, era: int, now: float) -> bool:
        """Say whether the replica is as current as following makes it."""
        return self.joined == era and (self.target is None or now - self.behind_since <= LAG_MAX_S)

    def heat(self) -> tuple[bool, float]:
        """Give what sorts the hottest first: those whom someone listens to, then those who were read last."""
        return self.streams == 0, -self.read_at


def _is_past(cursor: Cursor | None, other: Cursor | None) -> bool:
    return cursor is not None and other is not None and cursor.epoch == other.epoch and cursor >= other
