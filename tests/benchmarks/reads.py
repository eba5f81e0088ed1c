"""Reads from replicas of 1,000 rows, beside a route that does nothing and beside the same page from the primary."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import psycopg

from tests.benchmarks.bench import ROWS_EACH, USERS, Bench
from tests.benchmarks.data import image_id, user_name
from tests.benchmarks.figures import Figure, at_least, fact, ratio, shown
from tests.benchmarks.load import Asked, Load, Rate, check, etags, told
from tests.benchmarks.process import serving

TITLE = "Reads: 1,000 rows a user, token verified, no response cache"

_USER = user_name(0)


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of read: what is asked, and what it has to be at least of a route that does nothing."""

    what: str
    asked: tuple[Asked, ...]
    bar: float | None = None


def _kinds() -> list[_Kind]:
    everybody = tuple(Asked("/api/images?limit=20", user_name(user)) for user in range(USERS))
    return [
        _Kind("one row", (Asked(f"/api/images/{image_id(0, ROWS_EACH // 2)}", _USER),), 0.45),
        _Kind("page of 20", (Asked("/api/images?limit=20", _USER),), 0.35),
        _Kind("page of 100", (Asked("/api/images?limit=100", _USER),), 0.2),
        _Kind(f"page of 20 over {USERS} users", everybody),
    ]


async def measure(bench: Bench) -> list[Figure]:
    """Measure each kind of read in turn, in several rounds."""
    database = await bench.gallery()
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
        # What the comparison needs and the product does without: its replicas have the index.
        await connection.execute("CREATE INDEX IF NOT EXISTS newest ON image (user_id, created_at, id)")
    async with serving(bench.folder / "reads", database) as target:
        noop, plain = (Asked("/bench/noop"),), (Asked("/bench/plain"),)
        on_primary = (Asked("/bench/api/newest?limit=20", _USER),)
        kinds = _kinds()
        await check(target.url, noop, 200)
        await check(target.url, plain, 200)
        await check(target.url, on_primary, 200, "created_at")
        for kind in kinds:
            await check(target.url, kind.asked, 200, "created_at")
        for kind in kinds[:-1]:
            tagged = await etags(target.url, kind.asked)
            await check(target.url, tagged, 304)
            kinds.append(_Kind(f"{kind.what}, 304 by ETag", tagged, 0.7))
        sides = [noop, plain, on_primary, *(kind.asked for kind in kinds)]
        load = Load(target, bench.folder)
        rates: dict[tuple[Asked, ...], list[Rate]] = {asked: [] for asked in sides}
        for _ in range(bench.rounds):
            for asked in sides:
                rates[asked].append(await load.run(asked, bench.seconds))

    def compared(asked: tuple[Asked, ...], other: tuple[Asked, ...]) -> float:
        return ratio((one.rate for one in rates[asked]), (one.rate for one in rates[other]))

    figures = [
        fact("a route that does nothing", f"{shown(median(r.rate for r in rates[noop]))}/s", told(rates[noop])),
        fact("one that Litestar makes the answer of", f"{shown(compared(plain, noop))} ×", told(rates[plain])),
    ]
    for kind in kinds:
        value, detail = compared(kind.asked, noop), told(rates[kind.asked])
        if kind.bar is None:
            figures.append(fact(f"{kind.what}, of doing nothing", f"{shown(value)} ×", detail))
        else:
            figures.append(at_least(f"{kind.what}, of doing nothing", value, kind.bar, detail=detail))
    page = kinds[1].asked
    figures.append(
        at_least("page of 20, of SQLAlchemy + psycopg", compared(page, on_primary), 3, detail=told(rates[on_primary]))
    )
    return figures
