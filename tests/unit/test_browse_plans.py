"""What a page of a list costs over 100,000 images: no scan, no sort, and little more than the plain page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any, get_args

import apsw
import pytest

from replica.gallery.browse import browse
from replica.gallery.listing import Filters, Listing, Sort
from replica.gallery.page_cursor import PageCursor
from replica.library import connect
from tests.support.gallery_rows import SCHEMA, id_of

IMAGES = 100_000
ALBUM, OTHER = id_of(1), id_of(2)

_NUMBERS = f"WITH RECURSIVE numbers (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < {IMAGES - 1})"
_ID = "printf('%08x-0000-4000-8000-%012x', n * 2654435761 % 4294967296, n)"
_MADE = "strftime('%Y-%m-%dT%H:%M:%S', 1704067200 + n * 60, 'unixepoch') || '.000000Z'"
_ROWS = {
    "image": (
        "id, prompt, image_url, model, source, meta, created_at, updated_at, row_version",
        f"""{_ID}, 'a heron ' || iif(n % 3, 'at low water ', 'and a tide pool ') || n, 'u', 'model ' || n % 5,
        'source ' || n % 4, '{{}}', {_MADE}, {_MADE}, 1""",
    ),
    "image_activity": (
        "image_id, is_favorite, rating, view_count, o_count, usage_count, last_viewed_at, image_created_at",
        f"{_ID}, n % 10 = 0, n % 103 - 2, n % 4, n % 6, n % 2, {_MADE}, {_MADE}",
    ),
    "album_image": (
        "album_id, image_id, position, added_at, image_created_at",
        f"iif(n % 2, '{ALBUM}', '{OTHER}'), {_ID}, n, {_MADE}, {_MADE}",
    ),
}


class Recording:
    """A connection that remembers what it was asked."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.connection = connection
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def execute(self, sql: str, values: dict[str, Any] | None = None) -> apsw.Cursor:
        self.asked.append((sql, values or {}))
        return self.connection.execute(sql, values or {})

    def limit(self, *given: int) -> int:
        return self.connection.limit(*given)


@pytest.fixture(scope="module")
def large() -> Iterator[apsw.Connection]:
    with closing(connect(":memory:")) as connection:
        connection.execute("BEGIN")
        for statement in SCHEMA.tables:
            connection.execute(statement)
        for table, (columns, values) in _ROWS.items():
            connection.execute(f"INSERT INTO {table} ({columns}) {_NUMBERS} SELECT {values} FROM numbers")
        connection.execute("UPDATE image_activity SET rating = NULL WHERE rating < 0")
        for statement in [*SCHEMA.keys, *SCHEMA.unfinished(connection)]:
            connection.execute(statement)
        connection.execute("COMMIT")
        yield connection


FILTERS = {
    "favorite": Filters(favorite=True),
    "not favorite": Filters(favorite=False),
    "min_rating 0": Filters(min_rating=0),
    "min_rating 80": Filters(min_rating=80),
    "min_rating 100": Filters(min_rating=100),
    "album": Filters(album=ALBUM),
    "source": Filters(source="source 1"),
    "no such source": Filters(source="none"),
    "model": Filters(model="model 1"),
    "created_from": Filters(created_from="2024-03-01T00:00:00.000000Z"),
    "created_to": Filters(created_to="2024-02-01T00:00:00.000000Z"),
}
ORDERED = {
    f"{sort} {order}": Listing(Filters(album=ALBUM if sort == "position" else None), sort, order)
    for sort in get_args(Sort)
    if sort != "relevance"
    for order in ("asc", "desc")
}
LISTINGS = {name: Listing(filters) for name, filters in FILTERS.items()} | ORDERED


def steps(connection: apsw.Connection, work: Callable[[], Any]) -> int:
    """Count the steps that SQLite's machine takes, in tens."""
    count = 0

    def tick() -> bool:
        nonlocal count
        count += 1
        return False

    connection.set_progress_handler(tick, 10)
    try:
        work()
    finally:
        connection.set_progress_handler(None, 10)
    return count


def far_in(connection: apsw.Connection, listing: Listing) -> PageCursor | None:
    """Give the end of the list's first thousand images."""
    return browse(connection, listing, 1_000).next


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
@pytest.mark.parametrize("deep", [False, True], ids=["first page", "later page"])
def test_a_list_is_read_along_an_index_without_a_sort(large: apsw.Connection, listing: Listing, deep: bool) -> None:
    after = far_in(large, listing) if deep else None
    recording = Recording(large)
    browse(recording, listing, 20, after)  # type: ignore[arg-type]
    for sql, values in recording.asked:
        if "count(*)" in sql and "LIMIT :limit" in sql:
            continue  # which looks at so many at most
        plan = [row[3] for row in large.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
        assert not any("TEMP B-TREE" in step for step in plan), plan
        for step in plan:
            assert not step.startswith("SCAN") or "INDEX" in step or step in {"SCAN at", "SCAN (subquery-1)"}, plan


@pytest.mark.parametrize("name", LISTINGS)
@pytest.mark.parametrize("deep", [False, True], ids=["first page", "later page"])
def test_a_page_of_a_list_takes_little_more_work_than_the_plain_one(
    large: apsw.Connection, name: str, deep: bool
) -> None:
    listing = LISTINGS[name]
    after, plain_after = (far_in(large, listing), far_in(large, Listing())) if deep else (None, None)
    plain = steps(large, lambda: browse(large, Listing(), 20, plain_after))
    # A low rating is the merging of up to 101 lists; images with a count of 0 lie among all others.
    most = 6 if name.startswith("min_rating") else 4 if name in ORDERED else 2
    assert steps(large, lambda: browse(large, listing, 20, after)) <= most * plain


@pytest.mark.parametrize("listing", LISTINGS.values(), ids=LISTINGS)
def test_a_page_takes_images_as_the_index_has_them_rendered(large: apsw.Connection, listing: Listing) -> None:
    recording = Recording(large)
    browse(recording, listing, 20)  # type: ignore[arg-type]
    sql, values = next(asked for asked in recording.asked[::-1] if "group_concat" in asked[0])
    if not listing.is_plain:
        program = list(large.execute(f"EXPLAIN {sql}", values))
        assert sum("printf" in str(step[5]) for step in program) == 1  # of the activity
