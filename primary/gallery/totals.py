"""A trigger that keeps the totals of image_activity in step with the events, whoever writes those.

An event and its total are one statement's effect: neither is there without the other, after a retry, a crash, a bulk
load or a DELETE from psql. The totals are moved by what a statement adds and takes away, and not counted anew, so
that the ten thousandth view costs what the first did. Who writes a total itself (a load of old totals that have no
events) is believed; events move on from there, and never below zero.
"""

from __future__ import annotations

import sqlalchemy as sa

from primary.gallery.touch import on_create

# The triggers of image_activity run within it, and find their tables by the search path.
_FUNCTION = """
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

_SEEN = {
    "insert": "NEW TABLE AS new_rows",
    "update": "OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "OLD TABLE AS old_rows",
}


def total(image_event: sa.Table) -> None:
    """Let every change of the events move the totals. The triggers are created with the table."""
    triggers = (
        f"CREATE TRIGGER total_{event} AFTER {event.upper()} ON {image_event.name} REFERENCING {rows} "
        "FOR EACH STATEMENT EXECUTE FUNCTION total_image_events()"
        for event, rows in _SEEN.items()
    )
    on_create(image_event, _FUNCTION, *triggers)
