"""Files that are not believed any more are set aside, so that someone can look at what happened to them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from replica.location import Location


def set_aside(location: Location, quarantine: Path, keep: int) -> None:
    """Move a replica's files away, and remove all but the last ``keep`` that were set aside before."""
    quarantine.mkdir(parents=True, exist_ok=True)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    for path in (location.database, location.wal):
        if path.exists():
            path.replace(quarantine / f"{moment}-{path.name}")
    for path in location.beside():
        path.unlink(missing_ok=True)
    databases = sorted(quarantine.glob("*.db"))
    for old in databases[: max(0, len(databases) - keep)]:
        for path in (old, Location(old).wal):
            path.unlink(missing_ok=True)
