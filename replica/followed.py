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
    well. ``target`` is the newest cursor that was heard of and is not in the replica yet; ``written`` that of what the
    user wrote through this node, for which reads wait.
    """

    user: str
    read_at: float
    streams: int = 0
    joined: int | None = None
    checked: bool = False
    unasked_until: float = 0.0  # the primary was too slow: reads do not wait for it again so soon
    at: Cursor | None = None
    target: Cursor | None = None
    written: Cursor | None = None
    behind_since: float = 0.0
    waiting: bool = False  # a sync of it is due or under way
    failures: int = 0  # to sync it, since it went well last
    unbrought_until: float = 0.0  # when that is tried again, the primary being there

    def hear(self, cursor: Cursor, since: float) -> bool:
        """Note that the user is at ``cursor``, and may be since then; say whether that is news to the replica."""
        if self.at is not None and self.at.covers(cursor):
            return False
        self.behind_since = since if self.target is None else min(since, self.behind_since)
        if self.target is not None and self.target.covers(cursor):
            return False
        self.target = cursor
        return True

    def write(self, cursor: Cursor, now: float) -> bool:
        """Note that the user has written through this node; say whether that is news to the replica."""
        if self.at is not None and self.at.covers(cursor):
            return False
        if self.written is None or not self.written.covers(cursor):
            self.written = cursor
        return self.hear(cursor, now)

    def reach(self, cursor: Cursor, target: Cursor | None, era: int | None) -> None:
        """Note that a sync that was begun when ``target`` was the newest, in ``era``, has brought it to ``cursor``."""
        self.at = cursor
        self.checked = True
        self.failures = 0
        if era is not None and (self.joined is None or era > self.joined):
            self.joined = era
        # What the primary has now is the truth, even where it is less than was heard: then it is another one.
        if self.target is target or (self.target is not None and cursor.covers(self.target)):
            self.target = None
        if self.target is None or (self.written is not None and cursor.covers(self.written)):
            self.written = None

    def fail(self, now: float) -> None:
        """Note that it could not be synced."""
        self.checked = False
        self.failures += 1
        self.unbrought_until = now + wait_s(self.failures, first_s=_RETRY_FIRST_S, max_s=_RETRY_MAX_S)

    def known(self, era: int | None) -> Cursor | None:
        """Give the cursor at which the replica lacks nothing that was heard of; None while that is to be asked for."""
        return self.target if self.joined == era else None  # who joins has to look at the primary itself

    def lacks(self, era: int | None) -> bool:
        """Say whether it is to be synced though nobody reads it: something was heard of, or someone listens."""
        return self.target is not None or (self.streams > 0 and self.joined != era)

    def serves(self, era: int, now: float) -> bool:
        """Say whether the replica is as current as following makes it."""
        if self.joined != era or self.written is not None:
            return False
        return self.target is None or now - self.behind_since <= LAG_MAX_S

    def is_idle(self, since: float) -> bool:
        """Say whether nobody has read it since then, and nobody listens."""
        return self.read_at < since and not self.streams

    def heat(self) -> tuple[bool, float]:
        """Give what sorts the hottest first: those whom someone listens to, then those who were read last."""
        return self.streams == 0, -self.read_at
