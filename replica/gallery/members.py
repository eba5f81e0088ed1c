"""The SQL of an image as it is given out: the members of its JSON object, the same wherever it is read."""

from __future__ import annotations

from dataclasses import replace

import sqlalchemy as sa

from primary.declaration import SyncedTable
from primary.gallery.tables import IMAGE_CREATED_AT, catalog
from replica.rendering import json_members


def _default_json(table: SyncedTable, name: str) -> str:
    default = table.table.c[name].server_default
    return str(default.arg) if isinstance(default, sa.DefaultClause) else "null"


def image_members(alias: str) -> str:
    """Give the SQL of the members of a row of ``image`` alone, without braces."""
    return json_members(catalog["image"], alias)


def activity_members(alias: str) -> str:
    """Give the SQL of the members that an image takes from its activity, a comma before each.

    Where there is no such row, they are the defaults.
    """
    activity = catalog["image_activity"]
    own = replace(activity, columns=tuple(c for c in activity.columns if c.name not in {"image_id", IMAGE_CREATED_AT}))
    defaults = "".join(f',"{column.name}":{_default_json(activity, column.name)}' for column in own.columns)
    return f"CASE WHEN {alias}.image_id IS NULL THEN '{defaults}' ELSE {json_members(own, alias, lead=',')} END"


MEMBERS = f"{image_members('image')} || {activity_members('told')}"
"""All members, of a row of ``image`` and its activity, which is called ``told``."""

JOIN_TOLD = "LEFT JOIN image_activity AS told ON told.image_id = image.id"
"""What `MEMBERS` needs besides ``image``."""


def joined(members: str, between: str = ",") -> str:
    """Give the SQL of all rows' members as JSON objects, but for the first and the last brace (see `braced`)."""
    return f"CAST(group_concat({members}, '}}{between}{{') AS BLOB)"  # braces of each its own would copy it once more


def braced(images: bytes) -> bytes:
    """Put the outermost braces around what `joined` gave."""
    return b"{%b}" % images
