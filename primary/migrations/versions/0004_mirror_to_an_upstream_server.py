"""Mirror to an upstream server: what is to be told, to whom, and the triggers that write it down."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


FUNCTIONS = (
    """
CREATE OR REPLACE FUNCTION mirror_activity_insert() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $mirror$
BEGIN
  IF NOT EXISTS (SELECT FROM public.upstream_key) THEN
    RETURN NULL;  -- nobody mirrors anything
  END IF;
  INSERT INTO public.upstream_outbox (user_id, image_id, stash_id, kind, amount)
  SELECT c.user_id, c.image_id, c.stash_id #>> '{}', v.kind, v.amount
  FROM (
    -- Looked up row by row, never joined: a join could read all images of the user for one.
    SELECT g.*, CASE WHEN (SELECT p.sync_upstream FROM public.profile AS p WHERE p.user_id = g.user_id)
      THEN (SELECT i.meta -> 'stash_id' FROM public.image AS i WHERE i.user_id = g.user_id AND i.id = g.image_id)
      END AS stash_id
    FROM (
      SELECT r.user_id, r.image_id, max(r.rating) FILTER (WHERE r.sign > 0) AS rating,
        max(r.rating) FILTER (WHERE r.sign < 0) AS rating_before, sum(r.sign * r.o_count)::integer AS o
      FROM (
        SELECT 1 AS sign, n.user_id, n.image_id, n.rating, n.o_count FROM new_rows AS n
      ) AS r GROUP BY r.user_id, r.image_id
    ) AS g WHERE g.o <> 0 OR g.rating IS DISTINCT FROM g.rating_before OFFSET 0
  ) AS c
  CROSS JOIN LATERAL (VALUES ('rating', c.rating::integer, c.rating IS DISTINCT FROM c.rating_before),
    ('o', c.o, c.o <> 0)) AS v (kind, amount, changed)
  JOIN public.upstream_key AS k ON k.user_id = c.user_id
  WHERE v.changed AND jsonb_typeof(c.stash_id) IN ('string', 'number')
    AND char_length(c.stash_id #>> '{}') BETWEEN 1 AND 255
  FOR KEY SHARE OF k;
  RETURN NULL;
END $mirror$""",
    """
CREATE OR REPLACE FUNCTION mirror_activity_update() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $mirror$
BEGIN
  IF NOT EXISTS (SELECT FROM public.upstream_key) THEN
    RETURN NULL;  -- nobody mirrors anything
  END IF;
  INSERT INTO public.upstream_outbox (user_id, image_id, stash_id, kind, amount)
  SELECT c.user_id, c.image_id, c.stash_id #>> '{}', v.kind, v.amount
  FROM (
    -- Looked up row by row, never joined: a join could read all images of the user for one.
    SELECT g.*, CASE WHEN (SELECT p.sync_upstream FROM public.profile AS p WHERE p.user_id = g.user_id)
      THEN (SELECT i.meta -> 'stash_id' FROM public.image AS i WHERE i.user_id = g.user_id AND i.id = g.image_id)
      END AS stash_id
    FROM (
      SELECT r.user_id, r.image_id, max(r.rating) FILTER (WHERE r.sign > 0) AS rating,
        max(r.rating) FILTER (WHERE r.sign < 0) AS rating_before, sum(r.sign * r.o_count)::integer AS o
      FROM (
        SELECT 1 AS sign, n.user_id, n.image_id, n.rating, n.o_count FROM new_rows AS n
        UNION ALL SELECT -1 AS sign, o.user_id, o.image_id, o.rating, o.o_count FROM old_rows AS o
      ) AS r GROUP BY r.user_id, r.image_id
    ) AS g WHERE g.o <> 0 OR g.rating IS DISTINCT FROM g.rating_before OFFSET 0
  ) AS c
  CROSS JOIN LATERAL (VALUES ('rating', c.rating::integer, c.rating IS DISTINCT FROM c.rating_before),
    ('o', c.o, c.o <> 0)) AS v (kind, amount, changed)
  JOIN public.upstream_key AS k ON k.user_id = c.user_id
  WHERE v.changed AND jsonb_typeof(c.stash_id) IN ('string', 'number')
    AND char_length(c.stash_id #>> '{}') BETWEEN 1 AND 255
  FOR KEY SHARE OF k;
  RETURN NULL;
END $mirror$""",
    """
CREATE OR REPLACE FUNCTION mirror_activity_delete() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $mirror$
BEGIN
  IF NOT EXISTS (SELECT FROM public.upstream_key) THEN
    RETURN NULL;  -- nobody mirrors anything
  END IF;
  INSERT INTO public.upstream_outbox (user_id, image_id, stash_id, kind, amount)
  SELECT c.user_id, c.image_id, c.stash_id #>> '{}', v.kind, v.amount
  FROM (
    -- Looked up row by row, never joined: a join could read all images of the user for one.
    SELECT g.*, CASE WHEN (SELECT p.sync_upstream FROM public.profile AS p WHERE p.user_id = g.user_id)
      THEN (SELECT i.meta -> 'stash_id' FROM public.image AS i WHERE i.user_id = g.user_id AND i.id = g.image_id)
      END AS stash_id
    FROM (
      SELECT r.user_id, r.image_id, max(r.rating) FILTER (WHERE r.sign > 0) AS rating,
        max(r.rating) FILTER (WHERE r.sign < 0) AS rating_before, sum(r.sign * r.o_count)::integer AS o
      FROM (
        SELECT -1 AS sign, o.user_id, o.image_id, o.rating, o.o_count FROM old_rows AS o
      ) AS r GROUP BY r.user_id, r.image_id
    ) AS g WHERE g.o <> 0 OR g.rating IS DISTINCT FROM g.rating_before OFFSET 0
  ) AS c
  CROSS JOIN LATERAL (VALUES ('rating', c.rating::integer, c.rating IS DISTINCT FROM c.rating_before),
    ('o', c.o, c.o <> 0)) AS v (kind, amount, changed)
  JOIN public.upstream_key AS k ON k.user_id = c.user_id
  WHERE v.changed AND jsonb_typeof(c.stash_id) IN ('string', 'number')
    AND char_length(c.stash_id #>> '{}') BETWEEN 1 AND 255
  FOR KEY SHARE OF k;
  RETURN NULL;
END $mirror$""",
    """
CREATE OR REPLACE FUNCTION mirror_stop() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $mirror$
BEGIN
  -- Off means that nothing more is told; what waited would be stale by the time that it is on again.
  DELETE FROM public.upstream_outbox WHERE user_id = OLD.user_id;
  RETURN NULL;
END $mirror$""",
)

TRIGGERS = (
    """
    CREATE OR REPLACE TRIGGER upstream_insert AFTER INSERT ON image_activity
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mirror_activity_insert()""",
    """
    CREATE OR REPLACE TRIGGER upstream_update AFTER UPDATE ON image_activity
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mirror_activity_update()""",
    """
    CREATE OR REPLACE TRIGGER upstream_delete AFTER DELETE ON image_activity
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mirror_activity_delete()""",
    """
    CREATE OR REPLACE TRIGGER upstream_off AFTER UPDATE ON profile
    FOR EACH ROW WHEN (OLD.sync_upstream AND NOT NEW.sync_upstream) EXECUTE FUNCTION mirror_stop()""",
    """
    CREATE OR REPLACE TRIGGER upstream_gone AFTER DELETE ON profile
    FOR EACH ROW WHEN (OLD.sync_upstream) EXECUTE FUNCTION mirror_stop()""",
)


def upgrade() -> None:
    """Apply the step."""
    op.create_table(
        "upstream",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("pending", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("parked", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("last_error_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("char_length(endpoint) BETWEEN 1 AND 8192", name=op.f("ck_upstream_endpoint")),
        sa.CheckConstraint("char_length(user_id) BETWEEN 1 AND 255", name=op.f("ck_upstream_user_id")),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_upstream")),
        comment="Where ratings and O counts are mirrored to, and how that goes; profile.sync_upstream turns it on.",
    )
    op.create_table(
        "upstream_key",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("sealed_key", sa.LargeBinary(), nullable=False, comment="encrypted; for this user and endpoint only"),
        sa.Column(
            "attempts", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="of the server, all failed"
        ),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column(
            "parked", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="not tried until re-armed"
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["user_id"], ["upstream.user_id"], name=op.f("fk_upstream_key_upstream"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_upstream_key")),
        comment="What opens a user's upstream server, and whether it is to be tried. Never leaves the primary.",
    )
    op.create_table(
        "upstream_outbox",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.Column("stash_id", sa.Text(), nullable=False, comment="the image's id upstream"),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column(
            "amount",
            sa.Integer(),
            nullable=True,
            comment="the rating; how many O are left to add, or if negative to take",
        ),
        sa.Column(
            "attempts", sa.Integer(), server_default=sa.text("0"), nullable=False, comment="of this row, all failed"
        ),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("lease", sa.Uuid(), nullable=True, comment="who delivers it now, until due_at"),
        sa.Column(
            "parked", sa.Boolean(), server_default=sa.text("false"), nullable=False, comment="not tried until re-armed"
        ),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("failed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("kind IN ('rating', 'o')", name=op.f("ck_upstream_outbox_kind")),
        sa.ForeignKeyConstraint(
            ["user_id"], ["upstream_key.user_id"], name=op.f("fk_upstream_outbox_upstream_key"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("user_id", "id", name=op.f("pk_upstream_outbox")),
        comment="What is still to be told to upstream servers, in order per image. Never leaves the primary.",
    )
    op.create_index(
        "ix_upstream_outbox_due",
        "upstream_outbox",
        ["user_id", "due_at", "id"],
        unique=False,
        postgresql_where=sa.text("NOT parked"),
    )
    op.create_index(
        op.f("ix_upstream_outbox_user_id_image_id_id"), "upstream_outbox", ["user_id", "image_id", "id"], unique=False
    )

    for statement in (*FUNCTIONS, *TRIGGERS):
        op.execute(statement)
