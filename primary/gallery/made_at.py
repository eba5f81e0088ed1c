"""Triggers that keep an image's ``created_at`` as it is, and known to the rows that hang on the image.

A replica reads "favourites, the newest first" from one index, and an index is of one table: so the rows by which
images are chosen carry the image's ``created_at``. It stays right because the image's never changes: there is nothing
to be carried over, and so no order of commits in which it could be missed.
"""

from __future__ import annotations

import sqlalchemy as sa

from primary.gallery.touch import on_create

FUNCTIONS = {
    "keep_created_at": """
        CREATE OR REPLACE FUNCTION keep_created_at() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'created_at of % is when it was made, and does not change', TG_TABLE_NAME
                USING ERRCODE = 'check_violation', TABLE = TG_TABLE_NAME, CONSTRAINT = 'created_at';
        END $$""",
    # The foreign key looks at the end of the statement, and the image may be there by then: made by a later part of
    # it, or committed meanwhile. So what is not there now is refused here. (With its schema: triggers write with no
    # search_path.)
    "take_image_created_at": """
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
        END $$""",
}
"""By name."""


def keeps_created_at(table: sa.Table) -> None:
    """Refuse every change of a row's ``created_at``."""
    on_create(
        table,
        FUNCTIONS["keep_created_at"],
        f"CREATE TRIGGER keep_created_at BEFORE UPDATE ON {table.name} FOR EACH ROW "
        "WHEN (OLD.created_at IS DISTINCT FROM NEW.created_at) EXECUTE FUNCTION keep_created_at()",
    )


def takes_image_created_at(table: sa.Table) -> None:
    """Give each row the ``created_at`` of its image as ``image_created_at``; a writer's own value is not taken."""
    on_create(
        table,
        FUNCTIONS["take_image_created_at"],
        f"CREATE TRIGGER take_image_created_at BEFORE INSERT OR UPDATE OF user_id, image_id, image_created_at "
        f"ON {table.name} FOR EACH ROW EXECUTE FUNCTION take_image_created_at()",
    )
