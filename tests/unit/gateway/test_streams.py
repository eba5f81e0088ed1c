"""How many event streams are open, as they come and go."""

from __future__ import annotations

from contextlib import ExitStack, nullcontext
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.events.streams import Streams
from gateway.problems import Problem
from replica.advances import Advances


def test_who_has_left_leaves_room_and_nothing_that_is_kept():
    follower = SimpleNamespace(stream=lambda _: nullcontext())
    streams = Streams(Advances(), cast("Any", follower), per_user_max=2, node_max=4)
    for _ in range(2):
        with ExitStack() as opened:
            for user, comes_in in (("ada", True), ("ada", True), ("bob", True), ("ada", False), ("cat", True)):
                with nullcontext() if comes_in else pytest.raises(Problem):
                    opened.enter_context(streams.listen(user))
            with pytest.raises(Problem):
                opened.enter_context(streams.listen("dan"))
        assert not streams._open
    streams.close()
    with pytest.raises(Problem) as caught, streams.listen("ada"):
        pass
    assert caught.value.status == 503
