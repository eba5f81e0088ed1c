"""How large a page may be. Clients say how many, but it costs by its bytes: to make, and until it is read.

Most pages are far smaller. One that would be larger ends sooner, and the next one goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import apsw

PAGE_MAX_BYTES = 32 << 20
"""500 images of 65 KB each. It waits in memory for whoever is slow to read it."""

_FEWER = 4  # times; a page is tried again with so many fewer, for what it is too large by is not known

P = TypeVar("P")
Row = tuple[bytes, str, str]


def within_bytes(connection: apsw.Connection, limit: int, page: Callable[[int], P]) -> P:
    """Give ``page(limit)``, or of fewer where SQLite would have to put more together than a page may have.

    Where it may put together less than that, as on the event loop, what is too large is the caller's to read elsewhere.
    """
    longest = connection.limit(apsw.SQLITE_LIMIT_LENGTH)
    if longest <= PAGE_MAX_BYTES:
        return page(limit)
    connection.limit(apsw.SQLITE_LIMIT_LENGTH, PAGE_MAX_BYTES)
    try:
        while limit > 1:
            try:
                return page(limit)
            except apsw.TooBigError:
                limit = max(1, limit // _FEWER)
    finally:
        connection.limit(apsw.SQLITE_LIMIT_LENGTH, longest)
    return page(limit)


def filled(connection: apsw.Connection, rows: Iterable[Row], limit: int) -> tuple[list[Row], bool]:
    """Give the first rows, at most ``limit``, as far as their texts make a page; and whether there are more.

    Raises `apsw.TooBigError` as SQLite does where it may put together less, as on the event loop.
    """
    page: list[Row] = []
    longest = connection.limit(apsw.SQLITE_LIMIT_LENGTH)
    met_bytes = 0
    for row in rows:
        met_bytes += len(row[0])
        if len(page) == limit or (page and met_bytes > PAGE_MAX_BYTES):
            return page, True
        if met_bytes > longest:
            raise apsw.TooBigError("the rows of a page are larger together")
        page.append(row)
    return page, False
