"""Rows in the primary, and the same rows as a replica has them, to be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import apsw
import sqlalchemy as sa

from primary.capture import quoted, table_sql
from primary.cursor import Cursor
from primary.declaration import Catalog
from primary.postgres import Primary
from primary.write import writing
from replica.store import Store

Rows = dict[str, Counter[tuple[Any, ...]]]
"""By table: every row, and how often it is there (twice is wrong too)."""

_IMAGES = """
INSERT INTO image (user_id, prompt, image_url, model, seed, steps, created_at)
SELECT unnest(CAST(:users AS text[])), :tag || ' amber basalt cedar dune ' || i,
  'https://images.example/' || i || '.png', 'flux-1', i * 7919, 20, timestamptz '2024-01-01' + i * interval '1 minute'
FROM generate_series(1, :count) AS i"""

_EDIT = """
UPDATE image SET prompt = :tag || ' edited ' || prompt, row_version = row_version + 1
WHERE user_id = :user AND id IN (SELECT id FROM image WHERE user_id = :user ORDER BY id LIMIT :count)"""

_TOUCH = """
UPDATE image SET prompt = 'touched ' || prompt
WHERE user_id = ANY(:users) AND (user_id, id) IN (SELECT DISTINCT ON (user_id) user_id, id FROM image)"""

_LIKE = """
INSERT INTO image_activity (user_id, image_id, is_favorite, rating)
SELECT user_id, id, true, 80 FROM image WHERE user_id = :user ORDER BY id DESC LIMIT :count
ON CONFLICT (user_id, image_id) DO UPDATE SET view_count = image_activity.view_count + 1"""

_DELETE = """
DELETE FROM image
WHERE user_id = :user AND id IN (SELECT id FROM image WHERE user_id = :user ORDER BY prompt, id LIMIT :count)"""


async def grow(primary: Primary, user: str, images: int, *, tag: str = "new") -> Cursor:
    """Give a user that many more images, in one transaction; give the user's cursor after it."""
    async with writing(primary, user) as write:
        await write.execute(sa.text(_IMAGES), {"users": [user], "tag": tag, "count": images})
        return await write.cursor()


async def grow_all(primary: Primary, users: Sequence[str], images: int) -> None:
    """Give each of these users that many more images, all in one transaction."""
    async with primary.transaction() as conn:
        await conn.execute(sa.text(_IMAGES), {"users": [*users], "tag": "new", "count": images})


async def touch_all(primary: Primary, users: Sequence[str]) -> None:
    """Edit one image of each of these users, in one transaction."""
    async with primary.transaction() as conn:
        await conn.execute(sa.text(_TOUCH), {"users": [*users]})


async def change(primary: Primary, user: str, *, tag: str = "change", rows: int = 2) -> Cursor:
    """Insert, edit and delete some rows of two tables in one transaction; give the user's cursor after it."""
    async with writing(primary, user) as write:
        for sql in (_IMAGES, _EDIT, _LIKE, _DELETE):
            await write.execute(sa.text(sql), {"user": user, "users": [user], "tag": tag, "count": rows})
        return await write.cursor()


async def truth(primary: Primary, catalog: Catalog, user: str) -> Rows:
    """Read a user's rows from Postgres with statements of our own: no mark, no cursor, no feed."""
    rows: Rows = {}
    async with primary.connection() as connection:
        for table in catalog:
            values = ", ".join(column.mapping.wire.replace("{}", quoted(column.name)) for column in table.columns)
            found = await connection.execute(
                f"SELECT {values} FROM {table_sql(table)} WHERE {quoted(table.owner)} = %s".encode(), [user]
            )
            rows[table.name] = Counter(
                tuple(int(value) if isinstance(value, bool) else value for value in row)
                for row in await found.fetchall()
            )
    return rows


def every_row(catalog: Catalog) -> Callable[[apsw.Connection], Rows]:
    """Give the read of every row of a replica."""

    def work(connection: apsw.Connection) -> Rows:
        return {
            table.name: Counter(connection.execute(f"SELECT * FROM {quoted(table.name)}").fetchall())
            for table in catalog
        }

    return work


async def held(store: Store, user: str) -> Rows:
    """Read every row of a user's replica, as the store serves it."""
    return (await store.read(user, every_row(store.schema.catalog))).value


def count_images(connection: apsw.Connection) -> int:
    """Read how many images there are."""
    count: int = connection.execute("SELECT count(*) FROM image").get
    return count


async def assert_same(store: Store, primary: Primary, user: str) -> None:
    """Check that the replica, as it is read, holds the primary's rows: none more, none less, none else."""
    ours, theirs = await held(store, user), await truth(primary, store.schema.catalog, user)
    for name in theirs:
        missing, extra = theirs[name] - ours[name], ours[name] - theirs[name]
        told = (
            f"{name}: {missing.total()} rows missing, as {[*missing][:2]}; {extra.total()} too many, as {[*extra][:2]}"
        )
        assert (missing.total(), extra.total()) == (0, 0), told


def files_of(folder: Path) -> list[str]:
    """Name the files under a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
