"""The SQL that walks a list of images: for each, what it is sorted by, when it was made, and its id.

A walk starts from one table, its driver, in the order of one of its indexes; whatever else an image must be is looked
up by its key on the way. So no walk sorts, but for one: where a filter leaves few images, they are gathered and sorted.
The text depends only on the form of what is asked, never on its values, and is made once for each form.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

RATINGS_MAX = 101  # 0 to 100
_STREAMS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, RATINGS_MAX)  # a few lengths, so that there are few texts


@dataclass(frozen=True, slots=True)
class _Table:
    source: str
    created_at: str
    id: str


_TABLES = {
    "image": _Table("image", "image.created_at", "image.id"),
    "activity": _Table("image_activity AS activity", "activity.image_created_at", "activity.image_id"),
    "place": _Table("album_image AS place", "place.image_created_at", "place.image_id"),
    "held": _Table("album_image AS held", "held.image_created_at", "held.image_id"),
}
_JOINS = {
    "image": "CROSS JOIN image ON image.id = {id}",
    "activity": "CROSS JOIN image_activity AS activity ON activity.image_id = {id}",
    "place": "CROSS JOIN album_image AS place ON place.album_id = :album AND place.image_id = {id}",
    "held": "CROSS JOIN album_image AS held ON held.image_id = {id}",  # in each album that it is in
}

_TITLED = (
    "(SELECT named.id FROM album AS named "
    "WHERE named.rowid IN (SELECT album_fts.rowid FROM album_fts WHERE album_fts MATCH :titles))"
)
_MATCHING = "SELECT image_fts.rowid FROM image_fts WHERE image_fts MATCH :match"
_ROWS = "SELECT row.value FROM json_each(:rows) AS row"
_MATCHES = f"EXISTS ({_MATCHING} AND image_fts.rowid = image.rowid)"
_THERE = f"there.album_id IN {_TITLED}"
_IN_TITLED = f"EXISTS (SELECT 1 FROM album_image AS there WHERE there.image_id = image.id AND {_THERE})"


@dataclass(frozen=True, slots=True)
class _Condition:
    """What an image must be: the table that tells it, if it is not the driver whichever that is, and the SQL.

    ``~`` stands before a column by which an index could be used; elsewhere than in the driver it becomes a plus, by
    which SQLite does not use it. ``{id}`` and ``{created_at}`` are the driver's.
    """

    sql: str
    table: str | None = None


def _unless(told: str) -> _Condition:
    return _Condition(f"NOT EXISTS (SELECT 1 FROM image_activity AS other WHERE other.image_id = {{id}} AND {told})")


_CONDITIONS = {
    "album": _Condition("place.album_id = :album", "place"),
    "favorite": _Condition("~activity.is_favorite", "activity"),
    "not favorite": _unless("other.is_favorite"),
    "min_rating": _Condition("~activity.rating >= :min_rating", "activity"),
    "source": _Condition("~image.source = :source", "image"),
    "model": _Condition("~image.model = :model", "image"),
    "created_from": _Condition("~{created_at} >= :created_from"),
    "created_to": _Condition("~{created_at} < :created_to"),
    # Of what is searched for the rows are given where few are found; where many are, each image is looked up. (But for
    # the beginnings of words: FTS5 would look for all words that begin so, again and again.)
    "words, few": _Condition(f"~image.rowid IN ({_ROWS})", "image"),
    "words, many": _Condition(_MATCHES, "image"),
    "words, all": _Condition(f"+image.rowid IN ({_MATCHING})", "image"),
    "titles, few": _Condition(
        f"~image.id IN (SELECT there.image_id FROM album_image AS there WHERE {_THERE})", "image"
    ),
    "titles, many": _Condition(_IN_TITLED, "image"),
    "words or titles, few": _Condition(
        f"~image.rowid IN ({_ROWS} UNION ALL SELECT held.rowid FROM album_image AS there "
        f"CROSS JOIN image AS held ON held.id = there.image_id WHERE {_THERE})",
        "image",
    ),
    "words or titles, many": _Condition(f"({_MATCHES} OR {_IN_TITLED})", "image"),
    "words or titles, all": _Condition(f"(image.rowid IN ({_MATCHING}) OR {_IN_TITLED})", "image"),
    "not in rows": _Condition(f"image.rowid NOT IN ({_ROWS})", "image"),
    "not words, many": _Condition(f"NOT {_MATCHES}", "image"),
    "not words, all": _Condition(f"image.rowid NOT IN ({_MATCHING})", "image"),
}

TITLED_SQL = f"SELECT count(*) FROM (SELECT 1 FROM album_image AS there WHERE {_THERE} LIMIT :limit)"
"""Counts the places in albums whose titles match ``:titles``, up to ``:limit``."""


INDEXED = ("album", "favorite", "min_rating", "model", "source")
"""The conditions that have an index in the order of created_at, those that leave the fewest images first."""


@dataclass(frozen=True, slots=True)
class Value:
    """What images are sorted by before ``created_at``: a column of a table, and which of its rows have it."""

    table: str
    column: str
    present: str = ""

    @property
    def name(self) -> str:
        """Give the column as SQL."""
        return f"{self.table}.{self.column}"


VALUES = {
    "rating": Value("activity", "rating", "IS NOT NULL"),
    "o_count": Value("activity", "o_count", "> 0"),
    "view_count": Value("activity", "view_count", "> 0"),
    "usage_count": Value("activity", "usage_count", "> 0"),
    "last_viewed_at": Value("activity", "last_viewed_at", "IS NOT NULL"),
    "updated_at": Value("image", "updated_at"),
    "position": Value("place", "position"),
}


@dataclass(frozen=True, slots=True)
class Walk:
    """The form of a walk.

    ``conditions`` names what must hold; of them ``by`` is the one whose index is walked, empty where that is the
    order's own. (Of ratings there are ``streams`` lists to merge, or else all in one.) ``value`` names what comes
    before ``created_at`` in the order, and ``without`` what the images must not have. ``after``: whether it begins
    after a place in the list. ``gather``: whether the driver's images are sorted.
    """

    conditions: frozenset[str]
    by: str = ""
    value: str = ""
    without: str = ""
    descending: bool = True
    after: bool = False
    gather: bool = False
    streams: int = 0


@lru_cache(maxsize=2_000)
def walk_sql(walk: Walk) -> str:
    """Give the statement, which takes ``:limit``, the values of the conditions, and ``:value, :created_at, :id``."""
    value = VALUES[walk.value].name if walk.value else "NULL"
    direction = "DESC" if walk.descending else "ASC"
    keys = (["value"] if walk.value else []) + ["created_at", "id"]
    columns = {"value": value, "created_at": _driver(walk).created_at, "id": _driver(walk).id}
    order = ", ".join(f"{columns[key]} {direction}" for key in keys)
    if not walk.streams:
        return f"{_select(walk, '')} ORDER BY {order} LIMIT :limit"
    # Every rating is a list in order by itself, and SQLite merges lists that are.
    streams = " UNION ALL ".join(_select(walk, f"activity.rating = :rating_{n}") for n in range(walk.streams))
    return f"{streams} ORDER BY 2 {direction}, 3 {direction} LIMIT :limit"


@lru_cache(maxsize=4)
def sample_sql(after: bool, descending: bool) -> str:
    """Give the statement that counts the images rated ``:min_rating`` or higher among the next ``:sample`` rated."""
    direction, sign = ("DESC", "<") if descending else ("ASC", ">")
    begin = f" AND (activity.image_created_at, activity.image_id) {sign} (:created_at, :id)" if after else ""
    return (
        "SELECT count(*) FROM (SELECT activity.rating AS rating FROM image_activity AS activity "
        f"WHERE activity.rating IS NOT NULL{begin} "
        f"ORDER BY activity.image_created_at {direction}, activity.image_id {direction} LIMIT :sample) "
        "WHERE rating >= :min_rating"
    )


def streams_for(min_rating: int) -> int:
    """Give the number of lists that are merged: one for each rating, and some that stay empty."""
    return next(length for length in _STREAMS if length >= RATINGS_MAX - min_rating)


@lru_cache(maxsize=200)
def counting_sql(condition: str) -> str:
    """Give the statement that counts the images for which a condition holds, up to ``:limit``."""
    told = _CONDITIONS[condition]
    driver = _TABLES[told.table or "image"]
    return f"SELECT count(*) FROM (SELECT 1 FROM {driver.source} WHERE {told.sql.replace('~', '')} LIMIT :limit)"


@lru_cache(maxsize=2_000)
def all_sql(conditions: frozenset[str], by: str, columns: str, tables: tuple[str, ...], more: str = "") -> str:
    """Give a statement over all images for which the conditions hold, in no order.

    It reads ``columns`` of ``tables``, starting from the condition ``by`` or, without one, from the first of them.
    """
    driver = (_CONDITIONS[by].table or "image") if by else tables[0] if tables else "image"
    usable = frozenset({by, "created_from", "created_to"})
    return f"SELECT {columns} " + _from_where(driver, conditions, frozenset(tables), [more] if more else [], usable)


def _driver(walk: Walk) -> _Table:
    return _TABLES[_driver_name(walk)]


def _driver_name(walk: Walk) -> str:
    if walk.by:
        return _CONDITIONS[walk.by].table or "image"
    return VALUES[walk.value].table if walk.value else "image"


def _select(walk: Walk, stream: str) -> str:
    driver = _driver(walk)
    more = [stream] if stream else []
    tables = set()
    usable = {walk.by} if walk.by else set()
    if walk.by == "min_rating" and not walk.streams and not walk.gather:  # among all that are rated, in their order
        usable = set()
        more.append("activity.rating IS NOT NULL")
    keys, marks = [driver.created_at, driver.id], [":created_at", ":id"]
    selected = "NULL"
    if walk.value:
        value = VALUES[walk.value]
        selected = value.name
        tables.add(value.table)
        keys.insert(0, value.name)
        marks.insert(0, ":value")
        if value.present:
            more.append(f"{value.name} {value.present}")
        if walk.value == "rating" and not walk.gather:
            usable.add("min_rating")  # of the same index as the order
    if walk.without:
        value = VALUES[walk.without]
        more.append(_unless(f"other.{value.column} {value.present}").sql.replace("{id}", driver.id))
    if walk.after:
        more.append(f"({', '.join(keys)}) {'<' if walk.descending else '>'} ({', '.join(marks)})")
    if not walk.value and not walk.gather:
        # One end of the time asked for; where there is a place to begin after, that is the other.
        usable |= {"created_from", "created_to"}
        if walk.after:
            usable.discard("created_to" if walk.descending else "created_from")
    return f"SELECT {selected} AS value, {driver.created_at} AS created_at, {driver.id} AS id " + _from_where(
        _driver_name(walk), walk.conditions, frozenset(tables), more, frozenset(usable)
    )


def _from_where(
    driver_name: str, conditions: frozenset[str], tables: frozenset[str], more: list[str], usable: frozenset[str]
) -> str:
    driver = _TABLES[driver_name]
    needed = set(tables)
    where = []
    for name in sorted(conditions):
        condition = _CONDITIONS[name]
        if condition.table is not None:
            needed.add(condition.table)
        if name != "album" or driver_name == "place":  # else it is in the join
            sql = condition.sql.replace("{id}", driver.id).replace("{created_at}", driver.created_at)
            where.append(sql.replace("~", "" if name in usable else "+"))
    needed.discard(driver_name)
    joins = "".join(f" {_JOINS[name].replace('{id}', driver.id)}" for name in sorted(needed))
    condition_sql = " AND ".join([*where, *more])
    return f"FROM {driver.source}{joins}" + (f" WHERE {condition_sql}" if condition_sql else "")
