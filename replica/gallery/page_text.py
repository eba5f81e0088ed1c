"""The SQL of a page's text, the members of the images of a walk; and where a page ends, as its text tells.

The rendered index has an image's text ready: it is found there by created_at and id, unless the walk is along that very
index and takes it with it. What is told of its activity is put together anew, from the row that the walk has met
already, if it has, else by a look at its key.

A walk that meets its images in order makes their texts on the way; one that sorts or merges has its images first, and
then their texts, for of those it meets more than the page has.
"""

from __future__ import annotations

import re
from functools import lru_cache

from replica.gallery.keys import Column, Walk, driver_of, joined_by, names_of, walk_sql
from replica.gallery.members import activity_members, image_members, joined

BETWEEN = ",\n"
"""Between the images of a page: JSON has a newline nowhere else, so that the last one can be told from the others."""

# (By id alone SQLite would take the key, and make the text anew; and a range of one keeps it from doing so.)
_SHOWN = " CROSS JOIN image AS shown ON shown.created_at = {created_at} AND shown.id >= {id} AND shown.id <= {id}"
_TOLD = " LEFT JOIN image_activity AS told ON told.image_id = {id}"
_TOLD_ROW = " LEFT JOIN image_activity AS told ON told.rowid = at.told"
_HELD = " CROSS JOIN album_image AS held ON held.album_id = :album AND held.image_id = at.id"


@lru_cache(maxsize=2_000)
def page_sql(walk: Walk, placed: bool) -> str:
    """Give the statement of a walk's images, as `joined` joins them, and of their number."""
    text, source = _later(walk, placed) if walk.sorts else _on_the_way(walk, placed)
    return f"SELECT {joined(text, BETWEEN)}, count(*) FROM {source}"


@lru_cache(maxsize=20)
def _end(value: str) -> re.Pattern[bytes]:
    # The last of each name is the image's own: before it may come a document of the user's, after it only texts, in
    # which no quote stands by itself.
    named = rf'.*,"{value}":(?:(?P<number>\d+)|"(?P<text>[^"]*)")' if value else ""
    return re.compile(rf'"id":"([^"]*)".*,"created_at":"([^"]*)"{named}'.encode(), re.DOTALL)


def end_of(image: bytes, value: str) -> tuple[str, str, int | str | None]:
    """Give ``created_at``, ``id`` and a value of an image, from its text: that costs less than to ask for them.

    The value is the member that is named, a number or a time; None if none is.
    """
    found = _end(value).match(image)
    if found is None:
        raise ValueError(f"the text of an image has no id, created_at or {value}")
    created_at, id_ = found[2].decode(), found[1].decode()
    if not value:
        return created_at, id_, None
    return created_at, id_, int(found["number"]) if found["number"] else found["text"].decode()


def _on_the_way(walk: Walk, placed: bool) -> tuple[str, str]:
    names, image, told, joins = names_of(walk), "shown", "activity", ""
    if driver_of(walk) == "image" and not (walk.by or walk.value):
        image = "image"
    else:
        joins += _SHOWN.format_map(names)
    if not _meets_activity(walk):
        told = "told"
        joins += _TOLD.format_map(names)
    text = Column(f"{_members(image, told, 'place' if placed else '')} AS text")
    return "at.text", f"({walk_sql(walk, (text,), joins)} LIMIT :limit) AS at"


def _later(walk: Walk, placed: bool) -> tuple[str, str]:
    at = {"created_at": "at.created_at", "id": "at.id"}
    joins = _SHOWN.format_map(at) + (_HELD if placed else "")
    columns: tuple[Column, ...] = ()
    if _meets_activity(walk):
        columns = (Column("activity.rowid AS told"),)
        joins += _TOLD_ROW
    else:
        joins += _TOLD.format_map(at)
    return _members("shown", "told", "held" if placed else ""), f"({walk_sql(walk, columns)} LIMIT :limit) AS at{joins}"


def _meets_activity(walk: Walk) -> bool:
    return not {"activity", "any activity"}.isdisjoint({driver_of(walk), *joined_by(walk)})


def _members(image: str, told: str, place: str) -> str:
    members = f"{image_members(image)} || {activity_members(told)}"
    if place:
        members += (
            f""" || ',"position":' || {place}.position || ',"caption":' || json_quote({place}.caption)"""
            f""" || ',"added_at":' || json_quote({place}.added_at)"""
        )
    return members
