"""The tail: which users moved since the last look. A promise, with no I/O in this file.

    moves = await tail.poll()
    moves.users     who moved, each with the cursor that it is at
    moves.reset     whether anybody may have moved before this look, without being told of

Who is told to have moved by one look is not told again by the next, and nobody is missed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from primary.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Moves:
    """What one look found.

    ``users`` gives each user that moved since the last look, with its cursor as of this one. ``reset`` says that
    nothing is known of what happened before: it was the first look, or the primary is another one than it was.
    """

    users: dict[str, Cursor]
    reset: bool = False


class Tail(Protocol):
    """Follows the heads of one primary. Not to be shared by tasks; each has its own."""

    async def poll(self) -> Moves:
        """Look once. Raises `PrimaryUnavailable`; the next look then also covers what this one would have found."""
        ...

    def forget(self) -> None:
        """Forget where the last look was: the next one is a first look again, which costs the same however late."""
        ...
