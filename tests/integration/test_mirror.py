"""The upstream mirror over a real Postgres and a real HTTP server: what is rated arrives, whatever fails."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from structlog.testing import capture_logs

from gateway.gallery.mirror.limits import MirrorLimits
from gateway.gallery.mirror.sealing import ApiKey, Sealer
from gateway.gallery.mirror.worker import mirroring
from gateway.settings import Settings
from primary.errors import PrimarySlow, PrimaryUnavailable
from primary.gallery import outbox, upstreams
from primary.gallery.outbox import Standing
from primary.postgres import Primary
from primary.write import writing
from tests.support import stash as behaviours
from tests.support.databases import through
from tests.support.http import execute
from tests.support.proxy import PostgresProxy
from tests.support.server import SECRET
from tests.support.stash import Stash, StashImage, drip, hang, huge, reset, says, stash, status

SETTINGS = Settings(jwt_secret=SECRET, mirror_private_addresses_allowed=True)

# How long an answer may take, and a lease lasts, is as it is in earnest: a machine that is busy must not seem a server
# that hangs.
QUICK = MirrorLimits(
    poll_interval_s=0.02,
    backoff_first_s=0.01,
    backoff_max_s=0.05,
    tries_max=4,
    show_interval_s=0.02,
    sweep_interval_s=0.1,
    stop_grace_s=0.2,
)

# For servers that do hang. Long enough for one that is well, whatever else the machine does.
IMPATIENT = {"read_timeout_s": 1, "total_timeout_s": 1.5}


def quick(**bounds: Any) -> MirrorLimits:
    from dataclasses import replace

    return replace(QUICK, **bounds)


@pytest.fixture
async def server() -> AsyncIterator[Stash]:
    async with stash() as running:
        yield running


class Gallery:
    """What a test does to the primary, by SQL as anybody could."""

    def __init__(self, primary: Primary, url: str) -> None:
        self.primary = primary
        self.url = url

    async def mirror(self, user: str, endpoint: str, *, key: str = "key-of-stash", enabled: bool = True) -> None:
        """Do as the route does."""
        sealed = Sealer(SECRET).seal(ApiKey(key), user, endpoint)
        async with writing(self.primary, user) as write:
            await upstreams.save(write, endpoint=endpoint, sealed_key=sealed, enabled=enabled)

    async def image(self, user: str, stash_id: str | None = None) -> Any:
        meta = f'{{"stash_id": "{stash_id}"}}' if stash_id is not None else "{}"
        sql = "INSERT INTO image (user_id, prompt, image_url, meta) VALUES (%s, 'p', 'u', %s) RETURNING id"
        [(made,)] = await execute(self.url, sql, user, meta)
        return made

    async def rate(self, user: str, image: Any, rating: int | None) -> None:
        sql = (
            "INSERT INTO image_activity (user_id, image_id, rating) VALUES (%s, %s, %s) "
            "ON CONFLICT (user_id, image_id) DO UPDATE SET rating = excluded.rating"
        )
        await execute(self.url, sql, user, image, rating)

    async def count_o(self, user: str, image: Any, by: int = 1) -> None:
        sql = (
            "INSERT INTO image_activity AS a (user_id, image_id, o_count) VALUES (%s, %s, %s) "
            "ON CONFLICT (user_id, image_id) DO UPDATE SET o_count = a.o_count + excluded.o_count"
        )
        if by < 0:
            sql = "UPDATE image_activity SET o_count = o_count + %s WHERE user_id = %s AND image_id = %s"
            await execute(self.url, sql, by, user, image)
        else:
            await execute(self.url, sql, user, image, by)

    async def waiting(self, user: str = "ada") -> int:
        [(count,)] = await execute(self.url, "SELECT count(*) FROM upstream_outbox WHERE user_id = %s", user)
        return int(count)

    async def standing(self, user: str = "ada") -> Standing:
        [one] = await outbox.standings(self.primary, user)
        return one

    async def until(self, condition: Callable[[Standing], bool], user: str = "ada") -> Standing:
        async with asyncio.timeout(10):
            while not condition(one := await self.standing(user)):
                await asyncio.sleep(0.01)
        return one


@pytest.fixture
def gallery(primary: Primary, database_url: str) -> Gallery:
    return Gallery(primary, database_url)


@asynccontextmanager
async def delivering(primary: Primary, **bounds: Any) -> AsyncIterator[None]:
    async with mirroring(primary, SETTINGS, quick(**bounds)):
        yield


async def mirrored_image(gallery: Gallery, server: Stash, stash_id: str = "7", user: str = "ada") -> Any:
    """An image of a user who mirrors to ``server``, which knows it."""
    server.images[stash_id] = StashImage()
    await gallery.mirror(user, server.url)
    return await gallery.image(user, stash_id)


async def until_counted(server: Stash, count: int) -> None:
    await server.until(lambda: server.images["7"].o_counter == count)


# ── What is told ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_ratings_and_os_that_psql_writes_arrive_in_order(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    async with delivering(gallery.primary):
        await gallery.rate("ada", image, 80)
        await server.until(lambda: len(server.calls) == 1)
        await gallery.count_o("ada", image)
        await gallery.count_o("ada", image, 2)
        await server.until(lambda: len(server.calls) == 4)
        await gallery.count_o("ada", image, -1)
        await server.until(lambda: len(server.calls) == 5)
        await gallery.rate("ada", image, None)
        await server.until(lambda: len(server.calls) == 6)
        await gallery.until(lambda one: one.pending == 0)
    assert server.calls == [
        ("imageUpdate", "7", 80),
        *[("imageIncrementO", "7", None)] * 3,
        ("imageDecrementO", "7", None),
        ("imageUpdate", "7", None),
    ]
    assert server.images["7"] == StashImage(None, 2)
    [first, *_] = server.requests
    assert first["line"] == "POST /graphql HTTP/1.1"
    assert (first["headers"]["apikey"], first["headers"]["host"]) == ("key-of-stash", server.url.split("/")[2])


async def test_of_ratings_that_wait_only_the_last_counts_and_no_o_is_lost(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    for rating in (10, 20, 30):
        await gallery.rate("ada", image, rating)
        await gallery.count_o("ada", image)
    async with delivering(gallery.primary):
        await gallery.until(lambda one: one.pending == 0)
    assert server.calls == [*[("imageIncrementO", "7", None)] * 2, ("imageUpdate", "7", 30), server.calls[-1]]
    assert server.images["7"] == StashImage(30, 3)


async def test_favourites_views_usage_and_images_unknown_upstream_are_not_told(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    sql = "INSERT INTO image_activity (user_id, image_id, is_favorite, view_count) VALUES ('ada', %s, true, 1)"
    await execute(gallery.url, sql, image)
    await execute(gallery.url, "UPDATE image_activity SET is_favorite = false, view_count = 2, last_viewed_at = now()")
    await execute(gallery.url, "INSERT INTO image_event (user_id, image_id, kind) VALUES ('ada', %s, 'view')", image)
    for meta in ("{}", '{"stash_id": null}', '{"stash_id": ""}', '{"stash_id": {"a": 1}}', '{"stash_id": ["7"]}'):
        other = await gallery.image("ada")
        await execute(gallery.url, "UPDATE image SET meta = %s WHERE id = %s", meta, other)
        await gallery.rate("ada", other, 50)
    await gallery.rate("eve", await gallery.image("eve", "7"), 50)  # who has no mirror
    assert await gallery.waiting() == await gallery.waiting("eve") == 0
    numbered = await gallery.image("ada")
    await execute(gallery.url, "UPDATE image SET meta = '{\"stash_id\": 9}' WHERE id = %s", numbered)
    await gallery.rate("ada", numbered, 50)
    assert await execute(gallery.url, "SELECT stash_id, amount FROM upstream_outbox") == [("9", 50)]


async def test_a_change_that_is_rolled_back_is_never_told(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    with contextlib.suppress(ZeroDivisionError):
        async with gallery.primary.transaction() as conn:
            await conn.exec_driver_sql(
                "INSERT INTO image_activity (user_id, image_id, rating) VALUES ('ada', %s, 1)", (image,)
            )
            raise ZeroDivisionError
    assert await gallery.waiting() == 0


async def test_deleting_an_image_is_no_decrement_but_taking_its_row_away_is(gallery: Gallery, server: Stash) -> None:
    one, two = await mirrored_image(gallery, server), await gallery.image("ada", "8")
    for image in (one, two):
        await execute(
            gallery.url,
            "INSERT INTO image_activity (user_id, image_id, rating, o_count) VALUES ('ada', %s, 9, 2)",
            image,
        )
    await execute(gallery.url, "DELETE FROM upstream_outbox")
    await execute(gallery.url, "DELETE FROM image WHERE id = %s", one)
    assert await gallery.waiting() == 0
    await execute(gallery.url, "DELETE FROM image_activity")
    told = "SELECT stash_id, kind, amount FROM upstream_outbox ORDER BY id"
    assert await execute(gallery.url, told) == [("8", "rating", None), ("8", "o", -2)]


async def test_a_deleted_image_leaves_nothing_waiting(gallery: Gallery, server: Stash) -> None:
    gone, kept = await mirrored_image(gallery, server), await gallery.image("ada", "8")
    for image in (gone, kept):
        await gallery.rate("ada", image, 9)
        await gallery.count_o("ada", image)
    await execute(gallery.url, "UPDATE upstream_outbox SET parked = true WHERE kind = 'o'")
    await execute(gallery.url, "DELETE FROM image WHERE id = %s", gone)
    told = await execute(gallery.url, "SELECT image_id, kind FROM upstream_outbox ORDER BY id")
    assert told == [(kept, "rating"), (kept, "o")]
    await execute(gallery.url, "DELETE FROM image")
    assert await gallery.waiting() == 0


async def test_a_bulk_update_is_told_image_by_image(gallery: Gallery, server: Stash) -> None:
    await gallery.mirror("ada", server.url)
    for number in range(30):
        server.images[str(number)] = StashImage()
        await gallery.rate("ada", await gallery.image("ada", str(number)), 1)
    await execute(gallery.url, "DELETE FROM upstream_outbox")
    await execute(gallery.url, "UPDATE image_activity SET rating = 70, o_count = 1")
    server.slow_s = 0.01
    async with delivering(gallery.primary):
        await gallery.until(lambda one: one.pending == 0)
    assert all(image == StashImage(70, 1) for image in server.images.values())
    assert 1 < server.most_at_once <= QUICK.user_concurrency


async def test_turned_off_nothing_is_told_and_what_waited_is_dropped(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    await gallery.rate("ada", image, 10)
    await execute(gallery.url, "UPDATE profile SET sync_upstream = false")
    assert await gallery.waiting() == 0
    await gallery.rate("ada", image, 20)
    await execute(gallery.url, "UPDATE profile SET sync_upstream = true")
    assert await gallery.waiting() == 0
    await gallery.rate("ada", image, 30)
    async with delivering(gallery.primary):
        await gallery.until(lambda one: one.pending == 0)
    assert server.calls == [("imageUpdate", "7", 30)]


async def test_who_forgets_the_settings_during_a_delivery_is_not_looked_after_for_ever(
    gallery: Gallery, server: Stash, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = await mirrored_image(gallery, server)
    forgotten, over = asyncio.Event(), asyncio.Event()
    show = outbox.show

    async def noted(primary: Primary, user: str) -> bool:
        shown = await show(primary, user)
        if shown and forgotten.is_set():
            over.set()
        return shown

    async def late(stash: Stash, writer: asyncio.StreamWriter, request: dict[str, Any]) -> None:
        await forgotten.wait()
        await behaviours.answer(stash, writer, request)

    monkeypatch.setattr(outbox, "show", noted)
    server.fail(late)
    async with delivering(gallery.primary):
        await gallery.rate("ada", image, 80)
        await server.until(lambda: server.under_way == 1)
        async with writing(gallery.primary, "ada") as write:
            await upstreams.forget(write)
        forgotten.set()
        async with asyncio.timeout(10):
            await over.wait()


# ── When it fails ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (status(500), "the server failed (500)"),
        (status(429), "the server asks to come again later (429)"),
        (says({"errors": [{"message": "database is locked"}]}), "imageUpdate: database is locked"),
        (says({"errors": [{"message": "no\0room"}]}), "imageUpdate: no room"),
        (says({"errors": "?"}), "imageUpdate: the server refused it without a reason"),
        (says({"data": {"other": 1}}), "the server does not answer with GraphQL"),
        (says([1]), "the server does not answer with GraphQL"),
        (status(200, b"<html>"), "the server does not answer with GraphQL"),
        (status(200, b"\xff"), "the server does not answer with GraphQL"),
        (status(200, b"x", "Content-Encoding: gzip\r\n"), "the server answers compressed, which it was not asked to"),
        (hang(), "the server did not answer in time"),
        (drip, "the server did not answer in time"),
        (huge, "the server answers with more than 65536 bytes"),
        (reset, "the server broke off, or did not answer as HTTP has it"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_failed_is_tried_again_until_it_arrives(
    gallery: Gallery, server: Stash, behaviour: behaviours.Behaviour, told: str
) -> None:
    image = await mirrored_image(gallery, server)
    server.always = behaviour
    await gallery.rate("ada", image, 80)
    hangs = told.endswith("in time")
    async with delivering(gallery.primary, tries_max=10_000, **(IMPATIENT if hangs else {})):
        await server.until(lambda: len(server.requests) >= 2)
        seen = await gallery.until(lambda one: one.last_error is not None)
        assert (seen.last_error, seen.pending, seen.parked) == (told, 1, 0)
        server.always = None
        await server.until(lambda: bool(server.calls))
        after = await gallery.until(lambda one: one.pending == 0)
    assert (after.last_error, after.parked) == (None, 0)
    assert server.calls == [("imageUpdate", "7", 80)]


@pytest.mark.parametrize(
    ("behaviour", "told"),
    [
        (status(401), "the server does not take the key (401)"),
        (status(404), "there is no GraphQL at the endpoint (404)"),
        (
            status(302, b"", "Location: http://127.0.0.1:1/elsewhere\r\n"),
            "the server redirects (302), which is not followed",
        ),
        (says({"data": {"imageUpdate": None}}), "imageUpdate: the server does not know the image"),
        (status(422, b'{"errors": [{"message": "no rating100"}]}'), "imageUpdate: no rating100"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_what_will_not_get_better_is_parked_after_one_more_try(
    gallery: Gallery, server: Stash, behaviour: behaviours.Behaviour, told: str
) -> None:
    image = await mirrored_image(gallery, server)
    server.always = behaviour
    await gallery.rate("ada", image, 80)
    async with delivering(gallery.primary):
        seen = await gallery.until(lambda one: one.parked == 1)
        assert (seen.last_error, seen.pending) == (told, 0)
        assert len(server.requests) == 2


@pytest.mark.parametrize(
    ("passing", "settled"),
    [
        (status(502), status(404)),
        (reset, status(401)),
        (says({"errors": [{"message": "database is locked"}]}), says({"data": {"imageUpdate": None}})),
    ],
    ids=["a proxy that knows nobody behind it yet", "one that refuses all", "a library that is being scanned"],
)
async def test_what_will_not_get_better_has_its_one_more_try_after_other_failures_too(
    gallery: Gallery, server: Stash, passing: behaviours.Behaviour, settled: behaviours.Behaviour
) -> None:
    image = await mirrored_image(gallery, server)
    server.fail(passing, settled, passing, settled)
    await gallery.rate("ada", image, 80)
    async with delivering(gallery.primary, tries_max=100):
        await server.until(lambda: bool(server.calls))
        await gallery.until(lambda one: one.pending + one.parked == 0)
    assert len(server.requests) == 5


async def test_after_so_many_tries_it_is_parked_and_tried_again_when_re_armed(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    server.always = status(503)
    await gallery.rate("ada", image, 80)
    async with delivering(gallery.primary):
        await gallery.until(lambda one: one.parked == 1)
        assert len(server.requests) == QUICK.tries_max
        await gallery.count_o("ada", image)  # what comes meanwhile waits with it
        assert (await gallery.standing()).parked == 2
        server.always = None
        assert await outbox.rearm(gallery.primary, "eve") == 0
        assert await outbox.rearm(gallery.primary, "ada") == 2
        after = await gallery.until(lambda one: one.pending + one.parked == 0)
    assert after.last_error is None
    assert server.images["7"] == StashImage(80, 1)


async def test_saving_the_settings_again_tries_again_with_the_new_key(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    server.key = "another"
    await gallery.rate("ada", image, 80)
    async with delivering(gallery.primary):
        await gallery.until(lambda one: one.parked == 1)
        await gallery.mirror("ada", server.url, key="another")
        await server.until(lambda: bool(server.calls))


async def test_an_unknown_image_is_parked_alone_and_its_mended_id_is_taken_over(
    gallery: Gallery, server: Stash
) -> None:
    await mirrored_image(gallery, server)
    lost, known = await gallery.image("ada", "404"), await gallery.image("ada", "7")
    async with delivering(gallery.primary):
        await gallery.rate("ada", lost, 1)
        seen = await gallery.until(lambda one: one.parked == 1)
        assert seen.last_error == "imageUpdate: image with id 404 not found"
        await gallery.rate("ada", known, 2)
        await server.until(lambda: bool(server.calls))
        server.images["8"] = StashImage()
        await execute(gallery.url, "UPDATE image SET meta = '{\"stash_id\": 8}' WHERE id = %s", lost)
        assert await outbox.rearm(gallery.primary) == 1
        await server.until(lambda: len(server.calls) == 2)
    assert server.images["8"].rating100 == 1


async def test_a_failure_in_between_keeps_the_order_of_an_image(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    await gallery.count_o("ada", image, 2)
    await gallery.rate("ada", image, 10)
    await gallery.count_o("ada", image, -1)
    server.fail(status(500), reset, says({"errors": [{"message": "busy"}]}), hang())
    async with delivering(gallery.primary, tries_max=10, **IMPATIENT):
        await gallery.until(lambda one: one.pending == 0)
    more, less = ("imageIncrementO", "7", None), ("imageDecrementO", "7", None)
    assert server.calls == [more, more, ("imageUpdate", "7", 10), less]


async def test_a_server_that_hangs_holds_up_nobody_else(gallery: Gallery, server: Stash) -> None:
    async with stash() as dead:
        dead.always = hang()
        await gallery.mirror("ada", dead.url)
        for number in range(20):
            await gallery.rate("ada", await gallery.image("ada", str(number)), 5)
        image = await mirrored_image(gallery, server, user="bob")
        async with delivering(gallery.primary, backoff_max_s=60, backoff_first_s=60, **IMPATIENT):
            await dead.until(lambda: bool(dead.requests))
            await gallery.rate("bob", image, 5)
            await server.until(lambda: bool(server.calls))
            assert (await gallery.standing()).last_error is None, "bob's is told while all of ada's still hang"
            seen = await gallery.until(lambda one: one.last_error is not None)
            assert (seen.pending, seen.parked) == (20, 0)
            for count in (1, 2, 3):  # some looks later
                await gallery.count_o("bob", image)
                await until_counted(server, count)
            # All that was under way together failed once, and then nothing is sent until it is time.
            assert len(dead.requests) == QUICK.user_concurrency
            [(attempts,)] = await execute(gallery.url, "SELECT attempts FROM upstream_key WHERE user_id = 'ada'")
            assert attempts == 1


# ── Processes and Postgres ──────────────────────────────────────────────────────────────────────────────────────


async def test_what_a_killed_process_was_at_is_taken_over_when_its_lease_is_over(
    gallery: Gallery, server: Stash
) -> None:
    image = await mirrored_image(gallery, server)
    await gallery.rate("ada", image, 80)
    await gallery.count_o("ada", image)
    [taken] = await outbox.take(gallery.primary, most=8, user_most=4, lease_s=1)  # and died
    assert await outbox.take(gallery.primary, most=8, user_most=4, lease_s=1) == []
    async with delivering(gallery.primary):
        await gallery.until(lambda one: one.pending == 0)
    assert server.calls == [("imageUpdate", "7", 80), ("imageIncrementO", "7", None)]
    # Had it only been slow, it could take nothing away that is another's by now.
    await gallery.rate("ada", image, 90)
    await outbox.take(gallery.primary, most=8, user_most=4, lease_s=60)
    await outbox.delivered(gallery.primary, taken)
    await outbox.row_failed(gallery.primary, taken, error="late", wait_s=9, parked=True)
    assert ((await gallery.standing()).pending, (await gallery.standing()).last_error) == (1, None)


async def test_two_processes_share_the_work_and_deliver_everything_once(
    gallery: Gallery, server: Stash, database_url: str
) -> None:
    other = Primary(database_url)
    await other.open()
    try:
        server.slow_s = 0.005
        for user in ("ada", "bob"):
            await gallery.mirror(user, server.url)
            for number in range(4):
                server.images[f"{user}{number}"] = StashImage()
                image = await gallery.image(user, f"{user}{number}")
                for rating in (1, 2):
                    await gallery.count_o(user, image, 3)
                    await gallery.rate(user, image, rating)
        async with delivering(gallery.primary), delivering(other):
            for user in ("ada", "bob"):
                await gallery.until(lambda one: one.pending == 0, user)
    finally:
        await other.close()
    assert all(image == StashImage(2, 6) for image in server.images.values()), server.images
    assert len(server.calls) == 8 * 7


async def test_fifty_increments_at_once_are_fifty(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    async with delivering(gallery.primary):
        await asyncio.gather(*(gallery.count_o("ada", image) for _ in range(50)))
        await gallery.until(lambda one: one.pending == 0)
    assert server.images["7"].o_counter == 50


async def test_an_outage_of_postgres_delays_and_loses_nothing(
    gallery: Gallery, server: Stash, proxy: PostgresProxy
) -> None:
    image = await mirrored_image(gallery, server)
    behind = Primary(proxy.url)
    await behind.open()
    try:
        async with delivering(behind):
            server.slow_s = 0.1
            await gallery.rate("ada", image, 80)
            await server.until(lambda: server.under_way == 1)
            await proxy.cut()  # while the delivery is under way: its outcome is noted when Postgres is back
            await gallery.count_o("ada", image)
            await server.until(lambda: server.under_way == 0)
            await asyncio.sleep(0.1)
            await proxy.resume()
            await gallery.until(lambda one: one.pending == 0)
    finally:
        await behind.close()
    assert server.calls == [("imageUpdate", "7", 80), ("imageIncrementO", "7", None)]


async def test_a_right_that_is_lacking_is_told_once(database_url: str) -> None:
    """Nothing else asks for these tables but writes; deliveries would rest unnoticed."""
    await execute(database_url, "CREATE ROLE outsider LOGIN")
    lacking = Primary(database_url.replace("//postgres@", "//outsider@"))
    await lacking.open()
    try:
        with capture_logs() as told:
            async with delivering(lacking), asyncio.timeout(10):
                while not told:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)
    finally:
        await lacking.close()
        await execute(database_url, "DROP ROLE outsider")
    [one] = told
    assert one["event"] == "mirror_failed"
    assert "permission denied" in str(one["exc_info"])


async def test_a_database_that_is_too_slow_is_told_for_nobody_takes_it_for_an_outage(
    gallery: Gallery, server: Stash
) -> None:
    await gallery.rate("ada", await mirrored_image(gallery, server), 80)
    async with through(gallery.url, answer_timeout_s=0.3) as near, gallery.primary.connection() as other:
        await other.execute("BEGIN")
        await other.execute("LOCK TABLE upstream_key")
        with capture_logs() as told:
            async with delivering(near), asyncio.timeout(10):
                while not told:
                    await asyncio.sleep(0.01)
        assert near.reachable
        await other.execute("ROLLBACK")
    assert told[0]["event"] == "mirror_failed"
    assert isinstance(told[0]["exc_info"], PrimarySlow)


async def test_a_look_over_a_link_that_is_dead_meets_an_outage_whether_it_was_connected_or_not(
    proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "_LOOK_TIMEOUT_S", 1)
    look = outbox.Look(proxy.url)
    try:
        for _ in range(2):
            proxy.stall()
            with pytest.raises(PrimaryUnavailable) as raised:
                await look.anything()
            assert type(raised.value) is PrimaryUnavailable
            await proxy.resume()
            async with asyncio.timeout(10):
                while look._connection is None:
                    with contextlib.suppress(PrimaryUnavailable):
                        await look.anything()
    finally:
        await look.close()


async def test_stopping_ends_what_is_under_way_and_the_next_start_goes_on(gallery: Gallery, server: Stash) -> None:
    image = await mirrored_image(gallery, server)
    server.slow_s = 0.1
    async with delivering(gallery.primary, stop_grace_s=10):
        await gallery.rate("ada", image, 80)
        await gallery.count_o("ada", image)
        await server.until(lambda: server.under_way == 1)
    assert (server.calls, await gallery.waiting()) == ([("imageUpdate", "7", 80)], 1)
    server.slow_s = 0
    server.fail(hang())
    async with delivering(gallery.primary):
        await server.until(lambda: len(server.requests) == 2)
        begun = asyncio.get_running_loop().time()
    assert asyncio.get_running_loop().time() - begun < QUICK.read_timeout_s / 4, "nobody waited for the answer"
    assert await gallery.waiting() == 1


async def test_deliveries_and_the_users_own_writes_never_fail_each_other(gallery: Gallery, server: Stash) -> None:
    images = []
    await gallery.mirror("ada", server.url)
    for number in range(5):
        server.images[str(number)] = StashImage()
        images.append(await gallery.image("ada", str(number)))

    async def write(image: Any) -> None:
        for _ in range(10):
            async with gallery.primary.transaction() as conn:
                await conn.exec_driver_sql(
                    "UPDATE image SET description = 'x' || clock_timestamp() WHERE id = %s", (image,)
                )
                await conn.exec_driver_sql(
                    "INSERT INTO image_activity AS a (user_id, image_id, o_count, rating) VALUES ('ada', %s, 1, 1) "
                    "ON CONFLICT (user_id, image_id) DO UPDATE SET o_count = a.o_count + 1, rating = a.rating + 1",
                    (image,),
                )

    async def save() -> None:
        for _ in range(5):
            await gallery.mirror("ada", server.url)
            await outbox.rearm(gallery.primary)
            await asyncio.sleep(0.01)

    server.always = behaviours.answer
    async with delivering(gallery.primary, show_interval_s=0.001):
        await asyncio.gather(*map(write, images), save())
        await gallery.until(lambda one: one.pending == 0)
    assert all(image.o_counter == 10 for image in server.images.values()), server.images
