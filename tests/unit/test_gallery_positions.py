"""Positions with gaps, and what else of the gallery's writes can be told without a database."""

from __future__ import annotations

import doctest

from hypothesis import given
from hypothesis import strategies as st

from primary.gallery import errors, positions
from primary.gallery.positions import LAST, STEP, at_end, between

POSITION = st.integers(0, LAST)


def test_the_examples_are_true() -> None:
    for module in (positions, errors):
        found = doctest.testmod(module)
        assert found.attempted > 0
        assert found.failed == 0


@given(low=POSITION | st.none(), high=POSITION | st.none())
def test_what_is_put_between_two_is_between_them_or_there_is_no_room(low: int | None, high: int | None) -> None:
    found = between(low, high)
    if found is not None:
        assert 0 <= found <= LAST
        assert low is None or low < found
        assert high is None or found < high
    elif high is not None:
        assert high - (-1 if low is None else low) <= 1
    else:
        assert low is not None
        assert low + STEP > LAST


@given(last=POSITION | st.none(), count=st.integers(1, 2_000))
def test_what_is_put_at_the_end_is_in_order_behind_all_or_there_is_no_room(last: int | None, count: int) -> None:
    found = at_end(last, count)
    if found is None:
        assert (last or 0) + STEP * count > LAST
        return
    assert len(found) == count
    assert list(found) == sorted(set(found))
    assert found[0] > (last or 0)
    assert found[-1] <= LAST


@given(count=st.integers(2, 50), data=st.data())
def test_an_order_that_was_spread_has_room_everywhere(count: int, data: st.DataObject) -> None:
    spread = [STEP * (n + 1) for n in range(count)]
    place = data.draw(st.integers(0, count))
    low = spread[place - 1] if place else None
    high = spread[place] if place < count else None
    assert between(low, high) is not None
