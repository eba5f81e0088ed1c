"""Putting a file that was built into its place."""

from __future__ import annotations

from pathlib import Path

from replica import seal
from replica.faults import Passing
from replica.location import Location, remove, sync_folder


def publish(built: Path, location: Location, passing: Passing) -> None:
    """Let a file that is whole and durable take the place of what was there, which nobody has open any more."""
    folder = location.database.parent
    folder.mkdir(parents=True, exist_ok=True)
    for left_over in (location.wal, location.shm):  # a log without its file would be taken for the new file's
        remove(left_over)
    built.replace(location.database)
    passing("build.renamed")
    sync_folder(folder)
    seal.write(location, seal.look(location))
    passing("build.sealed")
