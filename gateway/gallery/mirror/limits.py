"""What delivering may take: every bound in one block, with its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from gateway.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class MirrorLimits:
    """The bounds of one process's deliveries."""

    # Side by side: all together (each is a connection and, when it ends, a statement to the primary), and of one user,
    # so that one with much to tell leaves room.
    concurrency: int = 8
    user_concurrency: int = 4

    # How late a change may be seen. Looking where nothing waits is one statement over an empty index (0.2 ms).
    poll_interval_s: float = 1

    # A server answers in milliseconds over a network; one that is busy scanning its library takes seconds.
    connect_timeout_s: float = 5
    read_timeout_s: float = 10
    total_timeout_s: float = 20  # whatever it does, a byte at a time included
    answer_max_bytes: int = 65_536  # an answer has some fifty bytes, with a long message a thousand

    # Longer than a delivery can take with all that follows, so that no two have the same row; the work of a process
    # that was killed waits that long.
    lease_s: float = 60

    # 1 s, 2 s, 4 s … an hour: 36 tries are a day and a half at most, one at least. What will not get better by itself
    # (a refused key, an unknown image) is tried once more, for it may be a proxy that restarts.
    backoff_first_s: float = 1
    backoff_max_s: float = 3_600
    tries_max: int = 36

    # What the user sees is a row of their replica: not a new one for each delivery.
    show_interval_s: float = 1
    # How late it may be where nobody here delivered: turned off by SQL, or the work of a process that was killed.
    sweep_interval_s: float = 30

    # Of a server that stops, which has a few seconds for all that it has open.
    stop_grace_s: float = 1

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Give the bounds of these settings."""
        return cls(
            concurrency=settings.mirror_concurrency,
            user_concurrency=max(1, settings.mirror_concurrency // 2),
            poll_interval_s=settings.mirror_poll_interval_s,
            tries_max=settings.mirror_tries_max,
        )
