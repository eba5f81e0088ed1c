"""What is read of images from a replica's file, and at what cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any
from uuid import UUID

import apsw
import pytest

from primary.gallery.tables import catalog
from replica.gallery import images
from replica.gallery.images import newest, one
from replica.gallery.page_cursor import PageCursor
from replica.gallery.profiles import profile
from replica.library import connect
from replica.schema import Schema

SCHEMA = Schema(catalog)


def id_of(number: int) -> str:
    return str(UUID(int=number))


def insert(connection: apsw.Connection, table: str, **values: Any) -> None:
    marks = ", ".join("?" * len(values))
    connection.execute(f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})", [*values.values()])


def insert_image(connection: apsw.Connection, number: int, created_at: str, **values: Any) -> None:
    row: dict[str, Any] = {
        "id": id_of(number),
        "prompt": f"prompt {number}",
        "image_url": "u",
        "source": "s",
        "meta": "{}",
        "created_at": created_at,
        "updated_at": created_at,
        "row_version": 1,
    }
    insert(connection, "image", **row | values)


@pytest.fixture
def unfinished() -> Iterator[apsw.Connection]:
    """A replica's file as it is while its last indexes are still to be made."""
    with closing(connect(":memory:")) as connection:
        for statement in [*SCHEMA.tables, *SCHEMA.keys, *SCHEMA.first]:
            connection.execute(statement)
        yield connection


@pytest.fixture
def connection(unfinished: apsw.Connection) -> apsw.Connection:
    for statement in SCHEMA.unfinished(unfinished):
        unfinished.execute(statement)
    return unfinished


def ids(page: images.Page) -> list[str]:
    return [image["id"] for image in json.loads(b"[%b]" % page.images)]


def statements() -> list[tuple[str, dict[str, Any]]]:
    first: dict[str, Any] = {"limit": 20}
    after = first | {"created_at": "2024", "id": ""}
    return [
        (images._FIRST_PAGE, first),
        (images._FIRST_END, first),
        (images._NEXT_PAGE, after),
        (images._NEXT_END, after),
    ]


def test_no_page_scans_or_sorts_the_images(connection: apsw.Connection) -> None:
    for sql, values in statements():
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert any("image.newest" in step for step in plan), plan
        assert not any("TEMP B-TREE" in step for step in plan), plan
        assert not any(step.startswith("SCAN image") and "image.newest" not in step for step in plan), plan
        assert not any(step.startswith("SCAN told") for step in plan), plan


def test_no_page_scans_or_sorts_the_images_before_its_index_is_made(unfinished: apsw.Connection) -> None:
    test_no_page_scans_or_sorts_the_images(unfinished)


def test_what_stood_in_for_an_index_goes_when_it_is_made(connection: apsw.Connection) -> None:
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE name LIKE 'image.newest%'")]
    assert names == ["image.newest"]


@pytest.mark.parametrize("place", [0, 2])
def test_a_page_takes_images_from_the_index_as_they_were_rendered(connection: apsw.Connection, place: int) -> None:
    sql, values = statements()[place]
    program = list(connection.execute(f"EXPLAIN {sql}", values))
    # What is left to render is the activity.
    assert sum("printf" in str(step[5]) for step in program) == 1


def test_a_page_is_the_same_before_its_index_is_made(unfinished: apsw.Connection) -> None:
    for number in range(1, 30):
        insert_image(unfinished, number, f"2024-01-01T00:00:{number % 7:02}.000000Z")
    before = newest(unfinished, 10, newest(unfinished, 10).next)
    for statement in SCHEMA.unfinished(unfinished):
        unfinished.execute(statement)
    assert newest(unfinished, 10, newest(unfinished, 10).next) == before


def test_texts_come_out_as_they_went_in(connection: apsw.Connection) -> None:
    prompt = 'quotes " and \\, \b\f\n\r\t\x01\x7f \u2028 مرحبا 🏊 {"id":"x"},{"'
    meta = '{"a": [1.10, 1e2, 123456789012345678901234567890, "\\u0001"]}'
    insert_image(connection, 1, "2024-01-01T00:00:00.000000Z", prompt=prompt, meta=meta, seed=-(2**63), alt_text="")
    page = newest(connection, 1)
    [image] = json.loads(b"[%b]" % page.images)
    assert (image["prompt"], image["seed"], image["alt_text"], image["model"]) == (prompt, -(2**63), "", None)
    assert meta.encode() in page.images
    found = one(connection, id_of(1))
    assert found is not None
    assert (json.loads(b"{%b}" % found[0]), found[1]) == (image, False)


def test_an_image_has_the_default_activity_until_there_is_one(connection: apsw.Connection) -> None:
    insert_image(connection, 1, "2024-01-01T00:00:00.000000Z")
    [image] = json.loads(b"[%b]" % newest(connection, 1).images)
    activity = {
        "is_favorite": False,
        "rating": None,
        "view_count": 0,
        "o_count": 0,
        "usage_count": 0,
        "last_viewed_at": None,
    }
    assert image.items() >= activity.items()
    told = {"is_favorite": 1, "rating": 0, "view_count": 2, "o_count": 3, "usage_count": 4}
    insert(connection, "image_activity", image_id=id_of(1), image_created_at="2024-01-01T00:00:00.000000Z", **told)
    [image] = json.loads(b"[%b]" % newest(connection, 1).images)
    assert image.items() >= {"is_favorite": True, "rating": 0, "view_count": 2, "o_count": 3, "usage_count": 4}.items()
    assert image["last_viewed_at"] is None


def test_a_walk_over_the_pages_meets_every_image_once(connection: apsw.Connection) -> None:
    moments = ["-infinity", "0044-03-15T12:00:00.000000Z BC", "2024-01-01T00:00:00.000000Z", "infinity"]
    for number in range(1, 41):
        insert_image(connection, number, moments[number % 4])
    met: list[str] = []
    cursor: PageCursor | None = None
    while True:
        page = newest(connection, 7, cursor and PageCursor.parse(str(cursor)))
        met += ids(page)
        cursor = page.next
        if cursor is None:
            break
    assert sorted(met) == [id_of(number) for number in range(1, 41)]


def test_what_is_not_there_is_none(connection: apsw.Connection) -> None:
    assert one(connection, id_of(1)) is None
    assert profile(connection) is None
    assert newest(connection, 20) == images.Page(b"", None)
