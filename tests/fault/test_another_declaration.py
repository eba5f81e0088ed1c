"""I4: a replica that was made for another declaration of the tables is not believed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa

from primary.capture import engine_tables, install_capture
from primary.declaration import Catalog, ReadIndex, synced
from primary.errors import PrimaryError
from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from replica.errors import ReplicaUnavailable
from replica.store import Store
from tests.support.bay import Bay
from tests.support.feeds import TestFeed
from tests.support.replicas import grow, held, truth

IMAGES = 12


def _declared(*columns: str, indexes: Sequence[ReadIndex] = ()) -> Catalog:
    metadata = sa.MetaData()
    sa.Table(
        "note",
        metadata,
        sa.Column("owner", sa.Text(collation="C"), primary_key=True),
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, sa.Text) for name in columns),
        info=synced(owner="owner", indexes=indexes),
    )
    return Catalog.of(metadata)


async def test_a_replica_of_another_declaration_is_built_anew(empty_database_url: str, data_dir: Path) -> None:
    primary = Primary(empty_database_url)
    await primary.open()
    try:
        first = _declared("body")
        async with primary.transaction() as conn:
            engine = sa.MetaData()
            engine_tables(engine)
            await conn.exec_driver_sql("CREATE SCHEMA tidepool")
            await conn.run_sync(engine.create_all)
            await conn.run_sync(first["note"].table.metadata.create_all)
            await install_capture(conn, first)
            await conn.exec_driver_sql("INSERT INTO note SELECT 'ann', i, 'note ' || i FROM generate_series(1, 9) AS i")
        with_colour = _declared("body", "colour")
        declarations = [
            first,
            _declared("body", indexes=[ReadIndex("by_body", ["body"])]),
            _declared(),
            first,
            with_colour,  # of which the database knows nothing yet
            with_colour,
        ]
        for place, catalog in enumerate(declarations):
            store = Store(data_dir, catalog, PostgresFeed(primary, catalog))
            await store.open()
            try:
                if place == 4:
                    with pytest.raises(PrimaryError):
                        await held(store, "ann")
                    async with primary.transaction() as conn:
                        await conn.exec_driver_sql("ALTER TABLE note ADD COLUMN colour text DEFAULT 'red'")
                        await install_capture(conn, catalog)
                found = await held(store, "ann")
                assert found == await truth(primary, catalog, "ann")
                assert sum(found["note"].values()) == 9
            finally:
                await store.close()
    finally:
        await primary.close()


async def test_a_replica_of_another_declaration_is_not_served_while_the_primary_is_away(
    bay: Bay, catalog: Catalog
) -> None:
    await grow(bay.primary, "ann", IMAGES)
    await bay.store.sync("ann")
    await bay.close()
    bay.catalog = Catalog([table for table in catalog if table.name != "album"])
    bay.feed = TestFeed(PostgresFeed(bay.primary, bay.catalog))
    await bay.open()
    bay.feed.away = True
    with pytest.raises(ReplicaUnavailable, match="another schema") as raised:
        await held(bay.store, "ann")
    assert raised.value.hint
    bay.feed.away = False
    await bay.assert_same("ann")
