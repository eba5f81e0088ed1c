"""Totals that follow the events, a history of edits, and answers that are kept for who asks again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the step."""
    op.create_table(
        "idempotency",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("key", sa.Text(collation="C"), nullable=False, comment="the Idempotency-Key of a request"),
        sa.Column("digest", sa.LargeBinary(), nullable=False, comment="tells the request from others"),
        sa.Column("status", sa.SmallInteger(), nullable=False, comment="of the answer"),
        sa.Column("body", sa.LargeBinary(), nullable=False, comment="of the answer, as it was sent"),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "key"),
        schema="tidepool",
    )
    op.create_index("idempotency_created_at", "idempotency", ["created_at"], unique=False, schema="tidepool")
    # Totals that were written without events stay; events move on from there.
    op.execute(
        """
CREATE OR REPLACE FUNCTION total_image_events() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
  -- What is gone. With an image that is being deleted its activity goes too, so that need not be put right.
  IF TG_OP IN ('UPDATE', 'DELETE') THEN
    UPDATE public.image_activity AS a SET
      view_count = greatest(a.view_count - gone.views, 0),
      o_count = greatest(a.o_count - gone.os, 0),
      usage_count = greatest(a.usage_count - gone.usages, 0),
      last_viewed_at = CASE WHEN gone.views = 0 THEN a.last_viewed_at ELSE (
        SELECT max(e.occurred_at) FROM public.image_event AS e
        WHERE e.user_id = a.user_id AND e.image_id = a.image_id AND e.kind = 'view') END
    FROM (
      SELECT user_id, image_id, count(*) FILTER (WHERE kind = 'view') AS views,
        count(*) FILTER (WHERE kind = 'o') AS os, count(*) FILTER (WHERE kind = 'usage') AS usages
      FROM old_rows GROUP BY user_id, image_id
    ) AS gone
    WHERE a.user_id = gone.user_id AND a.image_id = gone.image_id
      AND EXISTS (SELECT FROM public.image AS i WHERE i.user_id = gone.user_id AND i.id = gone.image_id);
  END IF;
  -- What is new. The order is one for all, so that writers do not deadlock.
  IF TG_OP IN ('INSERT', 'UPDATE') THEN
    INSERT INTO public.image_activity AS a (user_id, image_id, view_count, o_count, usage_count, last_viewed_at)
    SELECT user_id, image_id, count(*) FILTER (WHERE kind = 'view'), count(*) FILTER (WHERE kind = 'o'),
      count(*) FILTER (WHERE kind = 'usage'), max(occurred_at) FILTER (WHERE kind = 'view')
    FROM new_rows GROUP BY user_id, image_id ORDER BY user_id, image_id
    ON CONFLICT (user_id, image_id) DO UPDATE SET
      view_count = a.view_count + excluded.view_count,
      o_count = a.o_count + excluded.o_count,
      usage_count = a.usage_count + excluded.usage_count,
      last_viewed_at = greatest(a.last_viewed_at, excluded.last_viewed_at);
  END IF;
  RETURN NULL;
END $$"""
    )
    for event, rows in (
        ("insert", "NEW TABLE AS new_rows"),
        ("update", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
        ("delete", "OLD TABLE AS old_rows"),
    ):
        op.execute(
            f"CREATE TRIGGER total_{event} AFTER {event.upper()} ON image_event REFERENCING {rows} "
            "FOR EACH STATEMENT EXECUTE FUNCTION total_image_events()"
        )
    op.execute(
        """
CREATE OR REPLACE FUNCTION tell_image_edits() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, public, pg_temp SET enable_nestloop = off AS $$
BEGIN
  INSERT INTO public.image_edit (user_id, image_id, field, old_value, new_value, edited_by, edited_at)
  SELECT n.user_id, n.id, f.key, nullif(to_jsonb(o) -> f.key, 'null'), nullif(f.value, 'null'),
    coalesce(nullif(current_setting('tidepool.actor', true), ''), 'sql:' || session_user), statement_timestamp()
  FROM new_rows AS n JOIN old_rows AS o ON o.user_id = n.user_id AND o.id = n.id
  CROSS JOIN LATERAL jsonb_each(to_jsonb(n) - ARRAY['user_id', 'id', 'updated_at', 'row_version']) AS f
  WHERE f.value IS DISTINCT FROM to_jsonb(o) -> f.key;
  RETURN NULL;
END $$"""
    )
    op.execute(
        "CREATE TRIGGER tell_edits AFTER UPDATE ON image REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows "
        "FOR EACH STATEMENT EXECUTE FUNCTION tell_image_edits()"
    )
