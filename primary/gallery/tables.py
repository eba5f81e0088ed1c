"""The gallery's tables, each declared once; capture, feed, replicas and migrations follow from here.

What holds for all of them:
- every key, unique constraint and foreign key leads with the owner: no row can refer to another user's row;
- a column that a writer need not know has a server default, so that ``INSERT INTO image (user_id, prompt,
  image_url) VALUES (…)`` from anywhere is a complete write;
- Postgres keeps the indexes that writing and cascading need; what only reading needs is a `ReadIndex`;
- there is no ``ON UPDATE CASCADE``: a row that others hang on keeps its key and its owner, and an image also when it
  was made, which what hangs on it repeats (see `primary.gallery.made_at`).
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from primary.declaration import Catalog, ReadIndex, synced
from primary.gallery import limits
from primary.gallery.columns import (
    bounds,
    count,
    document,
    flag,
    for_the_cascade,
    is_object,
    length,
    moment,
    own_id,
    owner,
    part_of,
    row_version,
    text,
    user_is_named,
)
from primary.gallery.history import tell_edits
from primary.gallery.made_at import keeps_created_at, takes_image_created_at
from primary.gallery.totals import total
from primary.gallery.touch import touch
from primary.gallery.upstream import declare_upstream

metadata = sa.MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(referred_table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

IMAGE_CREATED_AT = "image_created_at"
"""When a row's image was made, kept by a trigger: a replica finds what it looks for in the images' order by it."""


def _image_created_at() -> sa.Column[Any]:
    return sa.Column(IMAGE_CREATED_AT, sa.DateTime(timezone=True), nullable=False)


profile = sa.Table(
    "profile",
    metadata,
    owner(),
    text("username"),
    text("first_name"),
    flag("sync_upstream"),
    document("settings"),
    moment("created_at"),
    moment("updated_at"),
    user_is_named(),
    length("username", 0, limits.NAME_MAX_CHARS),
    length("first_name", 0, limits.NAME_MAX_CHARS),
    is_object("settings"),
    comment="What a user tells of themselves; a user without one is as good.",
    info=synced(owner="user_id"),
)

image = sa.Table(
    "image",
    metadata,
    owner(),
    own_id(),
    sa.Column("prompt", sa.Text, nullable=False),
    text("negative_prompt"),
    sa.Column("image_url", sa.Text, nullable=False),
    text("model"),
    sa.Column("seed", sa.BigInteger),
    sa.Column("steps", sa.Integer),
    sa.Column("width", sa.Integer),
    sa.Column("height", sa.Integer),
    sa.Column("source", sa.Text, nullable=False, server_default=sa.text("'message_response'")),
    text("persona_id"),
    text("persona_name"),
    text("alt_text"),
    text("description"),
    document("meta"),
    moment("created_at"),
    moment("updated_at"),
    row_version(),
    user_is_named(),
    length("prompt", 1, limits.PROMPT_MAX_CHARS),
    length("negative_prompt", 0, limits.PROMPT_MAX_CHARS),
    length("image_url", 1, limits.URL_MAX_CHARS),
    length("model", 0, limits.NAME_MAX_CHARS),
    bounds("steps", 1, limits.STEPS_MAX),
    bounds("width", 1, limits.SIDE_MAX_PX),
    bounds("height", 1, limits.SIDE_MAX_PX),
    length("source", 1, limits.NAME_MAX_CHARS),
    length("persona_id", 0, limits.NAME_MAX_CHARS),
    length("persona_name", 0, limits.NAME_MAX_CHARS),
    length("alt_text", 0, limits.ALT_TEXT_MAX_CHARS),
    length("description", 0, limits.DESCRIPTION_MAX_CHARS),
    is_object("meta"),
    bounds("row_version", 1),
    comment="One generated image: what it was made from, where it is kept and what is said about it.",
    info=synced(
        owner="user_id",
        indexes=[
            ReadIndex("newest", ["created_at", "id"], rendered=True),
            ReadIndex("by_source", ["source", "created_at", "id"]),
            ReadIndex("by_model", ["model", "created_at", "id"], where="model IS NOT NULL"),
            ReadIndex("by_update", ["updated_at", "created_at", "id"]),
        ],
        full_text=["prompt", "negative_prompt", "alt_text", "description"],
    ),
)

image_activity = sa.Table(
    "image_activity",
    metadata,
    owner(),
    sa.Column("image_id", sa.Uuid, primary_key=True),
    flag("is_favorite"),
    sa.Column("rating", sa.SmallInteger),
    count("view_count"),
    count("o_count"),
    count("usage_count"),
    sa.Column("last_viewed_at", sa.DateTime(timezone=True)),
    _image_created_at(),
    part_of("image", "image_id"),
    bounds("rating", 0, limits.RATING_MAX),
    bounds("view_count", 0),
    bounds("o_count", 0),
    bounds("usage_count", 0),
    comment="What the owner thinks of an image and how often it was used; without a row: the defaults.",
    info=synced(
        owner="user_id",
        indexes=[
            ReadIndex("favorites", [IMAGE_CREATED_AT, "image_id", "is_favorite"], where="is_favorite"),
            ReadIndex("rated", [IMAGE_CREATED_AT, "image_id", "rating"], where="rating IS NOT NULL"),
            *(
                ReadIndex(f"by_{name}", [name, IMAGE_CREATED_AT, "image_id"], where=f"{name} {told}")
                for name, told in {
                    "rating": "IS NOT NULL",
                    "view_count": "> 0",
                    "o_count": "> 0",
                    "usage_count": "> 0",
                    "last_viewed_at": "IS NOT NULL",
                }.items()
            ),
        ],
    ),
)

image_event = sa.Table(
    "image_event",
    metadata,
    owner(),
    own_id(),
    sa.Column("image_id", sa.Uuid, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    moment("occurred_at"),
    text("client_event_id"),
    part_of("image", "image_id"),
    # A retried report of one event is one event. NULLs do not collide: an event need not have an id.
    sa.UniqueConstraint("user_id", "client_event_id"),
    sa.CheckConstraint("kind IN ('view', 'o', 'usage')", name="kind"),
    length("client_event_id", 1, limits.NAME_MAX_CHARS),
    for_the_cascade("image_id"),
    comment="Every time an image was viewed, counted or put to use; image_activity holds their totals.",
    info=synced(owner="user_id", indexes=[ReadIndex("of_image", ["image_id", "occurred_at", "id"])]),
)

event_taken_back = sa.Table(
    "event_taken_back",
    metadata,
    owner(),
    sa.Column("client_event_id", sa.Text, primary_key=True),
    sa.Column("image_id", sa.Uuid, nullable=False),
    part_of("image", "image_id"),
    for_the_cascade("image_id"),
    comment="The client's ids of o events that were taken back: a late report of one does not count it again.",
)

album = sa.Table(
    "album",
    metadata,
    owner(),
    own_id(),
    sa.Column("title", sa.Text, nullable=False),
    text("description"),
    sa.Column("cover_image_id", sa.Uuid),
    moment("created_at"),
    moment("updated_at"),
    row_version(),
    # An album outlives its cover; only the cover is forgotten, never the owner.
    sa.ForeignKeyConstraint(
        ["user_id", "cover_image_id"], ["image.user_id", "image.id"], ondelete="SET NULL (cover_image_id)"
    ),
    user_is_named(),
    length("title", 1, limits.NAME_MAX_CHARS),
    length("description", 0, limits.DESCRIPTION_MAX_CHARS),
    bounds("row_version", 1),
    for_the_cascade("cover_image_id"),
    comment="A named, ordered choice of images.",
    info=synced(
        owner="user_id",
        indexes=[ReadIndex("newest", ["created_at", "id"])],
        full_text=["title", "description"],
    ),
)

album_image = sa.Table(
    "album_image",
    metadata,
    owner(),
    sa.Column("album_id", sa.Uuid, primary_key=True),
    sa.Column("image_id", sa.Uuid, primary_key=True),
    count("position"),
    text("caption"),
    moment("added_at"),
    _image_created_at(),
    part_of("album", "album_id"),
    part_of("image", "image_id"),
    bounds("position", 0),
    length("caption", 0, limits.ALT_TEXT_MAX_CHARS),
    for_the_cascade("image_id"),  # the one from album uses the primary key
    comment="An image's place in an album. What is said of the image itself is in image alone.",
    info=synced(
        owner="user_id",
        indexes=[
            ReadIndex("in_order", ["album_id", "position", IMAGE_CREATED_AT, "image_id"]),
            ReadIndex("newest", ["album_id", IMAGE_CREATED_AT, "image_id"]),
            ReadIndex("of_image", ["image_id"]),
        ],
    ),
)

image_edit = sa.Table(
    "image_edit",
    metadata,
    owner(),
    own_id(),
    sa.Column("image_id", sa.Uuid, nullable=False),
    sa.Column("field", sa.Text, nullable=False),
    sa.Column("old_value", JSONB(none_as_null=True)),
    sa.Column("new_value", JSONB(none_as_null=True)),
    text("edited_by"),
    moment("edited_at"),
    part_of("image", "image_id"),
    length("field", 1, limits.NAME_MAX_CHARS),
    length("edited_by", 0, limits.USER_ID_MAX_CHARS),
    for_the_cascade("image_id"),
    comment="Who changed which field of an image from what to what, and when.",
    info=synced(owner="user_id", indexes=[ReadIndex("of_image", ["image_id", "edited_at", "id"])]),
)

touch(image)
touch(album)
touch(profile, versioned=False)
keeps_created_at(image)
takes_image_created_at(image_activity)
takes_image_created_at(album_image)
total(image_event)
tell_edits(image)

declare_upstream(metadata)

catalog = Catalog.of(metadata)
