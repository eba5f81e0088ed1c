"""A trigger that keeps the history of edits: who changed which field of an image from what to what, and when.

It tells for every writer. The gateway's writes name their user (`primary.write.ACTOR`); of other sessions the role is
told, as in `sql:postgres`. Only what differs is told, and not what follows from an edit (`updated_at`, `row_version`).
"""

from __future__ import annotations

import sqlalchemy as sa

from primary.gallery.touch import on_create

# Without nested loops: a session keeps the plan of its first statement, made for one row, and a bulk edit has many.
# The time is that of the statement, so that the edits of one are told together, and those of one transaction stay in
# order.
_FUNCTION = """
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

_TRIGGER = """
CREATE TRIGGER tell_edits AFTER UPDATE ON {} REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
FOR EACH STATEMENT EXECUTE FUNCTION tell_image_edits()"""


def tell_edits(image: sa.Table) -> None:
    """Let every edit of an image be told in image_edit. The trigger is created with the table."""
    on_create(image, _FUNCTION, _TRIGGER.format(image.name))
