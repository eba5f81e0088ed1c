"""Files that are not believed any more are set aside, so that someone can look at what happened to them."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from replica.location import Location, remove


def set_aside(location: Location, quarantine: Path, keep: int) -> None:
    """Move a replica's files away, and remove all but the last ``keep`` replicas that were set aside."""
    quarantine.mkdir(parents=True, exist_ok=True)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    if os.path.lexists(location.database):  # also a link to nowhere
        for path in (location.database, location.wal):
            if os.path.lexists(path):
                path.replace(quarantine / f"{moment}-{path.name}")
    for path in location.beside():
        remove(path)
    databases = sorted(path for path in quarantine.iterdir() if path.suffix == ".db")
    for old in databases[: max(0, len(databases) - keep)]:
        remove(old)
        remove(Location(old).wal)
