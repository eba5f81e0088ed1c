"""Keeping the latest of something."""

from __future__ import annotations

from collections import OrderedDict

from primary.latest import keep


def test_what_was_kept_longest_is_forgotten_and_what_is_kept_again_is_the_latest():
    kept: OrderedDict[str, int] = OrderedDict()
    for key, value in (("a", 1), ("b", 2), ("a", 3), ("c", 4)):
        keep(kept, key, value, 2)
    assert kept == {"a": 3, "c": 4}
