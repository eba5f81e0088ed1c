"""The first tables: what the engine keeps, and the gallery."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from primary.capture import Xid8

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the step."""
    # The engine. Its schema is made by whoever runs the chain, for the table of steps lies in it too.
    op.create_table(
        "captured",
        sa.Column("table_name", sa.Text(), nullable=False, comment="the synced table, with its schema"),
        sa.Column("digest", sa.Text(), nullable=False, comment="of the triggers as they were installed"),
        sa.PrimaryKeyConstraint("table_name"),
        schema="tidepool",
    )
    op.create_table(
        "change",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("table_name", sa.Text(collation="C"), nullable=False),
        sa.Column("row_key", postgresql.ARRAY(sa.Text(collation="C")), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, comment="when the row was touched last"),
        sa.Column("deleted", sa.Boolean(), nullable=False, comment="a hint for compaction, never read as the truth"),
        sa.PrimaryKeyConstraint("user_id", "table_name", "row_key"),
        schema="tidepool",
    )
    op.create_index("change_user_version", "change", ["user_id", "version"], unique=False, schema="tidepool")
    op.create_table(
        "head",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False, comment="the last version of the user's rows"),
        sa.Column("xid", Xid8(), nullable=False, comment="the transaction that made it"),
        sa.Column(
            "floor",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="older marks may be compacted away",
        ),
        sa.PrimaryKeyConstraint("user_id"),
        schema="tidepool",
    )
    op.create_index("head_xid", "head", ["xid"], unique=False, schema="tidepool")
    # The gallery.
    op.create_table(
        "image",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("negative_prompt", sa.Text(), nullable=True),
        sa.Column("image_url", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("steps", sa.Integer(), nullable=True),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("height", sa.Integer(), nullable=True),
        sa.Column("source", sa.Text(), server_default=sa.text("'message_response'"), nullable=False),
        sa.Column("persona_id", sa.Text(), nullable=True),
        sa.Column("persona_name", sa.Text(), nullable=True),
        sa.Column("alt_text", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("meta", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint(
            "jsonb_typeof(meta) = 'object' AND octet_length(meta::text) <= 131072", name=op.f("ck_image_meta")
        ),
        sa.CheckConstraint("char_length(alt_text) BETWEEN 0 AND 4096", name=op.f("ck_image_alt_text")),
        sa.CheckConstraint("char_length(description) BETWEEN 0 AND 32768", name=op.f("ck_image_description")),
        sa.CheckConstraint("char_length(image_url) BETWEEN 1 AND 8192", name=op.f("ck_image_image_url")),
        sa.CheckConstraint("char_length(model) BETWEEN 0 AND 255", name=op.f("ck_image_model")),
        sa.CheckConstraint("char_length(negative_prompt) BETWEEN 0 AND 32768", name=op.f("ck_image_negative_prompt")),
        sa.CheckConstraint("char_length(persona_id) BETWEEN 0 AND 255", name=op.f("ck_image_persona_id")),
        sa.CheckConstraint("char_length(persona_name) BETWEEN 0 AND 255", name=op.f("ck_image_persona_name")),
        sa.CheckConstraint("char_length(prompt) BETWEEN 1 AND 32768", name=op.f("ck_image_prompt")),
        sa.CheckConstraint("char_length(source) BETWEEN 1 AND 255", name=op.f("ck_image_source")),
        sa.CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", name=op.f("ck_image_user_id")),
        sa.CheckConstraint("height BETWEEN 1 AND 65535", name=op.f("ck_image_height")),
        sa.CheckConstraint("row_version >= 1", name=op.f("ck_image_row_version")),
        sa.CheckConstraint("steps BETWEEN 1 AND 10000", name=op.f("ck_image_steps")),
        sa.CheckConstraint("width BETWEEN 1 AND 65535", name=op.f("ck_image_width")),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("pk_image")),
        comment="One generated image: what it was made from, where it is kept and what is said about it.",
    )
    op.create_table(
        "profile",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("username", sa.Text(), nullable=True),
        sa.Column("first_name", sa.Text(), nullable=True),
        sa.Column("sync_upstream", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("settings", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint(
            "jsonb_typeof(settings) = 'object' AND octet_length(settings::text) <= 131072",
            name=op.f("ck_profile_settings"),
        ),
        sa.CheckConstraint("char_length(first_name) BETWEEN 0 AND 255", name=op.f("ck_profile_first_name")),
        sa.CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", name=op.f("ck_profile_user_id")),
        sa.CheckConstraint("char_length(username) BETWEEN 0 AND 255", name=op.f("ck_profile_username")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_profile")),
        comment="What a user tells of themselves; a user without one is as good.",
    )
    op.create_table(
        "album",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("cover_image_id", sa.Uuid(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("row_version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
        sa.CheckConstraint("char_length(description) BETWEEN 0 AND 32768", name=op.f("ck_album_description")),
        sa.CheckConstraint("char_length(title) BETWEEN 1 AND 255", name=op.f("ck_album_title")),
        sa.CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", name=op.f("ck_album_user_id")),
        sa.CheckConstraint("row_version >= 1", name=op.f("ck_album_row_version")),
        sa.ForeignKeyConstraint(
            ["user_id", "cover_image_id"],
            ["image.user_id", "image.id"],
            name=op.f("fk_album_image"),
            ondelete="SET NULL (cover_image_id)",
        ),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("pk_album")),
        comment="A named, ordered choice of images.",
    )
    op.create_index(op.f("ix_album_user_id_cover_image_id"), "album", ["user_id", "cover_image_id"], unique=False)
    op.create_table(
        "image_activity",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("is_favorite", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("rating", sa.SmallInteger(), nullable=True),
        sa.Column("view_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("o_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("usage_count", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_viewed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("o_count >= 0", name=op.f("ck_image_activity_o_count")),
        sa.CheckConstraint("rating BETWEEN 0 AND 100", name=op.f("ck_image_activity_rating")),
        sa.CheckConstraint("usage_count >= 0", name=op.f("ck_image_activity_usage_count")),
        sa.CheckConstraint("view_count >= 0", name=op.f("ck_image_activity_view_count")),
        sa.ForeignKeyConstraint(
            ["user_id", "image_id"],
            ["image.user_id", "image.id"],
            name=op.f("fk_image_activity_image"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "image_id", name=op.f("pk_image_activity")),
        comment="What the owner thinks of an image and how often it was used; without a row: the defaults.",
    )
    op.create_table(
        "image_edit",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("field", sa.Text(), nullable=False),
        sa.Column("old_value", postgresql.JSONB(), nullable=True),
        sa.Column("new_value", postgresql.JSONB(), nullable=True),
        sa.Column("edited_by", sa.Text(), nullable=True),
        sa.Column("edited_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("char_length(edited_by) BETWEEN 0 AND 255", name=op.f("ck_image_edit_edited_by")),
        sa.CheckConstraint("char_length(field) BETWEEN 1 AND 255", name=op.f("ck_image_edit_field")),
        sa.ForeignKeyConstraint(
            ["user_id", "image_id"],
            ["image.user_id", "image.id"],
            name=op.f("fk_image_edit_image"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("pk_image_edit")),
        comment="Who changed which field of an image from what to what, and when.",
    )
    op.create_index(op.f("ix_image_edit_user_id_image_id"), "image_edit", ["user_id", "image_id"], unique=False)
    op.create_table(
        "image_event",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("id", sa.Uuid(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("client_event_id", sa.Text(), nullable=True),
        sa.CheckConstraint("kind IN ('view', 'o', 'usage')", name=op.f("ck_image_event_kind")),
        sa.CheckConstraint(
            "char_length(client_event_id) BETWEEN 1 AND 255", name=op.f("ck_image_event_client_event_id")
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "image_id"],
            ["image.user_id", "image.id"],
            name=op.f("fk_image_event_image"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("pk_image_event")),
        sa.UniqueConstraint("user_id", "client_event_id", name=op.f("uq_image_event_user_id_client_event_id")),
        comment="Every time an image was viewed, counted or put to use; image_activity holds their totals.",
    )
    op.create_index(op.f("ix_image_event_user_id_image_id"), "image_event", ["user_id", "image_id"], unique=False)
    op.create_table(
        "album_image",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("album_id", sa.Uuid(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("caption", sa.Text(), nullable=True),
        sa.Column("added_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.CheckConstraint("char_length(caption) BETWEEN 0 AND 4096", name=op.f("ck_album_image_caption")),
        sa.CheckConstraint("position >= 0", name=op.f("ck_album_image_position")),
        sa.ForeignKeyConstraint(
            ["user_id", "album_id"],
            ["album.user_id", "album.id"],
            name=op.f("fk_album_image_album"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["user_id", "image_id"],
            ["image.user_id", "image.id"],
            name=op.f("fk_album_image_image"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "album_id", "image_id", name=op.f("pk_album_image")),
        comment="An image's place in an album. What is said of the image itself is in image alone.",
    )
    op.create_index(op.f("ix_album_image_user_id_image_id"), "album_image", ["user_id", "image_id"], unique=False)

    # updated_at and row_version are true whoever edits a row.
    op.execute(
        """
        CREATE FUNCTION touch_updated_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := now();
            RETURN NEW;
        END $$"""
    )
    op.execute(
        """
        CREATE FUNCTION touch_row_version() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.updated_at := now();
            NEW.row_version := OLD.row_version + 1;
            RETURN NEW;
        END $$"""
    )
    for table, function in (
        ("image", "touch_row_version"),
        ("album", "touch_row_version"),
        ("profile", "touch_updated_at"),
    ):
        op.execute(
            f"CREATE TRIGGER {function} BEFORE UPDATE ON {table} FOR EACH ROW "
            f"WHEN (OLD.* IS DISTINCT FROM NEW.*) EXECUTE FUNCTION {function}()"
        )
