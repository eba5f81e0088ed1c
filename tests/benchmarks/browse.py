"""Lists of a gallery of 100,000 images: every filter, every order, search and counts, inside the replica."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import apsw
import psycopg

from primary.gallery.tables import catalog
from primary.postgres_feed import PostgresFeed
from replica.gallery.browse import browse
from replica.gallery.facets import facets
from replica.gallery.listing import Filters, Listing, Sort
from replica.results import StoreLimits
from replica.store import Store
from tests.benchmarks.bench import Bench, primary_of
from tests.benchmarks.data import load_gallery, user_name
from tests.benchmarks.figures import Figure, at_most, fact, ratio, shown
from tests.benchmarks.first_build import finished

TITLE = "Lists over 100,000 images, inside the replica: pages of 20"

ROWS = 100_000
ALBUM, SMALL_ALBUM = (f"0a9d3b5e-52cf-4f0e-8a3c-{n:012}" for n in (1, 2))
_USER = user_name(0)

_MORE = (
    # Three of four images were looked at, one of ten is liked, half of those are rated, from 0 to 100.
    """INSERT INTO image_activity (
      user_id, image_id, is_favorite, rating, view_count, o_count, usage_count, last_viewed_at)
    SELECT user_id, id, h % 10 = 0, CASE WHEN h % 2 = 0 THEN h / 16 % 101 END, h % 7, h % 3, h % 2,
      created_at + h % 999 * interval '1 minute'
    FROM (SELECT *, abs(hashtext(id::text)) AS h FROM image) AS image WHERE h % 4 > 0 OR h % 10 = 0""",
    f"INSERT INTO album (user_id, id, title) VALUES ('{_USER}', '{ALBUM}', 'Everything by the sea')",
    f"INSERT INTO album (user_id, id, title) VALUES ('{_USER}', '{SMALL_ALBUM}', 'Kelp and moss')",
    f"""INSERT INTO album_image (user_id, album_id, image_id, position)
    SELECT user_id, '{ALBUM}', id, row_number() OVER (ORDER BY id) FROM image WHERE hashtext(id::text) % 2 = 0""",
    f"""INSERT INTO album_image (user_id, album_id, image_id, position)
    SELECT user_id, '{SMALL_ALBUM}', id, row_number() OVER (ORDER BY id) FROM image
    WHERE hashtext(id::text) % 200 = 0""",
    "VACUUM ANALYZE",
)

_FILTERS = {
    "favorite=true": Filters(favorite=True),
    "favorite=false": Filters(favorite=False),
    "min_rating=95": Filters(min_rating=95),
    "min_rating=60": Filters(min_rating=60),
    "min_rating=0": Filters(min_rating=0),
    "album of 50,000": Filters(album=ALBUM),
    "album of 500": Filters(album=SMALL_ALBUM),
    "source": Filters(source="message_response"),
    "model": Filters(model="sdxl-lightning"),
    "created_from": Filters(created_from="2024-01-20T00:00:00.000000Z"),
    "created_to": Filters(created_to="2024-01-04T00:00:00.000000Z"),
}
_SORTS: tuple[Sort, ...] = ("rating", "o_count", "view_count", "usage_count", "last_viewed_at", "updated_at")
_TOGETHER = {
    "favourites of a model, by rating": Listing(Filters(favorite=True, model="sdxl-lightning"), "rating"),
    "album of 500, by o_count": Listing(Filters(album=SMALL_ALBUM), "o_count"),
    "favourites rated 90 in the album of 50,000": Listing(Filters(favorite=True, min_rating=90, album=ALBUM)),
}
_SOUGHT = {
    "a word of 37,000": "tundra",
    "two words, of 13,000": "tundra amber",
    "a phrase of 1,600": '"tundra amber"',
    "five words, of 550": "tundra amber kelp iris quartz",
    "a word of none": "zebra",
    "the beginning of a word of 37,000": "tund*",
    "the words of an album's title": "everything sea",
}

Timed = Callable[[apsw.Connection], Any]


async def measure(bench: Bench) -> list[Figure]:
    """Measure each in turn with the plain page, in several rounds, in one read of the replica."""
    url = await bench.migrated("browse")
    await load_gallery(url, users=1, rows_each=ROWS)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for sql in _MORE:
            await connection.execute(sql.encode())
    searches: dict[str, Timed] = {
        f"{name}{told}": partial(browse, listing=Listing(Filters(q=q, favorite=favorite), sort), limit=20)
        for name, q in _SOUGHT.items()
        for told, favorite, sort in _WAYS
    }
    works: dict[str, Timed] = {"plain": partial(browse, listing=Listing(), limit=20)}
    works |= {name: partial(browse, listing=Listing(filters), limit=20) for name, filters in _FILTERS.items()}
    works |= {name: partial(browse, listing=Listing(Filters(), name), limit=20) for name in _SORTS}
    works |= {name: partial(browse, listing=listing, limit=20) for name, listing in _TOGETHER.items()}
    works |= searches
    works |= {
        "facets": partial(facets, filters=Filters()),
        "facets of favourites": partial(facets, filters=_FILTERS["favorite=true"]),
    }
    async with primary_of(url) as primary:
        store = Store(
            bench.folder / "browse", catalog, PostgresFeed(primary, catalog), StoreLimits(read_timeout_ms=600_000)
        )
        await store.open()
        try:
            await store.sync(_USER)
            await finished(store, _USER)
            times = (await store.read(_USER, partial(_time_all, works, bench.rounds))).value
            await _edit(url, store)
            edited = {f"{name}{_EDITED}": work for name, work in searches.items()}
            times |= (await store.read(_USER, partial(_time_all, edited, bench.rounds))).value
        finally:
            await store.close()
    return _figures(times)


async def _edit(url: str, store: Store) -> None:
    """Edit one of twenty images, in commits of 50 that are synced one by one, as edits of a while come."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for part in range(EDITS):
            sql = f"UPDATE image SET description = 'seen' WHERE abs(hashtext(id::text)) % {20 * EDITS} = {20 * part}"
            await connection.execute(sql.encode())
            await store.sync(_USER)


EDITS = 100
_EDITED = ", 5 % edited"

_WAYS: tuple[tuple[str, bool | None, Sort], ...] = (
    ("", None, "relevance"),
    (", newest first", None, "created_at"),
    (", of the favourites", True, "created_at"),
)


def _figures(times: dict[str, list[float]]) -> list[Figure]:
    plain = times["plain"]

    def of_plain(name: str) -> tuple[float, str]:
        return ratio(times[name], plain), _us(times[name])

    figures = [fact("the plain page", _us(plain))]
    for name in _FILTERS:
        value, detail = of_plain(name)
        figures.append(at_most(f"{name}, of the plain page", value, 2, detail=detail))
    for name in (*_SORTS, *_TOGETHER):
        value, detail = of_plain(name)
        figures.append(fact(f"{name}, of the plain page", f"{shown(value)} ×", detail))
    for name in _SOUGHT:
        for told, _, _ in _WAYS:
            figures.append(at_most(f"{name}{told}", median(times[f"{name}{told}"]) * 1e3, 5, " ms"))
    for name in _SOUGHT:
        detail = f"{_ms(times[f'{name}, of the favourites{_EDITED}'])} of the favourites"
        figures.append(fact(f"{name}{_EDITED}", _ms(times[f"{name}{_EDITED}"]), detail))
    return figures + [fact(name, _us(times[name])) for name in ("facets", "facets of favourites")]


def _time_all(works: dict[str, Timed], rounds: int, connection: apsw.Connection) -> dict[str, list[float]]:
    """Give the seconds of processor time of each in each round: the median of some, as many as come to 20 ms."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            taken = [_time(work, connection)]
            while sum(taken) < 0.02:
                taken.append(_time(work, connection))
            if number:  # the first is to warm up
                times[name].append(median(taken))
    return times


def _time(work: Timed, connection: apsw.Connection) -> float:
    began = time.thread_time()
    work(connection)
    return time.thread_time() - began


def _ms(seconds: list[float]) -> str:
    return f"{shown(median(seconds) * 1e3)} ms"


def _us(seconds: list[float]) -> str:
    return f"{shown(median(seconds) * 1e6)} µs"
