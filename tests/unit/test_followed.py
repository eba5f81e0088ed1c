"""What is known of one followed user: when it is behind, since when, and when it may be served."""

from __future__ import annotations

from primary.cursor import Cursor
from replica.followed import LAG_MAX_S, Followed

EPOCH, OTHER = "1-1-1-1", "1-2-1-1"


def at(version: int, epoch: str = EPOCH) -> Cursor:
    return Cursor(epoch, version)


def joined() -> Followed:
    followed = Followed("ada", 0)
    followed.reach(at(5), None, 1)
    return followed


def test_who_was_never_synced_is_not_served():
    assert not Followed("ada", 0).serves(1, 0)
    assert joined().serves(1, 0)


def test_what_the_replica_has_is_no_news_and_neither_is_what_was_heard_before():
    followed = joined()
    assert not followed.hear(at(4), 0)
    assert not followed.hear(at(5), 0)
    assert followed.hear(at(7), 0)
    assert not followed.hear(at(7), 0)
    assert not followed.hear(at(6), 0)
    assert followed.hear(at(8), 0)
    assert followed.target == at(8)


def test_a_replica_that_is_behind_is_served_for_a_moment_counted_from_when_it_may_have_fallen_behind():
    followed = joined()
    followed.hear(at(6), since=10)
    assert followed.serves(1, 10 + LAG_MAX_S)
    assert not followed.serves(1, 10.1 + LAG_MAX_S)
    followed.hear(at(7), since=20)
    assert not followed.serves(1, 20), "a later move takes nothing of the earlier's age away"
    followed.reach(at(7), followed.target, 1)
    assert followed.serves(1, 100)


def test_a_late_word_of_an_early_move_counts_from_then():
    followed = joined()
    followed.hear(at(6), since=10)  # of a write through this node
    assert not followed.hear(at(6), since=5)  # of the tail, which was silent in between
    assert not followed.serves(1, 5.1 + LAG_MAX_S)


def test_what_is_heard_of_during_a_sync_is_still_to_come_unless_the_sync_has_it():
    followed = joined()
    followed.hear(at(6), 0)
    began_with = followed.target
    followed.hear(at(8), 0)
    followed.reach(at(7), began_with, 1)
    assert followed.target == at(8)
    followed.reach(at(8), began_with, 1)
    assert followed.target is None


def test_what_the_primary_has_now_is_the_truth_even_where_it_is_less_than_was_heard():
    followed = joined()
    followed.hear(at(9), 0)
    followed.reach(at(2, OTHER), followed.target, 2)
    assert followed.target is None
    assert followed.serves(2, 0)
    assert followed.hear(at(3, OTHER), 0)


def test_a_write_through_this_node_is_waited_for_until_it_is_there_and_what_others_wrote_is_not():
    followed = joined()
    assert not followed.write(at(5), 0)
    assert followed.serves(1, 0), "it is there already"
    assert followed.write(at(7), 0)
    assert not followed.write(at(6), 0), "an earlier one, told later"
    assert followed.hear(at(9), 0)
    followed.reach(at(6), None, 1)
    assert not followed.serves(1, 0)
    followed.reach(at(7), None, 1)
    assert followed.serves(1, 0)


def test_a_write_to_a_primary_that_is_replaced_is_not_waited_for():
    followed = joined()
    followed.write(at(9), 0)
    followed.reach(at(2, OTHER), followed.target, 2)
    assert followed.serves(2, 0)


def test_another_era_asks_for_another_sync_and_an_older_one_that_ends_late_takes_nothing_away():
    followed = joined()
    followed.hear(at(6), 0)
    assert followed.known(1) == at(6)
    assert followed.known(2) is None, "who joins has to look for all that there is"
    followed.reach(at(6), followed.target, 1)
    assert not followed.serves(2, 0)
    followed.reach(at(6), None, 2)
    followed.reach(at(6), None, 1)
    followed.reach(at(6), None, None)
    assert followed.serves(2, 0)


def test_who_listens_comes_first_and_then_who_was_read_last():
    early, late, listens = Followed("a", 1), Followed("b", 2), Followed("c", 0, streams=1)
    assert sorted([early, late, listens], key=Followed.heat) == [listens, late, early]


def test_only_who_is_listened_to_is_synced_for_joining_alone():
    followed = Followed("ada", 0)
    assert not followed.lacks(1)
    followed.streams = 1
    assert followed.lacks(1)
    assert not followed.lacks(None), "a tail that has not looked is nothing to join"
    followed.reach(at(5), None, 1)
    assert not followed.lacks(1)
    followed.hear(at(6), 0)
    assert followed.lacks(1)
    assert followed.lacks(None)


def test_what_fails_is_tried_again_later_each_time_up_to_a_bound():
    followed = joined()
    steps = (0.5, 1, 2, 4, 5, 5, 5, 5, 5, 5, 5)
    for step in steps:
        followed.fail(100)
        assert 100 + step / 2 <= followed.unbrought_until <= 100 + step
    assert not followed.checked
    followed.reach(at(5), None, 1)
    followed.fail(100)
    assert followed.unbrought_until <= 100.5
