"""Tests of several processes take turns: any number at once, or one alone.

A test that measures seconds, or drives a browser, is marked ``alone`` (or ``browser``): while it runs, no other process
of the same run is in a test. Whatever else the machine does is not seen.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Two files that every process of a run has in common, for their locks alone. The kernel lets go of a dead one's.
_DOOR = Path(__file__)
_ROOM = Path(__file__).parents[1] / "conftest.py"


@contextmanager
def turn(*, alone: bool) -> Iterator[None]:
    """Wait until there is room, and have it until the end."""
    with _DOOR.open() as door, _ROOM.open() as room:
        # Who wants to be alone waits in the door, so that those behind do not come before.
        fcntl.flock(door, fcntl.LOCK_EX)
        fcntl.flock(room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(door, fcntl.LOCK_UN)
        yield
