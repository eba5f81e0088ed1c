"""The cursor is a value: what it prints it reads, and what it would not print it refuses."""

from __future__ import annotations

import doctest
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from primary import cursor
from primary.cursor import VERSION_MAX, Cursor
from primary.errors import EpochMismatch, InvalidCursor

hex_parts = [st.integers(0, 2**64 - 1), *[st.integers(0, 2**32 - 1)] * 3]
epochs = st.tuples(*hex_parts).map(lambda parts: "-".join(f"{part:x}" for part in parts))
versions = st.integers(0, VERSION_MAX) | st.sampled_from([0, 1, VERSION_MAX])
cursors = st.builds(Cursor, epochs, versions)


def test_the_examples_in_its_documentation_hold() -> None:
    found = doctest.testmod(cursor, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert found.attempted > 3
    assert found.failed == 0


@given(cursors)
def test_every_cursor_is_read_back_from_its_text(made: Cursor) -> None:
    assert Cursor.parse(str(made)) == made
    assert hash(Cursor.parse(str(made))) == hash(made)


@given(epochs, versions, versions)
def test_cursors_of_one_epoch_are_ordered_by_version(epoch: str, one: int, other: int) -> None:
    left, right = Cursor(epoch, one), Cursor(epoch, other)
    assert (left < right, left <= right, left > right, left >= right, left == right) == (
        one < other,
        one <= other,
        one > other,
        one >= other,
        one == other,
    )


@given(cursors, cursors)
def test_cursors_of_two_epochs_have_no_order_and_are_not_equal(left: Cursor, right: Cursor) -> None:
    if left.epoch == right.epoch:
        return
    assert left != right
    for compare in (left.__lt__, left.__le__, left.__gt__, left.__ge__):
        with pytest.raises(EpochMismatch) as told:
            compare(right)
        assert told.value.hint


# Texts that are nearly cursors are likelier to be taken by mistake than any text.
nearly = st.builds(
    lambda made, place, text, cut: str(made)[:place] + text + str(made)[place + cut :],
    cursors,
    st.integers(0, 40),
    st.text(max_size=3) | st.sampled_from(["-", ".", "0", "A", " ", "\n", "+", "٣", "\0", "e", "_"]),
    st.integers(0, 3),
)


@given(st.text() | nearly)
def test_any_text_is_refused_or_printed_again_unchanged(text: str) -> None:
    try:
        read = Cursor.parse(text)
    except InvalidCursor:
        return
    assert str(read) == text
    assert re.fullmatch(r"[0-9a-f]+(-[0-9a-f]+){3}\.[0-9]+", text, re.ASCII)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "42",
        "6b-1-5.1",
        "6b-1-5-1",
        "6b-1-5-1.",
        "6b-1-5-1-1.1",
        "6b-1-5-1.01",
        "6b-1-5-1.-1",
        "6b-1-5-1.+1",
        "6b-1-5-1.1_0",
        "6b-1-5-1.1\n",
        " 6b-1-5-1.1",
        "6B-1-5-1.1",
        "6b-1-5-1.٣",
        "6b-1-5-1.1\0",
        "6g-1-5-1.1",
        f"6b-1-5-1.{2**63}",
        "0" * 17 + "-1-5-1.1",
        "6b-1-5-1." + "9" * 5_000,
        "x" * 1_000_000,
    ],
)
def test_what_is_not_a_cursor_is_refused_shortly(text: str) -> None:
    with pytest.raises(InvalidCursor) as told:
        Cursor.parse(text)
    assert len(str(told.value)) < 400
    assert isinstance(told.value, ValueError)
