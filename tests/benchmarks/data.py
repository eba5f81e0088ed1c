"""The images that are read: as long and as varied as those that people make, and the same in every run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg

COLUMNS = ("user_id", "id", "prompt", "image_url", "model", "seed", "steps", "created_at")
"""What a client gives of an image; every other column has its default."""

_WORDS = (  # noqa: SIM905 - 26 literals read worse
    "amber basalt cedar dune ember fjord glacier harbor iris juniper kelp lantern moss nebula orchard prairie "
    "quartz river saffron tundra umber valley willow xenon yarrow zephyr"
).split()
_MODELS = ("flux-1-schnell", "sdxl-lightning", "dreamshaper-8")
_FIRST = datetime(2024, 1, 1, tzinfo=UTC)


def user_name(number: int) -> str:
    """Name a user."""
    return f"user-{number:05}"


def image_id(user: int, row: int) -> UUID:
    """Give the id of a user's image: spread as random ones are, and known beforehand."""
    return UUID(int=random.Random(user << 32 | row).getrandbits(128), version=4)


def images(user: int, count: int) -> Iterator[tuple[Any, ...]]:
    """Give a user's images in the order of `COLUMNS`, oldest first, three a minute at the same time."""
    choose = random.Random(user)
    name = user_name(user)
    for row in range(count):
        key = image_id(user, row)
        prompt = " ".join(choose.choice(_WORDS) for _ in range(choose.randrange(8, 17)))
        url = f"https://images.example/{name}/{key}.png"
        moment = _FIRST + timedelta(minutes=row // 3)
        yield name, key, prompt, url, choose.choice(_MODELS), choose.getrandbits(32), choose.randrange(4, 51), moment


async def load_gallery(url: str, *, users: int, rows_each: int, table: str = "image") -> None:
    """Load images by COPY, and leave the tables as autovacuum would in time."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        copy = f"COPY {table} ({', '.join(COLUMNS)}) FROM STDIN"
        for user in range(users):
            async with connection.cursor() as cursor, cursor.copy(copy.encode()) as rows:
                for row in images(user, rows_each):
                    await rows.write_row(row)
        await connection.execute("VACUUM ANALYZE")


async def insert_image(connection: psycopg.AsyncConnection[Any], user: str) -> None:
    """Write one more image of a user's, as any program would."""
    await connection.execute(
        "INSERT INTO image (user_id, prompt, image_url, model, seed, steps) VALUES (%s, %s, %s, %s, %s, %s)",
        (user, "a heron at low water", "https://images.example/heron.png", _MODELS[0], 48, 20),
    )
