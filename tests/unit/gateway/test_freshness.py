"""I3: who hands back a cursor never reads an older state; who has it all is told so without a read."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.freshness import Freshness
from gateway.problems import Problem
from primary.cursor import Cursor
from primary.errors import EpochMismatch, PrimaryUnavailable
from replica.results import SyncResult

EPOCH, OTHER_EPOCH = "6b0133b5e2a0f855-1-5-4001", "6b0133b5e2a0f855-2-5-4001"


class Replicas:
    """A replica at ``at``, of a primary at ``head`` that can be slow, away, or another one."""

    def __init__(self, at: int = 5, head: int = 5) -> None:
        self.at = Cursor(EPOCH, at)
        self.head = Cursor(EPOCH, head)
        self.syncs = 0
        self.away_for = 0
        self.slow_s = 0.0

    async def cursor(self, user: str) -> Cursor:
        return self.at

    async def sync(self, user: str, *, at_least: Cursor | None = None) -> SyncResult:
        self.syncs += 1
        await asyncio.sleep(self.slow_s)
        if self.syncs <= self.away_for:
            raise PrimaryUnavailable
        self.at = self.head
        return SyncResult(self.at, 0, False)


class Following:
    """A follower that follows, or one that does not and can check or not."""

    def __init__(self, *, follows: bool = True, finds: bool = True) -> None:
        self.follows = follows
        self.finds = finds
        self.checks = 0

    def serves(self, user: str) -> bool:
        return self.follows

    async def check(self, user: str) -> bool:
        self.checks += 1
        return self.finds

    def vouches(self, user: str) -> bool:
        return self.follows or self.finds


class Primary:
    reachable = True


def scope(query: str = "", **headers: str) -> Any:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": pairs, "query_string": query.encode()}


def freshness(replicas: Replicas, wait_ms: int = 200, edition: str = "") -> Freshness:
    return Freshness(replicas, Following(), Primary(), wait_ms=wait_ms, edition=edition)


async def problem(replicas: Replicas, asked: Any, wait_ms: int = 200) -> Problem:
    with pytest.raises(Problem) as caught:
        await freshness(replicas, wait_ms).before(asked, "ada")
    return caught.value


async def test_without_a_min_version_nothing_is_synced():
    replicas = Replicas(5, 9)
    assert await freshness(replicas).before(scope(), "ada") is None
    assert replicas.syncs == 0


@pytest.mark.parametrize("version", [0, 4, 5])
async def test_a_version_that_is_there_already_costs_no_sync(version):
    replicas = Replicas(5, 9)
    await freshness(replicas).before(scope(x_min_version=f"{EPOCH}.{version}"), "ada")
    assert replicas.syncs == 0


@pytest.mark.parametrize("asked", [scope(x_min_version=f"{EPOCH}.9"), scope(f"a=1&min_version={EPOCH}.9")])
async def test_a_version_that_is_not_is_synced_to(asked):
    replicas = Replicas(5, 9)
    await freshness(replicas).before(asked, "ada")
    assert (replicas.at.version, replicas.syncs) == (9, 1)


async def test_a_version_ahead_of_the_primary_is_waited_for_and_then_504():
    replicas = Replicas(5, 7)
    told = await problem(replicas, scope(x_min_version=f"{EPOCH}.8"))
    assert (told.status, told.code) == (504, "version_not_reached")
    assert 3 <= replicas.syncs <= 8  # it tried more than once, and not without pause


async def test_a_version_that_arrives_while_it_is_waited_for_is_served():
    replicas = Replicas(5, 7)
    waiting = asyncio.create_task(freshness(replicas, 5_000).before(scope(x_min_version=f"{EPOCH}.8"), "ada"))
    await asyncio.sleep(0.05)
    replicas.head = Cursor(EPOCH, 8)
    assert await waiting is None
    assert replicas.at.version == 8


async def test_a_sync_that_takes_too_long_is_504_in_time():
    replicas = Replicas(5, 9)
    replicas.slow_s = 30
    async with asyncio.timeout(5):
        assert (await problem(replicas, scope(x_min_version=f"{EPOCH}.9"))).status == 504


async def test_a_primary_that_is_back_in_time_does_no_harm():
    replicas = Replicas(5, 9)
    replicas.away_for = 2
    await freshness(replicas).before(scope(x_min_version=f"{EPOCH}.9"), "ada")
    assert replicas.at.version == 9


async def test_a_primary_that_stays_away_is_told_in_the_504():
    replicas = Replicas(5, 9)
    replicas.away_for = 1_000
    told = await problem(replicas, scope(x_min_version=f"{EPOCH}.9"))
    assert told.status == 504
    assert "primary" in told.detail


async def test_a_primary_that_is_there_again_is_not_blamed_in_the_504():
    replicas = Replicas(5, 7)
    replicas.away_for = 1
    assert "primary" not in (await problem(replicas, scope(x_min_version=f"{EPOCH}.8"))).detail


async def test_a_version_of_another_primary_is_409():
    with pytest.raises(EpochMismatch):
        await freshness(Replicas()).before(scope(x_min_version=f"{OTHER_EPOCH}.1"), "ada")


async def test_a_version_of_the_primary_that_took_over_is_synced_to():
    replicas = Replicas(5)
    replicas.head = Cursor(OTHER_EPOCH, 2)
    await freshness(replicas).before(scope(x_min_version=f"{OTHER_EPOCH}.1"), "ada")
    assert replicas.at == Cursor(OTHER_EPOCH, 2)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (scope(x_min_version="5"), "X-Min-Version"),
        (scope(x_min_version=f"{EPOCH}.-1"), "X-Min-Version"),
        (scope(x_min_version="é"), "X-Min-Version"),
        (scope("min_version=x"), "min_version"),
        (scope(f"min_version={EPOCH}.{2**63}"), "min_version"),
    ],
)
async def test_what_is_no_version_is_422_and_names_where_it_stood(asked, field):
    told = await problem(Replicas(), asked)
    assert (told.status, told.code) == (422, "invalid_cursor")
    assert [error.field for error in told.errors] == [field]


def etag(subject: Freshness, user: str, version: int = 5) -> str:
    return dict(subject.headers(scope(), user, Cursor(EPOCH, version)))[b"etag"].decode()


async def unchanged(subject: Freshness, if_none_match: str, user: str = "ada") -> bool:
    found = await subject.before(scope(if_none_match=if_none_match), user)
    assert found is None or found.status_code == 304
    return found is not None


def stale(subject: Freshness, asked: Any) -> bool:
    return (b"x-replica-stale", b"true") in subject.headers(asked, "ada", Cursor(EPOCH, 5))


@pytest.mark.parametrize("reachable", [True, False])
@pytest.mark.parametrize(("follows", "finds"), [(True, True), (True, False), (False, True), (False, False)])
async def test_an_answer_is_stale_unless_the_replica_is_followed_or_was_compared_and_the_primary_is_there(
    reachable: bool, follows: bool, finds: bool
):
    primary = Primary()
    primary.reachable = reachable
    following = Following(follows=follows, finds=finds)
    subject = Freshness(Replicas(), following, primary, wait_ms=200)
    expected = not (reachable and (follows or finds))
    assert stale(subject, scope()) is expected, "also where nobody asks before"
    asked = scope()
    await subject.before(asked, "ada")
    assert stale(subject, asked) is expected
    following.finds = True
    assert stale(subject, asked) is expected, "what others find later is not of this answer"


async def test_who_has_the_state_is_told_that_it_is_unchanged():
    subject = freshness(Replicas())
    mine = etag(subject, "ada")
    for given in (mine, f"W/{mine}", f'"other", {mine}', f'"other",W/{mine} ', "*"):
        assert await unchanged(subject, given)
    for given in ('"other"', mine.strip('"'), etag(subject, "ada", 4), ""):
        assert not await unchanged(subject, given)


async def test_etags_may_come_in_several_headers():
    subject = freshness(Replicas())
    mine = etag(subject, "ada")
    for given in ((mine, '"other"'), ('"other"', mine)):
        asked = scope() | {"headers": [(b"if-none-match", value.encode()) for value in given]}
        assert await subject.before(asked, "ada") is not None


async def test_what_one_user_has_does_not_count_for_another_at_the_same_version():
    """I5: two users of one browser must not be shown each other's pages by a 304."""
    subject = freshness(Replicas())
    assert not await unchanged(subject, etag(subject, "ada"), user="eve")
    assert "ada" not in etag(subject, "ada")


async def test_an_answer_of_another_release_does_not_count():
    assert not await unchanged(freshness(Replicas(), edition="2"), etag(freshness(Replicas(), edition="1"), "ada"))


async def test_the_headers_that_are_kept_ready_are_of_no_more_than_so_many_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gateway.freshness._TOLD_MAX", 3)
    subject = freshness(Replicas())
    assert len({etag(subject, f"user {n}") for n in range(10)}) == 10
    assert len(subject._told) <= 3


async def test_a_min_version_is_reached_before_an_etag_is_compared():
    replicas = Replicas(5, 9)
    subject = freshness(replicas)
    asked = scope(x_min_version=f"{EPOCH}.9", if_none_match=etag(subject, "ada", 5))
    assert await subject.before(asked, "ada") is None
    assert replicas.at.version == 9


@pytest.mark.parametrize("finds", [True, False])
async def test_a_read_of_a_user_who_is_not_followed_looks_first_and_says_what_came_of_it(finds):
    following = Following(follows=False, finds=finds)
    subject = Freshness(Replicas(5, 9), following, Primary(), wait_ms=0)
    asked = scope()
    assert await subject.before(asked, "ada") is None
    assert following.checks == 1
    assert (b"x-replica-stale" in dict(subject.headers(asked, "ada", Cursor(EPOCH, 5)))) is not finds


async def test_what_another_read_finds_meanwhile_makes_no_read_fresher_than_it_was():
    following = Following(follows=False, finds=False)
    subject = Freshness(Replicas(5, 9), following, Primary(), wait_ms=0)
    slow, quick = scope(), scope()
    await subject.before(slow, "ada")
    following.finds = True
    await subject.before(quick, "ada")
    stale = [b"x-replica-stale" in dict(subject.headers(each, "ada", Cursor(EPOCH, 5))) for each in (slow, quick)]
    assert stale == [True, False]


async def test_a_read_of_a_user_who_is_followed_looks_for_nothing():
    following = Following()
    await Freshness(Replicas(5, 9), following, Primary(), wait_ms=0).before(scope(), "ada")
    assert following.checks == 0


def test_a_read_says_its_version_and_whether_it_may_be_stale():
    primary = Primary()
    subject = Freshness(Replicas(), Following(), primary, wait_ms=0)
    headers = dict(subject.headers(scope(), "ada", Cursor(EPOCH, 5)))
    assert headers[b"x-replica-version"].decode() == f"{EPOCH}.5"
    assert headers[b"cache-control"] == b"private, no-cache"
    assert b"x-replica-stale" not in headers
    primary.reachable = False
    assert dict(subject.headers(scope(), "ada", Cursor(EPOCH, 5)))[b"x-replica-stale"] == b"true"
