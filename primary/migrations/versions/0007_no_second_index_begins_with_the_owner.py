"""Only the key's index begins with the owner: another could be mistaken for one that finds a row by its key."""

from __future__ import annotations

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_COLUMNS = {
    "album": "cover_image_id",
    "album_image": "image_id",
    "image_edit": "image_id",
    "image_event": "image_id",
}


def upgrade() -> None:
    """Apply the step."""
    for table, column in _COLUMNS.items():
        op.create_index(op.f(f"ix_{table}_{column}_user_id"), table, [column, "user_id"])
        op.drop_index(op.f(f"ix_{table}_user_id_{column}"), table)
