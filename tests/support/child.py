"""A process that opens a store, does what it is told to one user's replica, and dies at a point if it is told to.

python -m tests.support.child DATA_DIR DATABASE_URL USER ORDER…      with TIDEPOOL_CRASH_AT=point
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from primary.gallery.tables import catalog
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from replica import stages
from replica.faults import from_environment
from replica.store import Store


async def main(data_dir: str, url: str, user: str, *orders: str) -> None:
    """Do what the orders say: "sync", "finish later" (leave the last stage of a build for after it), "wait"."""
    primary = Primary(url)
    await primary.open()
    store = Store(Path(data_dir), catalog, PostgresFeed(primary, catalog), passing=from_environment(os.environ))
    await store.open()
    for order in orders:
        match order:
            case "finish later":
                stages.FINISH_ROWS_MAX = 0
            case "sync":
                await store.sync(user)
            case "read":
                await store.read(user, lambda connection: connection.execute("SELECT 1").fetchone())
            case "wait":
                print("ready", flush=True)  # noqa: T201
                await asyncio.sleep(60)
    await store.close()
    await primary.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
