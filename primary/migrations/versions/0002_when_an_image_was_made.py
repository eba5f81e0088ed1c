"""When an image was made, in the rows by which images are chosen: it never changes, and they repeat it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the step."""
    op.execute(
        """
        CREATE FUNCTION keep_created_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'created_at of % is when it was made, and does not change', TG_TABLE_NAME
                USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'created_at';
        END $$"""
    )
    op.execute(
        """
        CREATE FUNCTION take_image_created_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            NEW.image_created_at := coalesce(
                (SELECT i.created_at FROM public.image AS i WHERE i.user_id = NEW.user_id AND i.id = NEW.image_id),
                '-infinity');
            RETURN NEW;
        END $$"""
    )
    op.execute(
        "CREATE TRIGGER keep_created_at BEFORE UPDATE ON image FOR EACH ROW "
        "WHEN (OLD.created_at IS DISTINCT FROM NEW.created_at) EXECUTE FUNCTION keep_created_at()"
    )
    for table in ("image_activity", "album_image"):
        op.add_column(table, sa.Column("image_created_at", sa.DateTime(timezone=True), nullable=True))
        op.execute(
            f"UPDATE {table} SET image_created_at = image.created_at FROM image "
            f"WHERE image.user_id = {table}.user_id AND image.id = {table}.image_id"
        )
        op.alter_column(table, "image_created_at", nullable=False)
        op.execute(
            f"CREATE TRIGGER take_image_created_at BEFORE INSERT OR UPDATE OF user_id, image_id, image_created_at "
            f"ON {table} FOR EACH ROW EXECUTE FUNCTION take_image_created_at()"
        )
