"""Nothing waits for a deleted image, and nothing hangs on an image without knowing when it was made."""

from __future__ import annotations

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the step."""
    op.execute(
        """
        CREATE OR REPLACE FUNCTION take_image_created_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            SELECT i.created_at INTO NEW.image_created_at
            FROM public.image AS i WHERE i.user_id = NEW.user_id AND i.id = NEW.image_id;
            IF NOT FOUND THEN
                RAISE EXCEPTION 'there is no image % yet for this row of %', NEW.image_id, TG_TABLE_NAME
                    USING ERRCODE = 'foreign_key_violation', TABLE = TG_TABLE_NAME, COLUMN = 'image_id',
                    HINT = 'Write the image first.';
            END IF;
            RETURN NEW;
        END $$"""
    )
    for table in ("image_activity", "album_image"):
        # The trigger puts the right time in; where the image's own is that, nothing changes.
        op.execute(
            f"UPDATE {table} SET image_created_at = image_created_at FROM image WHERE image.user_id = {table}.user_id "
            f"AND image.id = {table}.image_id AND image.created_at <> {table}.image_created_at"
        )
    op.execute(
        """
CREATE OR REPLACE FUNCTION mirror_forget() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $mirror$
BEGIN
  IF EXISTS (SELECT FROM public.upstream_key) THEN
    DELETE FROM public.upstream_outbox AS o USING old_rows AS gone
    WHERE o.user_id = gone.user_id AND o.image_id = gone.id;
  END IF;
  RETURN NULL;
END $mirror$"""
    )
    op.execute(
        """
    CREATE OR REPLACE TRIGGER upstream_forget AFTER DELETE ON image REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mirror_forget()"""
    )
    op.execute(
        "DELETE FROM upstream_outbox AS o WHERE NOT EXISTS "
        "(SELECT FROM image AS i WHERE i.user_id = o.user_id AND i.id = o.image_id)"
    )
