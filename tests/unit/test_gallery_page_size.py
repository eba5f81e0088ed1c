"""A page ends sooner where its rows are large, and nothing is lost by that."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import apsw
import pytest

from replica.gallery import albums, detail, page_size
from replica.gallery.browse import browse
from replica.gallery.images import newest
from replica.gallery.listing import Filters, Listing
from replica.gallery.page_cursor import PageCursor
from tests.support.gallery_rows import id_of, insert, moment, new_replica

LONG = "語 " * 16_000
MAX_BYTES = 8 << 20
ROWS = 300  # of 64 KB: twice and more what a page may have here
LIMIT = 500

Pages = Callable[[apsw.Connection, PageCursor | None], tuple[bytes, PageCursor | None]]


@pytest.fixture
def connection() -> Iterator[apsw.Connection]:
    with closing(new_replica()) as connection:
        image: dict[str, Any] = {"image_url": "u", "source": "s", "meta": "{}", "row_version": 1, "prompt": LONG}
        connection.execute("BEGIN")
        for number in range(ROWS):
            made = {"created_at": moment(number), "updated_at": moment(number)}
            insert(connection, "image", id=id_of(number), **image, **made)
            insert(connection, "album", id=id_of(number), title="t", description=LONG, row_version=1, **made)
            edit = {"field": "prompt", "old_value": json.dumps(LONG), "edited_at": moment(number)}
            insert(connection, "image_edit", id=id_of(number), image_id=id_of(0), **edit)
        connection.execute("COMMIT")
        yield connection


def _images(listing: Listing) -> Pages:
    def read(connection: apsw.Connection, after: PageCursor | None) -> tuple[bytes, PageCursor | None]:
        found = browse(connection, listing, LIMIT, after)
        return found.images, found.next

    return read


def _newest(connection: apsw.Connection, after: PageCursor | None) -> tuple[bytes, PageCursor | None]:
    found = newest(connection, LIMIT, after)
    return found.images, found.next


def _albums(connection: apsw.Connection, after: PageCursor | None) -> tuple[bytes, PageCursor | None]:
    found = albums.albums(connection, LIMIT, after)
    return found.albums, found.next


def _edits(connection: apsw.Connection, after: PageCursor | None) -> tuple[bytes, PageCursor | None]:
    found = detail.entries(connection, detail.HISTORY, id_of(0), LIMIT, after)
    return found.entries, found.next


READS = {
    "the newest": _newest,
    "by a filter": _images(Listing(Filters(source="s"))),
    "by an order": _images(Listing(sort="rating")),
    "by a search": _images(Listing(Filters(q="語"), sort="relevance")),
    "albums": _albums,
    "edits": _edits,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_page_of_large_rows_ends_sooner_and_the_next_goes_on(
    connection: apsw.Connection, read: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_size, "PAGE_MAX_BYTES", MAX_BYTES)
    longest = connection.limit(apsw.SQLITE_LIMIT_LENGTH)
    met: list[str] = []
    after = None
    pages = 0
    while not pages or after is not None:
        text, after = read(connection, after)
        assert MAX_BYTES // 8 < len(text) <= MAX_BYTES or after is None
        met += [row["id"] for row in json.loads(b"[%b]" % text)]
        pages += 1
    assert sorted(met) == sorted(map(id_of, range(ROWS)))
    assert pages > 2
    assert connection.limit(apsw.SQLITE_LIMIT_LENGTH) == longest


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_row_that_is_larger_than_a_page_is_one_by_itself(
    connection: apsw.Connection, read: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_size, "PAGE_MAX_BYTES", len(LONG.encode()) // 2)
    met: list[str] = []
    after = None
    for _ in range(3):
        text, after = read(connection, after)
        (row,) = json.loads(b"[%b]" % text)
        met.append(row["id"])
    assert len(set(met)) == 3
    assert after is not None


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_where_less_may_be_put_together_what_is_more_is_left_to_others(
    connection: apsw.Connection, read: Pages
) -> None:
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, MAX_BYTES)  # as on the event loop
    with pytest.raises(apsw.TooBigError):
        read(connection, None)
    assert connection.limit(apsw.SQLITE_LIMIT_LENGTH) == MAX_BYTES
