"""What the gallery's tables promise to whoever writes them, psql included."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from primary.errors import Conflict, InvalidValue
from primary.gallery.tables import catalog, metadata
from primary.postgres import Primary

IMAGE = "INSERT INTO image (user_id, prompt, image_url) VALUES (%s, 'p', 'u') RETURNING id"


async def run(primary: Primary, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    async with primary.connection() as connection:
        cursor = await connection.execute(sql, values)
        return await cursor.fetchall() if cursor.description else []


async def new_image(primary: Primary, user: str) -> Any:
    return (await run(primary, IMAGE, user))[0][0]


async def new_album(primary: Primary, user: str, cover: Any = None) -> Any:
    sql = "INSERT INTO album (user_id, title, cover_image_id) VALUES (%s, 't', %s) RETURNING id"
    return (await run(primary, sql, user, cover))[0][0]


def test_every_key_and_every_reference_leads_with_the_owner_and_no_other_index_of_what_is_synced() -> None:
    for table in metadata.sorted_tables:
        owner = catalog[table.name].owner if table.name in catalog else "user_id"
        for constraint in table.constraints:
            columns = [column.name for column in getattr(constraint, "columns", ())]
            if type(constraint).__name__ != "CheckConstraint":
                assert columns[0] == owner, constraint.name
        for index in table.indexes:
            leads = next(iter(index.columns)).name == owner
            assert not (leads and table.name in catalog), index.name


async def test_a_plain_insert_is_a_complete_image(primary: Primary) -> None:
    [row] = await run(
        primary,
        "INSERT INTO image (user_id, prompt, image_url) VALUES ('ada', 'p', 'u') RETURNING "
        "id IS NOT NULL, source, meta, created_at = now(), updated_at = now(), row_version",
    )
    assert row == (True, "message_response", {}, True, True, 1)


@pytest.mark.parametrize("table", ["image", "album"])
async def test_every_edit_counts_the_row_version_up_whoever_makes_it(primary: Primary, table: str) -> None:
    await new_image(primary, "ada")
    await new_album(primary, "ada")
    [(before,)] = await run(primary, f"SELECT updated_at FROM {table}")
    edit = f"UPDATE {table} SET description = %s, row_version = 77 RETURNING row_version, updated_at"
    [(version, updated_at)] = await run(primary, edit, "d")
    assert (version, updated_at > before) == (2, True)


async def test_an_edit_that_changes_nothing_is_no_edit(primary: Primary) -> None:
    await new_image(primary, "ada")
    assert await run(primary, "UPDATE image SET prompt = 'p' RETURNING row_version, updated_at = created_at") == [
        (1, True)
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO image_activity (user_id, image_id) VALUES ('eve', %s)",
        "INSERT INTO image_event (user_id, image_id, kind) VALUES ('eve', %s, 'view')",
        "INSERT INTO image_edit (user_id, image_id, field) VALUES ('eve', %s, 'prompt')",
        "INSERT INTO album (user_id, title, cover_image_id) VALUES ('eve', 't', %s)",
        "INSERT INTO album_image (user_id, album_id, image_id) SELECT 'eve', id, %s FROM album WHERE user_id = 'eve'",
    ],
)
async def test_nothing_of_one_user_can_hang_on_another_users_image(primary: Primary, sql: str) -> None:
    image = await new_image(primary, "ada")
    await new_album(primary, "eve")
    with pytest.raises(Conflict):
        await run(primary, sql, image)


async def test_a_deleted_image_takes_along_all_that_hangs_on_it_and_nothing_else(primary: Primary) -> None:
    image, other = await new_image(primary, "ada"), await new_image(primary, "ada")
    album = await new_album(primary, "ada", cover=image)
    for each in (image, other):
        await run(primary, "INSERT INTO image_activity (user_id, image_id) VALUES ('ada', %s)", each)
        await run(primary, "INSERT INTO image_event (user_id, image_id, kind) VALUES ('ada', %s, 'o')", each)
        await run(primary, "INSERT INTO image_edit (user_id, image_id, field) VALUES ('ada', %s, 'prompt')", each)
        await run(primary, "INSERT INTO album_image (user_id, album_id, image_id) VALUES ('ada', %s, %s)", album, each)
    await run(primary, "DELETE FROM image WHERE id = %s", image)
    for table in ("image_activity", "image_event", "image_edit", "album_image"):
        assert await run(primary, f"SELECT image_id FROM {table}") == [(other,)]
    # The album stays its owner's, and knows that it changed.
    assert await run(primary, "SELECT user_id, cover_image_id, row_version FROM album") == [("ada", None, 2)]
    await run(primary, "DELETE FROM album")
    assert await run(primary, "SELECT 1 FROM album_image") == []
    assert await run(primary, "SELECT id FROM image") == [(other,)]


async def test_an_event_that_is_reported_twice_is_one_event(primary: Primary) -> None:
    image = await new_image(primary, "ada")
    report = (
        "INSERT INTO image_event (user_id, image_id, kind, client_event_id) VALUES ('ada', %s, 'view', %s) "
        "ON CONFLICT (user_id, client_event_id) DO NOTHING"
    )
    for event in ("e1", "e1", None, None):
        await run(primary, report, image, event)
    assert await run(primary, "SELECT count(*), count(client_event_id) FROM image_event") == [(3, 1)]


@pytest.mark.parametrize(
    ("constraint", "assignment"),
    [
        ("ck_image_user_id", "user_id = ''"),
        ("ck_image_user_id", "user_id = repeat('🏊', 256)"),
        ("ck_image_prompt", "prompt = ''"),
        ("ck_image_prompt", "prompt = repeat('é', 32769)"),
        ("ck_image_image_url", "image_url = repeat('u', 8193)"),
        ("ck_image_model", "model = repeat('m', 256)"),
        ("ck_image_steps", "steps = 0"),
        ("ck_image_steps", "steps = 10001"),
        ("ck_image_width", "width = 65536"),
        ("ck_image_height", "height = -1"),
        ("ck_image_source", "source = ''"),
        ("ck_image_meta", "meta = '[]'"),
        ("ck_image_meta", "meta = jsonb_build_object('a', repeat('x', 131072))"),
    ],
)
async def test_values_out_of_bounds_are_refused_by_name(primary: Primary, constraint: str, assignment: str) -> None:
    await new_image(primary, "ada")
    with pytest.raises(InvalidValue) as refused:
        await run(primary, f"UPDATE image SET {assignment}")
    assert refused.value.field == constraint


@pytest.mark.parametrize("assignment", ["rating = -1", "rating = 101", "view_count = -1", "o_count = -1"])
async def test_ratings_and_counters_have_bounds_too(primary: Primary, assignment: str) -> None:
    image = await new_image(primary, "ada")
    await run(primary, "INSERT INTO image_activity (user_id, image_id) VALUES ('ada', %s)", image)
    with pytest.raises(InvalidValue, match=assignment.split(maxsplit=1)[0]):
        await run(primary, f"UPDATE image_activity SET {assignment}")


async def test_when_an_image_was_made_does_not_change(primary: Primary) -> None:
    await new_image(primary, "ada")
    with pytest.raises(InvalidValue) as refused:
        await run(primary, "UPDATE image SET created_at = created_at - interval '1 day'")
    assert refused.value.field == "created_at"
    await run(primary, "UPDATE image SET created_at = created_at, prompt = 'else'")


async def test_what_hangs_on_an_image_knows_when_it_was_made_whatever_its_writer_says(primary: Primary) -> None:
    image, album = await new_image(primary, "ada"), await new_album(primary, "ada")
    other = await new_image(primary, "ada")
    told = "INSERT INTO image_activity (user_id, image_id, image_created_at) VALUES ('ada', %s, now())"
    await run(primary, told, image)
    await run(primary, "INSERT INTO album_image (user_id, album_id, image_id) VALUES ('ada', %s, %s)", album, image)
    for table in ("image_activity", "album_image"):
        right = f"SELECT bool_and({table}.image_created_at = image.created_at) FROM {table} JOIN image ON id = image_id"
        await run(primary, f"UPDATE {table} SET image_created_at = '-infinity'")
        assert await run(primary, right) == [(True,)]
        await run(primary, f"UPDATE {table} SET image_id = %s", other)
        assert await run(primary, right) == [(True,)]


async def test_what_hangs_on_an_image_is_never_there_without_knowing_when_it_was_made(primary: Primary) -> None:
    """Whatever order a statement has: a row that missed its image would be in none of the replica's lists."""
    made = "WITH made AS (INSERT INTO image (user_id, id, prompt, image_url) VALUES ('ada', %s, 'p', 'u') RETURNING *)"
    after = f"{made} INSERT INTO image_activity (user_id, image_id) SELECT user_id, id FROM made"
    before = f"{made} INSERT INTO image_activity (user_id, image_id) VALUES ('ada', %s)"
    await run(primary, after, "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11")
    two = "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c12"
    with pytest.raises(Conflict):
        await run(primary, before, two, two)
    right = "SELECT image_created_at = created_at FROM image_activity JOIN image ON id = image_id"
    assert await run(primary, right) == [(True,)]


async def test_an_image_that_is_committed_while_its_activity_is_written_is_not_missed(primary: Primary) -> None:
    """The reference is checked at the end of a statement; the image may have come since the row was made."""
    image = "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11"
    slow = "INSERT INTO image_activity (user_id, image_id) VALUES ('ada', %s) RETURNING pg_advisory_xact_lock_shared(7)"
    waits = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with primary.connection() as holding, holding.transaction():
        await holding.execute("SELECT pg_advisory_xact_lock(7)")
        writing = asyncio.create_task(run(primary, slow, image))
        async with asyncio.timeout(5):
            while not writing.done() and not await run(primary, waits):
                await asyncio.sleep(0.01)
        await run(primary, "INSERT INTO image (user_id, id, prompt, image_url) VALUES ('ada', %s, 'p', 'u')", image)
    with pytest.raises(Conflict):
        await writing
