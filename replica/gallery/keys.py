"""The SQL that walks a list of images: for each, what it is sorted by, when it was made, and its id.

A walk starts from one table, its driver, in the order of one of its indexes; whatever else an image must be is looked
up by its key on the way. So no walk sorts, but for one: where a filter leaves few images, they are gathered and sorted.
The text depends only on the form of what is asked, never on its values, and is made once for each form.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from replica.gallery.conditions import CONDITIONS, TABLES, from_where, table_of, tables_of, unless

RATINGS_MAX = 101  # 0 to 100
_STREAMS = (2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 80, RATINGS_MAX)  # a few lengths, so that there are few texts


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

    @property
    def sorts(self) -> bool:
        """Whether it meets more images than it gives, to sort or to merge them."""
        return self.gather or bool(self.streams)

    @property
    def is_newest(self) -> bool:
        """Whether it is of all images, the newest first, and from their beginning."""
        return self == _NEWEST

    def of_rows(self, *, settled: bool) -> Walk:
        """Give the walk over ``:rows``, gathered and sorted; if ``settled``, all that it asks is known to hold."""
        if settled:
            return Walk(frozenset({"rows"}), by="rows", value=self.value, descending=self.descending, gather=True)
        return replace(self, conditions=self.conditions | {"rows"}, by="rows", gather=True, streams=0)


_NEWEST = Walk(frozenset())


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a walk: its SQL, and the table that has it, if it is not the driver whichever."""

    sql: str
    table: str = ""


@lru_cache(maxsize=2_000)
def walk_sql(walk: Walk, columns: tuple[Column, ...], last: str = "") -> str:
    """Give the statement of these columns, without an end; of a walk that sorts also of ``created_at`` and ``id``.

    It takes the values of the conditions, and ``:value, :created_at, :id``. ``last`` is joined for each image.
    """
    direction = "DESC" if walk.descending else "ASC"
    keys = names_of(walk)
    if not walk.streams:
        order = ", ".join(f"{name} {direction}" for name in keys.values())
        return f"{_select(walk, '', columns, last)} ORDER BY {order}"
    # Every rating is a list in order by itself, and SQLite merges lists that are.
    each = (_select(walk, f"activity.rating = :rating_{n}", columns, last) for n in range(walk.streams))
    return f"{' UNION ALL '.join(each)} ORDER BY created_at {direction}, id {direction}"


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
    told = CONDITIONS[condition]
    source = TABLES[table_of(condition)].source
    return f"SELECT count(*) FROM (SELECT 1 FROM {source} WHERE {told.sql.replace('~', '')} LIMIT :limit)"


@lru_cache(maxsize=2_000)
def all_sql(conditions: frozenset[str], by: str, columns: str, tables: tuple[str, ...], more: str = "") -> str:
    """Give a statement over all images for which the conditions hold, in no order.

    It reads ``columns`` of ``tables``, starting from the condition ``by`` or, without one, from the first of them.
    """
    driver = table_of(by) if by else tables[0] if tables else "image"
    usable = frozenset({by, "created_from", "created_to"})
    return f"SELECT {columns} " + from_where(driver, conditions, frozenset(tables), [more] if more else [], usable)


def driver_of(walk: Walk) -> str:
    """Name the table that a walk starts from."""
    if walk.by:
        return table_of(walk.by)
    return VALUES[walk.value].table if walk.value else "image"


def joined_by(walk: Walk) -> frozenset[str]:
    """Name the tables that a walk joins to its driver."""
    own = frozenset({VALUES[walk.value].table}) if walk.value else frozenset[str]()
    return tables_of(driver_of(walk), walk.conditions, own)


def names_of(walk: Walk) -> dict[str, str]:
    """Give the SQL of what a walk is in the order of, by name."""
    driver = TABLES[driver_of(walk)]
    value = {"value": VALUES[walk.value].name} if walk.value else {}
    return {**value, "created_at": driver.created_at, "id": driver.id}


def _select(walk: Walk, stream: str, columns: tuple[Column, ...], last: str) -> str:
    driver = TABLES[driver_of(walk)]
    more = [stream] if stream else []
    tables = {column.table for column in columns if column.table}
    usable = {walk.by} if walk.by else set()
    if walk.by == "min_rating" and not walk.streams and not walk.gather:  # among all that are rated, in their order
        usable = set()
        more.append("activity.rating IS NOT NULL")
    keys, marks = [driver.created_at, driver.id], [":created_at", ":id"]
    if walk.value:
        value = VALUES[walk.value]
        tables.add(value.table)
        keys.insert(0, value.name)
        marks.insert(0, ":value")
        if value.present:
            more.append(f"{value.name} {value.present}")
        if walk.value == "rating" and not walk.gather:
            usable.add("min_rating")  # of the same index as the order
    if walk.without:
        value = VALUES[walk.without]
        more.append(unless(f"other.{value.column} {value.present}", driver.id))
    if walk.after:
        more.append(f"({', '.join(keys)}) {'<' if walk.descending else '>'} ({', '.join(marks)})")
    if not walk.value and not walk.gather:
        # One end of the time asked for; where there is a place to begin after, that is the other.
        usable |= {"created_from", "created_to"}
        if walk.after:
            usable.discard("created_to" if walk.descending else "created_from")
    told = [column.sql for column in columns]
    if walk.sorts:
        told += [f"{driver.created_at} AS created_at", f"{driver.id} AS id"]
    conditions = walk.conditions - {"min_rating"} if stream else walk.conditions
    return f"SELECT {', '.join(told)} " + from_where(
        driver_of(walk), conditions, frozenset(tables), more, frozenset(usable), last
    )
