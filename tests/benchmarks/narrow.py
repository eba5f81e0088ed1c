"""The table that Zero is measured with, beside the gallery's: eight columns, one index, no full text."""

from __future__ import annotations

import sqlalchemy as sa

from primary.declaration import Catalog, ReadIndex, synced
from primary.gallery.tables import catalog as gallery
from primary.migrate import migrate
from tests.benchmarks.bench import Bench, primary_of

CHOSEN = "BENCH_NARROW"
"""The environment variable that has a server under load serve this table too."""

INSERT = """
INSERT INTO images
SELECT %(user)s, 'img_' || gen_random_uuid(),
  'a photo of a subject number ' || i || ' in the style of ' || md5(i::text) || ' highly detailed, 8k',
  'https://cdn.example.com/images/' || md5((i * 7)::text) || '.png', 'flux-dev', i * 7919, 20 + mod(i, 30),
  timestamptz '2024-01-01' + i * interval '1 second'
FROM generate_series(1, %(rows)s) AS i"""


def _catalog() -> Catalog:
    metadata = sa.MetaData()
    sa.Table(
        "images",
        metadata,
        sa.Column("user_id", sa.Text(collation="C"), primary_key=True),
        sa.Column("id", sa.Text(collation="C"), primary_key=True),
        sa.Column("prompt", sa.Text),
        sa.Column("image_url", sa.Text),
        sa.Column("model", sa.Text),
        sa.Column("seed", sa.BigInteger),
        sa.Column("steps", sa.Integer),
        sa.Column("created_at", sa.DateTime(timezone=True)),
        info=synced(owner="user_id", indexes=[ReadIndex("newest", ["created_at"])]),
    )
    return Catalog.of(metadata)


narrow = _catalog()
with_gallery = Catalog([*gallery, *narrow])


async def narrow_database(bench: Bench, name: str) -> str:
    """Make a database that has the table beside the gallery's, and give its URL."""
    url = await bench.migrated(name)
    async with primary_of(url) as primary:
        async with primary.transaction() as connection:
            await connection.run_sync(narrow["images"].table.metadata.create_all)
        await migrate(primary, with_gallery)
    return url
