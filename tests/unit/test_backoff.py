"""Pauses between attempts: longer each time, bounded, and apart from everybody else's."""

from __future__ import annotations

import random

from replica.backoff import FIRST_S, MAX_S, Backoff


def test_the_longest_pauses_double_up_to_the_bound():
    pauses = Backoff(draw=lambda: 1.0)
    assert [pauses.next_s() for _ in range(8)] == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    assert (FIRST_S, MAX_S) == (0.05, 2.0)


def test_the_shortest_are_half_of_them():
    pauses = Backoff(first_s=1, max_s=4, draw=lambda: 0.0)
    assert [pauses.next_s() for _ in range(4)] == [0.5, 1, 2, 2]


def test_two_who_lost_the_same_at_the_same_time_do_not_come_back_together():
    one, other = (Backoff(draw=random.Random(seed).random) for seed in (1, 2))
    both = [(one.next_s(), other.next_s()) for _ in range(20)]
    assert all(abs(a - b) > 1e-4 for a, b in both)


def test_what_has_worked_begins_anew():
    pauses = Backoff(draw=lambda: 1.0)
    for _ in range(9):
        pauses.next_s()
    pauses.reset()
    assert pauses.next_s() == FIRST_S
