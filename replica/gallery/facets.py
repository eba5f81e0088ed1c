"""How many of the images that a filter leaves are favourites, and how many each model, source and album has."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import apsw

from replica.gallery.conditions import INDEXED
from replica.gallery.finding import Finder
from replica.gallery.keys import all_sql
from replica.gallery.listing import Filters, Listing
from replica.gallery.matches import rows_json
from replica.gallery.stretches import Asked, Stretch

VALUES_MAX = 50
"""So many values of each kind are told, those of the most images; who has more looks for them by name."""


def facets(connection: apsw.Connection, filters: Filters) -> bytes:
    """Give the counts as the members of a JSON object, without its braces.

    It looks at every image that the filters leave, in an index where one has the answer. Raises `Unfinished`
    while the full-text index of a large replica is being made.
    """
    asked = Asked.of(Listing(filters))
    conditions, values = asked.conditions, asked.values | {"limit": VALUES_MAX}
    if filters.q is not None and asked.search is None:
        return b'"total":0,"favorites":0,"models":[],"sources":[],"albums":[]'
    if asked.search is not None:
        values |= {"match": asked.search.words, "titles": asked.search.titles}
        conditions |= {_found_by(connection, asked.stretches[0], values)}
    by = next((name for name in (*INDEXED, "rows") if name in conditions), "")

    def told(sql: str) -> Any:
        return connection.execute(sql, values).get

    def count(tables: tuple[str, ...], more: str = "") -> int:
        found: int = told(all_sql(conditions, by, "count(*)", tables, more))
        return found

    def top(key: str, tables: tuple[str, ...], more: str = "") -> bytes:
        found: bytes = told(_values_sql(all_sql(conditions, by, f"{key} AS value, count(*) AS images", tables, more)))
        return found

    albums = all_sql(conditions, by, "held.album_id AS value, count(*) AS images", ("held",))
    return b'"total":%d,"favorites":%d,"models":[%b],"sources":[%b],"albums":[%b]' % (
        count(()),
        count(("activity",), "activity.is_favorite"),
        top("image.model", ("image",), "image.model IS NOT NULL"),
        top("image.source", ("image",)),
        told(_albums_sql(albums)),
    )


def _found_by(connection: apsw.Connection, stretch: Stretch, values: dict[str, Any]) -> str:
    """Name the condition by which images are found; where they are few their rows are added to ``values``."""
    with closing(Finder(connection, values["titles"])) as finder:
        if (rows := finder.few(stretch)) is None:
            return "matching or titled" if finder.asks_titles(stretch) else "matching"
    values["rows"] = rows_json(rows)
    return "rows"


def _values_sql(counted: str) -> str:
    return _joined(
        """'{"value":' || json_quote(value) || ',"count":' || images || '}'""",
        f"({counted} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT :limit)",
    )


def _albums_sql(counted: str) -> str:
    return _joined(
        """'{"id":' || json_quote(value) || ',"title":' || json_quote(title) || ',"count":' || images || '}'""",
        f"({counted} GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT :limit) CROSS JOIN album ON album.id = value",
    )


def _joined(entry: str, source: str) -> str:
    return f"SELECT CAST(ifnull(group_concat({entry}), '') AS BLOB) FROM {source}"
