"""The parts of the mirror that need nobody: when to try again, what an answer means, how keys are sealed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.gallery.mirror.graphql import (
    MirrorFailure,
    RowRefused,
    ServerFailed,
    check_answer,
    check_status,
    o_call,
    rating_call,
)
from gateway.gallery.mirror.limits import MirrorLimits
from gateway.gallery.mirror.routes import UpstreamSettings
from gateway.gallery.mirror.sealing import ApiKey, CannotOpen, Sealer
from gateway.settings import Settings
from replica.backoff import wait_s

SECRET = "a secret for tests, of thirty-two bytes at least"
LIMITS = MirrorLimits.of(Settings())


def waits(count: int, chance: float) -> list[float]:
    bounds = {"first_s": LIMITS.backoff_first_s, "max_s": LIMITS.backoff_max_s}
    return [wait_s(n, draw=lambda: chance, **bounds) for n in range(1, count + 1)]


def test_waits_double_up_to_an_hour_and_chance_takes_half_of_them_at_most() -> None:
    assert waits(14, 1.0) == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]
    assert waits(14, 0.0) == [wait / 2 for wait in waits(14, 1.0)]
    assert waits(2_000, 1.0)[-1] == 3600  # and no number overflows


def test_it_is_tried_for_half_a_day_at_least_and_a_day_and_a_half_at_most() -> None:
    hours = [sum(waits(LIMITS.tries_max - 1, chance)) / 3600 for chance in (0.0, 1.0)]
    assert hours[0] >= 12
    assert hours[1] <= 36


def test_a_lease_outlives_the_longest_delivery() -> None:
    assert LIMITS.lease_s >= 2 * LIMITS.total_timeout_s


def test_what_is_said_is_what_stash_understands() -> None:
    asked = [rating_call("7", 80), rating_call("7", None), o_call("7", more=True), o_call("7", more=False)]
    bodies = [msgspec.json.decode(call.body) for call in asked]
    assert [body["variables"] for body in bodies] == [
        {"id": "7", "rating100": 80},
        {"id": "7", "rating100": None},  # takes it away; to leave it out would leave it as it is
        {"id": "7"},
        {"id": "7"},
    ]
    assert bodies[0]["query"] == (
        "mutation Rate($id: ID!, $rating100: Int) { imageUpdate(input: {id: $id, rating100: $rating100}) { id } }"
    )
    assert [call.field for call in asked] == ["imageUpdate", "imageUpdate", "imageIncrementO", "imageDecrementO"]


@pytest.mark.parametrize("answer", [{"data": {"imageIncrementO": 0}}, {"data": {"imageIncrementO": 3}, "errors": []}])
def test_an_answer_with_data_and_no_error_is_done(answer: Any) -> None:
    check_answer(o_call("7", more=True), 200, msgspec.json.encode(answer))


@pytest.mark.parametrize(
    ("status", "answer", "kind", "settled"),
    [
        (200, {"data": {"imageIncrementO": 3}, "errors": [{"message": "m"}]}, RowRefused, False),
        (200, {"errors": [{"message": "image with id 7 not found"}]}, RowRefused, True),
        (422, {"errors": [{"message": "m"}]}, RowRefused, True),
        (200, {"data": {"imageIncrementO": None}}, RowRefused, True),
        (200, {"data": None}, ServerFailed, False),
        (200, {}, ServerFailed, False),
        (400, {"message": "no"}, ServerFailed, False),
        (200, None, ServerFailed, False),
        (200, [[[]]], ServerFailed, False),
    ],
)
def test_every_other_answer_is_a_failure(status: int, answer: Any, kind: type[MirrorFailure], settled: bool) -> None:
    with pytest.raises(kind) as failed:
        check_answer(o_call("7", more=True), status, msgspec.json.encode(answer))
    assert failed.value.settled is settled


def test_an_answer_of_a_thousand_brackets_is_a_failure_too() -> None:
    with pytest.raises(ServerFailed):
        check_answer(o_call("7", more=True), 200, b"[" * 60_000)


@pytest.mark.parametrize(
    ("status", "settled"),
    [
        *((204, False), (301, True), (307, True), (401, True), (403, True), (404, True)),
        *((408, False), (429, False), (500, False), (503, False)),
    ],
)
def test_a_status_that_is_no_answer_is_the_servers_failure(status: int, settled: bool) -> None:
    with pytest.raises(ServerFailed) as failed:
        check_status(status)
    assert failed.value.settled is settled


def test_a_sealed_key_opens_for_its_user_and_endpoint_alone() -> None:
    sealer, key = Sealer(SECRET), ApiKey("the-key")
    sealed = sealer.seal(key, "ada", "https://a/")
    assert sealer.open(sealed, "ada", "https://a/").reveal() == "the-key"
    assert b"the-key" not in sealed
    assert sealer.seal(key, "ada", "https://a/") != sealed  # equal keys are not seen to be equal
    for other, user, endpoint, text in [
        (Sealer(SECRET + "!"), "ada", "https://a/", sealed),
        (sealer, "eve", "https://a/", sealed),
        (sealer, "ada", "https://b/", sealed),
        (sealer, "ada", "https://a/", sealed[:-1]),
        (sealer, "ada", "https://a/", b"\x02" + sealed[1:]),
        (sealer, "ada", "https://a/", b"\x01"),
        (sealer, "ada", "https://a/", b""),
    ]:
        with pytest.raises(CannotOpen) as failed:
            other.open(text, user, endpoint)
        assert failed.value.__suppress_context__ or failed.value.__context__ is None


def test_a_key_shows_itself_nowhere() -> None:
    key = ApiKey("the-key")
    settings = UpstreamSettings("https://a/", "the-key")
    rich = settings.__rich_repr__()
    for text in (f"{key}", f"{key!r}", f"{[key]}", f"{settings}", f"{settings!r}", f"{rich}"):
        assert "the-key" not in text
    assert "s" * 40 not in repr(Settings(mirror_secret="s" * 40))
    assert key.without("it was the-key!") == "it was …!"
