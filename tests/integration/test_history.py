"""The history of edits: who changed which field of an image from what to what, whoever writes; and only that."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import pytest
import sqlalchemy as sa

from primary.gallery import bulk, images
from primary.gallery.errors import NotFound
from primary.gallery.records import ImageChange, ImagePatch, NewImage
from primary.gallery.tables import image
from primary.postgres import Primary
from primary.write import writing
from tests.support.http import execute

TOLD = "SELECT field, old_value, new_value, edited_by FROM image_edit ORDER BY edited_at, field"


async def saved(primary: Primary, user: str = "ada", **fields: Any) -> UUID:
    async with writing(primary, user) as write:
        made = await images.create(write, NewImage(prompt="p", image_url="u", **fields))
    return UUID(made.image.id)


async def test_each_field_that_differs_is_told_with_both_its_values(primary: Primary, database_url: str) -> None:
    id_ = await saved(primary, seed=2**63 - 1, meta={"a": [1]})
    async with writing(primary, "ada") as write:
        patch = ImagePatch(prompt="p", image_url="v", seed=None, meta={"a": [1, None]}, alt_text="é", description="")
        await images.patch(write, id_, patch)
    assert await execute(database_url, TOLD) == [
        ("alt_text", None, "é", "ada"),
        ("description", None, "", "ada"),
        ("image_url", "u", "v", "ada"),
        ("meta", {"a": [1]}, {"a": [1, None]}, "ada"),
        ("seed", 2**63 - 1, None, "ada"),
    ]
    # It is the edit's own time, by which the two can be put side by side.
    same = "SELECT count(*) FROM image_edit AS e JOIN image AS i ON i.id = image_id WHERE edited_at < i.updated_at"
    assert await execute(database_url, same) == [(0,)]


async def test_an_edit_that_changes_nothing_is_not_told(primary: Primary, database_url: str) -> None:
    id_ = await saved(primary, alt_text="a")
    async with writing(primary, "ada") as write:
        await images.patch(write, id_, ImagePatch(alt_text="a", prompt="p"))
        await bulk.patch_many(write, [ImageChange(id=id_, alt_text="a")])
    await execute(database_url, "UPDATE image SET alt_text = alt_text")
    await execute(database_url, "UPDATE image_activity SET rating = 1")
    assert await execute(database_url, TOLD) == []


async def test_whoever_writes_is_named_and_nobody_is_taken_for_another(primary: Primary, database_url: str) -> None:
    ids = [await saved(primary, user) for user in ("ada", "grace")]
    for user, id_ in zip(("ada", "grace"), ids, strict=True):
        async with writing(primary, user) as write:
            await bulk.patch_many(write, [ImageChange(id=id_, steps=1)])
    # A connection of the pool, on which both have written: what they said of themselves ended with their writes.
    async with primary.transaction() as connection:
        await connection.execute(sa.update(image).values(steps=2))
    async with primary.transaction() as connection:
        await connection.execute(sa.text("SELECT set_config('tidepool.actor', 'an admin', true)"))
        await connection.execute(sa.update(image).values(steps=3))
    told = await execute(database_url, "SELECT user_id, new_value, edited_by FROM image_edit ORDER BY 1, 2")
    assert told == [
        (user, step, by) for user in ("ada", "grace") for step, by in ((1, user), (2, "sql:postgres"), (3, "an admin"))
    ]


async def test_what_is_rolled_back_is_not_told(primary: Primary, database_url: str) -> None:
    id_ = await saved(primary)
    there, missing = ImageChange(id=id_, steps=1), ImageChange(id=uuid4(), steps=1)

    async def edit() -> None:
        async with writing(primary, "ada") as write:
            await images.patch(write, id_, ImagePatch(steps=1))
            await bulk.patch_many(write, [there, missing])

    with pytest.raises(NotFound):
        await edit()
    assert await execute(database_url, TOLD) == []


async def test_edits_of_one_transaction_stay_in_their_order(primary: Primary, database_url: str) -> None:
    await saved(primary)
    async with primary.transaction() as connection:
        for steps in range(1, 6):
            await connection.execute(sa.update(image).values(steps=steps))
    assert [new for _, _, new, _ in await execute(database_url, TOLD)] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "sql",
    [
        (
            "INSERT INTO image (user_id, id, prompt, image_url) SELECT user_id, id, 'q', 'u' FROM image "
            "ON CONFLICT (user_id, id) DO UPDATE SET prompt = excluded.prompt"
        ),
        "MERGE INTO image USING (SELECT 1) AS s ON true WHEN MATCHED THEN UPDATE SET prompt = 'q'",
        "WITH w AS (UPDATE image SET prompt = 'q' RETURNING 1) SELECT * FROM w",
    ],
)
async def test_every_way_to_edit_by_sql_is_told(primary: Primary, database_url: str, sql: str) -> None:
    await saved(primary)
    await execute(database_url, sql)
    assert await execute(database_url, TOLD) == [("prompt", "p", "q", "sql:postgres")]


async def test_an_image_that_goes_to_another_owner_leaves_no_history_of_the_first(
    primary: Primary, database_url: str
) -> None:
    await saved(primary)
    await execute(database_url, "UPDATE image SET user_id = 'grace', prompt = 'q'")
    assert await execute(database_url, TOLD) == []
