"""The client's ids of o events that were taken back are kept: a late report of one does not count again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply the step."""
    op.create_table(
        "event_taken_back",
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("client_event_id", sa.Text(), nullable=False),
        sa.Column("image_id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id", "image_id"],
            ["image.user_id", "image.id"],
            name=op.f("fk_event_taken_back_image"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("user_id", "client_event_id", name=op.f("pk_event_taken_back")),
        comment="The client's ids of o events that were taken back: a late report of one does not count it again.",
    )
    op.create_index(op.f("ix_event_taken_back_image_id_user_id"), "event_taken_back", ["image_id", "user_id"])
