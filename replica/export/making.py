"""Making an export: at the disk's pace, from one state of the replica, into a file that nobody else can come by."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

import apsw

from primary.cursor import Cursor
from primary.declaration import Catalog
from primary.feed import Feed
from replica import trouble
from replica.apart import Apart
from replica.build import build
from replica.export.formats import Format
from replica.export.manifest import Manifest
from replica.faults import undisturbed
from replica.location import DataDirectory, Location
from replica.results import StoreLimits
from replica.schema import Schema
from replica.state import State
from replica.store import Store


@dataclass(frozen=True, slots=True)
class Export:
    """A whole export. ``file`` is open at its beginning and has no name any more: when it is closed it is gone."""

    file: BinaryIO
    size_bytes: int
    version: Cursor
    rows: int

    def close(self) -> None:
        """Let the file go."""
        self.file.close()


async def export(store: Store, user: str, form: Format) -> Export:
    """Export everything that the user owns, as of the cursor that it says. Raises as `Store.read_apart` does.

    Whoever gets it closes it. When the caller is cancelled, nothing is left.
    """
    return (await store.read_apart(user, partial(_make, store.schema.catalog, form))).value


async def export_from(feed: Feed, catalog: Catalog, user: str, form: Format, folder: Path) -> Export:
    """Export as `export` does, but from the feed itself, by way of a replica of this export's own.

    ``folder`` is empty and nobody else's; whoever made it removes it. Raises `InvalidUser`, `PrimaryUnavailable`, and
    `ReplicaUnavailable` where the disk has no room.
    """
    DataDirectory(folder).of(user)  # is it a user's id?
    own = _Own(Location(folder / "replica.db"))
    try:
        async with feed.pull(user, None) as pull:
            await build(own.location.database, Schema(catalog), user, pull, undisturbed)
    except (apsw.Error, OSError) as error:
        raise trouble.of_building(error) from error
    apart = Apart(own, folder / "apart", StoreLimits().apart_timeout_s)
    return (await apart.read(partial(_make, catalog, form))).value


@dataclass(frozen=True, slots=True)
class _Own:
    """A file that nobody else knows of."""

    location: Location

    def attest(self) -> None:
        """See `replica.apart.Attested`."""


def _make(catalog: Catalog, form: Format, connection: apsw.Connection, state: State, folder: Path) -> Export:
    manifest = Manifest.of(connection, state, catalog)
    file = form.write(connection, manifest, folder).open("rb")
    return Export(file, os.fstat(file.fileno()).st_size, state.cursor, manifest.total)
