"""I8: an export holds everything that its user owns, at one cursor, and says which, in every format."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from primary.postgres import Primary
from primary.postgres_feed import PostgresFeed
from replica.export import FORMATS, export
from replica.results import StoreLimits
from replica.store import Store
from tests.support import shapes
from tests.support.databases import Databases
from tests.support.edges import EDGES
from tests.support.exports import copied_back, read
from tests.support.oracle import Oracle, Rows
from tests.support.workload import USERS, Writers


@pytest.fixture
async def primary(databases: Databases) -> AsyncIterator[Primary]:
    async with shapes.installed(databases) as primary:
        yield primary


def on_one_line(rows: Rows) -> Rows:
    """Take away what lines of JSON cannot keep: line breaks between the tokens of somebody's JSON."""
    kinds = {table.name: [column.mapping.json == "json" for column in table.columns] for table in shapes.catalog}
    return {
        name: [
            tuple(
                value.replace("\n", " ").replace("\r", " ") if is_json and value is not None else value
                for is_json, value in zip(kinds[name], row, strict=True)
            )
            for row in each
        ]
        for name, each in rows.items()
    }


async def bytes_of(store: Store, user: str, name: str) -> bytes:
    whole = await export(store, user, FORMATS[name])
    try:
        content = whole.file.read()
        assert len(content) == whole.size_bytes
    finally:
        whole.close()
    return content


def ordered(rows: Rows, oracle: Oracle, name: str) -> Rows:
    """Put rows in the oracle's order, with arrays as it reads them."""
    return oracle.as_read(on_one_line(rows) if name == "ndjson" else rows)


async def test_an_export_is_what_its_user_owned_at_its_cursor_while_all_write(
    primary: Primary, data_dir: Path, seed: int
) -> None:
    rng = random.Random(seed)
    oracle = Oracle(primary, shapes.metadata)
    store = Store(data_dir, shapes.catalog, oracle, StoreLimits(replica_open_max=3))
    await store.open()
    at_work = Writers(primary.url, seed)
    checked: list[tuple[str, int]] = []
    stop = False

    async def sync() -> None:
        while not stop:
            user = rng.choice(USERS)
            await (store.rebuild(user) if rng.random() < 0.1 else store.sync(user))
            await asyncio.sleep(rng.uniform(0, 0.01))

    async def take(name: str) -> None:
        while not stop:
            user = rng.choice(USERS)
            found = read(name, await bytes_of(store, user, name), shapes.catalog)
            version = int(found.manifest["version"].rpartition(".")[2])
            expected = await oracle.expected(user, version)
            assert found.manifest["user"] == user
            assert ordered(found.rows, oracle, name) == ordered(expected, oracle, name), f"{user} at {version}"
            checked.append((name, version))

    try:
        async with asyncio.TaskGroup() as group:
            for work in (sync(), sync(), *map(take, FORMATS)):
                group.create_task(work)
            try:
                await at_work.run(4, 40)
            finally:
                stop = True
    finally:
        await store.close()
    assert {name for name, _ in checked} == FORMATS.keys()
    assert len({version for _, version in checked}) > 10, "the state moved meanwhile"


async def test_values_at_the_edges_of_each_type_are_in_every_export(primary: Primary, data_dir: Path) -> None:
    expected: dict[int, tuple[str, Any]] = {}
    async with primary.connection() as connection:
        for name, edges in EDGES.items():
            for sql, stored in edges:
                for column in (name, name + shapes.REQUIRED):
                    if sql == "NULL" and column != name:
                        continue
                    await connection.execute(
                        f"INSERT INTO specimen (user_id, id, {column}) OVERRIDING SYSTEM VALUE "
                        f"VALUES ('ann', {len(expected)}, {sql})".encode()
                    )
                    expected[len(expected)] = column, stored
    feed = PostgresFeed(primary, shapes.catalog)
    table = shapes.catalog["specimen"]
    places = {column.name: place for place, column in enumerate(table.columns)}
    store = Store(data_dir, shapes.catalog, feed)
    await store.open()
    try:
        for name in FORMATS:
            content = await bytes_of(store, "ann", name)
            found = read(name, content, shapes.catalog)
            assert len(found.rows["specimen"]) == len(expected)
            for row in found.rows["specimen"]:
                column, stored = expected[row[0]]
                if name == "ndjson" and isinstance(stored, str) and places[column]:
                    stored = stored.replace("\n", " ") if column.startswith("json") else stored
                value = row[places[column]]
                assert (type(value), repr(value)) == (type(stored), repr(stored)), f"{name}: {column}"
            if name == "csv":
                async with primary.connection() as connection:
                    for each in shapes.catalog:
                        assert await copied_back(connection, each, "ann", content) == (0, 0), each.name
    finally:
        await store.close()
