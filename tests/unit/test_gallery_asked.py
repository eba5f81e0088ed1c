"""How requests for images are read."""

from __future__ import annotations

import contextlib
from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.gallery.asked import PageAsked, image_id_asked, page_asked, row_version_asked
from gateway.problems import Problem
from replica.gallery.page_cursor import InvalidPageCursor, PageCursor

CURSOR = PageCursor("2025-03-01T08:00:00.000000Z", "3f0c2a52-7d5e-4a83-9d0e-6a4a0b6f6c11")


def asked(query: str) -> PageAsked:
    return page_asked(query.encode("latin-1"), limit_default=50, limit_max=500)


def fields_refused(query: str) -> list[str]:
    with pytest.raises(Problem) as refused:
        asked(query)
    assert refused.value.status == 422
    return [error.field for error in refused.value.errors]


def test_a_page_has_a_default_size_and_begins_at_the_newest() -> None:
    assert asked("") == asked("min_version=whatever") == PageAsked(50, None)


def test_a_page_is_asked_for_by_size_and_cursor() -> None:
    assert asked(f"cursor={CURSOR}&limit=500") == PageAsked(500, CURSOR)


@pytest.mark.parametrize("limit", ["", "0", "501", "-1", "1.5", "1e2", "x", "%D9%A1", "+1", "9" * 5_000])
def test_a_size_out_of_bounds_is_refused(limit: str) -> None:
    assert fields_refused(f"limit={limit}") == ["limit"]


@pytest.mark.parametrize("cursor", ["", "x", "%00", "%F0%9F%8F%8A", str(CURSOR) + "=", str(CURSOR)[:-2], "a" * 5_000])
def test_a_cursor_that_no_page_was_answered_with_is_refused(cursor: str) -> None:
    assert fields_refused(f"cursor={cursor}") == ["cursor"]


def test_parameters_that_are_unknown_or_repeated_are_refused_by_name() -> None:
    assert fields_refused("limit=1&sort=up&limit=2&Limit=3") == ["limit", "sort", "Limit"]


@given(st.binary(max_size=200))
def test_whatever_the_query_it_is_read_or_refused(query: bytes) -> None:
    with contextlib.suppress(Problem):
        assert 1 <= page_asked(query, limit_default=50, limit_max=500).limit <= 500


@given(st.text() | st.binary().map(lambda raw: urlsafe_b64encode(raw).decode().rstrip("=")))
def test_a_page_cursor_is_only_what_it_would_print_itself(text: str) -> None:
    try:
        assert str(PageCursor.parse(text)) == text
    except InvalidPageCursor:
        pass


@pytest.mark.parametrize(
    "moment", ["infinity", "-infinity", "0044-03-15T12:00:00.000000Z BC", "12024-01-01T00:00:00.000000Z"]
)
def test_a_page_can_end_at_any_time_that_postgres_can_hold(moment: str) -> None:
    cursor = PageCursor(moment, CURSOR.id)
    assert PageCursor.parse(str(cursor)) == cursor


@pytest.mark.parametrize("text", ["", "x", "3f0c2a527d5e4a839d0e6a4a0b6f6c11", "{" + CURSOR.id + "}", CURSOR.id + "\n"])
def test_an_id_that_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(Problem) as refused:
        image_id_asked(text)
    assert [error.field for error in refused.value.errors] == ["image_id"]


def test_an_id_may_be_written_in_capitals() -> None:
    assert str(image_id_asked(CURSOR.id.upper())) == CURSOR.id


@pytest.mark.parametrize(("header", "version"), [(None, None), ("*", None), ('"3"', 3), ("3", 3), (' "3" ', 3)])
def test_a_row_version_is_read_as_etags_are_written_or_bare(header: str | None, version: int | None) -> None:
    assert row_version_asked(header) == version


@pytest.mark.parametrize("header", ["", '"0"', '"x"', 'W/"3"', '"1", "2"', "-1", str(2**63)])
def test_a_row_version_that_is_none_is_refused(header: str) -> None:
    with pytest.raises(Problem) as refused:
        row_version_asked(header)
    assert [error.field for error in refused.value.errors] == ["If-Match"]
