"""The upstream mirror's tables, and the triggers that fill its outbox.

A user who turns `profile.sync_upstream` on and names a server has their ratings and O counts told to it. What is to be
told is written into the outbox by the transaction that makes the change, whoever makes it, and by nothing else:

- a *rating* is told as it is then; of several that wait for one image only the last counts;
- a change of ``o_count`` is told as so many increments, or decrements, each by a call of its own. The counter is
  followed, not its events: deleting an image takes its events along and is no decrement;
- a deleted image takes along what of it still waits, parked or not;
- an image is known upstream by ``meta.stash_id`` (text or number). Without one, nothing is written down for it.

`upstream` is synced: it is what the user sees. `upstream_key` and `upstream_outbox` stay in the primary. Whoever locks
rows of more than one of these takes them in the order head, `upstream_key`, `upstream_outbox`; the triggers come after
those of capture for that reason (they run in the order of their names).
"""

from __future__ import annotations

import sqlalchemy as sa

from primary.declaration import synced
from primary.gallery import limits
from primary.gallery.columns import count, length, moment, owner, text, user_is_named


def declare_upstream(metadata: sa.MetaData) -> None:
    """Declare the tables in ``metadata``, and the triggers on its `profile`, `image` and `image_activity`."""
    none = sa.text("0")
    no = sa.text("false")
    sa.Table(
        "upstream",
        metadata,
        owner(),
        sa.Column("endpoint", sa.Text, nullable=False),
        count("pending"),
        count("parked"),
        text("last_error"),
        sa.Column("last_error_at", sa.DateTime(timezone=True)),
        user_is_named(),
        length("endpoint", 1, limits.URL_MAX_CHARS),
        comment="Where ratings and O counts are mirrored to, and how that goes; profile.sync_upstream turns it on.",
        info=synced(owner="user_id"),
    )
    sa.Table(
        "upstream_key",
        metadata,
        owner(),
        sa.Column("sealed_key", sa.LargeBinary, nullable=False, comment="encrypted; for this user and endpoint only"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=none, comment="of the server, all failed"),
        moment("due_at"),
        sa.Column("parked", sa.Boolean, nullable=False, server_default=no, comment="not tried until re-armed"),
        text("error"),
        sa.Column("failed_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["user_id"], ["upstream.user_id"], ondelete="CASCADE"),
        comment="What opens a user's upstream server, and whether it is to be tried. Never leaves the primary.",
    )
    sa.Table(
        "upstream_outbox",
        metadata,
        owner(),
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("image_id", sa.Uuid, nullable=False),
        sa.Column("stash_id", sa.Text, nullable=False, comment="the image's id upstream"),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("amount", sa.Integer, comment="the rating; how many O are left to add, or if negative to take"),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=none, comment="of this row, all failed"),
        moment("due_at"),
        sa.Column("lease", sa.Uuid, comment="who delivers it now, until due_at"),
        sa.Column("parked", sa.Boolean, nullable=False, server_default=no, comment="not tried until re-armed"),
        text("error"),
        sa.Column("failed_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(["user_id"], ["upstream_key.user_id"], ondelete="CASCADE"),
        sa.CheckConstraint("kind IN ('rating', 'o')", name="kind"),
        # Which row of an image is the first, and which ratings a later one has replaced.
        sa.Index(None, "user_id", "image_id", "id"),
        # Who waits, and what is due; it is as large as what waits, so looking costs nothing while nothing does.
        sa.Index("ix_upstream_outbox_due", "user_id", "due_at", "id", postgresql_where=sa.text("NOT parked")),
        comment="What is still to be told to upstream servers, in order per image. Never leaves the primary.",
    )
    # Made last: the functions look at tables that others depend on, the triggers at tables that are declared before.
    for statement in [*FUNCTIONS, *TRIGGERS]:
        ddl = sa.DDL(statement.replace("%", "%%"))  # type: ignore[no-untyped-call]
        sa.event.listen(metadata, "after_create", ddl)


_ROWS = {
    "insert": "SELECT 1 AS sign, n.user_id, n.image_id, n.rating, n.o_count FROM new_rows AS n",
    "delete": "SELECT -1 AS sign, o.user_id, o.image_id, o.rating, o.o_count FROM old_rows AS o",
}
_ROWS["update"] = f"{_ROWS['insert']}\n        UNION ALL {_ROWS['delete']}"
_TRANSITIONS = {
    "insert": "NEW TABLE AS new_rows",
    "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "OLD TABLE AS old_rows",
}


def _record(event: str) -> str:
    """Give the function that writes down what a statement on `image_activity` changed.

    Without a row, an image has no rating and no O: a row that appears or goes is a change from or to that. It must
    never fail or hold up who writes. So it takes the key's row FOR KEY SHARE, which only waits for someone who is
    just deleting it, and makes no row for one that is gone by then.
    """
    return f"""
CREATE OR REPLACE FUNCTION mirror_activity_{event}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
AS $mirror$
BEGIN
  IF NOT EXISTS (SELECT FROM public.upstream_key) THEN
    RETURN NULL;  -- nobody mirrors anything
  END IF;
  INSERT INTO public.upstream_outbox (user_id, image_id, stash_id, kind, amount)
  SELECT c.user_id, c.image_id, c.stash_id #>> '{{}}', v.kind, v.amount
  FROM (
    -- Looked up row by row, never joined: a join could read all images of the user for one.
    SELECT g.*, CASE WHEN (SELECT p.sync_upstream FROM public.profile AS p WHERE p.user_id = g.user_id)
      THEN (SELECT i.meta -> 'stash_id' FROM public.image AS i WHERE i.user_id = g.user_id AND i.id = g.image_id)
      END AS stash_id
    FROM (
      SELECT r.user_id, r.image_id, max(r.rating) FILTER (WHERE r.sign > 0) AS rating,
        max(r.rating) FILTER (WHERE r.sign < 0) AS rating_before, sum(r.sign * r.o_count)::integer AS o
      FROM (
        {_ROWS[event]}
      ) AS r GROUP BY r.user_id, r.image_id
    ) AS g WHERE g.o <> 0 OR g.rating IS DISTINCT FROM g.rating_before OFFSET 0
  ) AS c
  CROSS JOIN LATERAL (VALUES ('rating', c.rating::integer, c.rating IS DISTINCT FROM c.rating_before),
    ('o', c.o, c.o <> 0)) AS v (kind, amount, changed)
  JOIN public.upstream_key AS k ON k.user_id = c.user_id
  WHERE v.changed AND jsonb_typeof(c.stash_id) IN ('string', 'number')
    AND char_length(c.stash_id #>> '{{}}') BETWEEN 1 AND {limits.NAME_MAX_CHARS}
  FOR KEY SHARE OF k;
  RETURN NULL;
END $mirror$"""


_STOP = """
CREATE OR REPLACE FUNCTION mirror_stop() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $mirror$
BEGIN
  -- Off means that nothing more is told; what waited would be stale by the time that it is on again.
  DELETE FROM public.upstream_outbox WHERE user_id = OLD.user_id;
  RETURN NULL;
END $mirror$"""

_FORGET = """
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

FUNCTIONS = [*(_record(event) for event in _TRANSITIONS), _STOP, _FORGET]

TRIGGERS = [
    *(
        f"CREATE OR REPLACE TRIGGER upstream_{event} AFTER {event.upper()} ON image_activity "
        f"REFERENCING {rows} FOR EACH STATEMENT EXECUTE FUNCTION mirror_activity_{event}()"
        for event, rows in _TRANSITIONS.items()
    ),
    """
    CREATE OR REPLACE TRIGGER upstream_off AFTER UPDATE ON profile FOR EACH ROW
    WHEN (OLD.sync_upstream AND NOT NEW.sync_upstream) EXECUTE FUNCTION mirror_stop()""",
    """
    CREATE OR REPLACE TRIGGER upstream_gone AFTER DELETE ON profile FOR EACH ROW
    WHEN (OLD.sync_upstream) EXECUTE FUNCTION mirror_stop()""",
    # No foreign key: its check would let who rates an image wait for who deletes it, and that one for the rating.
    """
    CREATE OR REPLACE TRIGGER upstream_forget AFTER DELETE ON image REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION mirror_forget()""",
]
