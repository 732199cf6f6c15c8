"""The time since when a backend has every contact, and of the last error of a backend or handler

Revision ID: bf408da25c27
Revises: ae3f7c914b16
"""

from alembic import op

revision = "bf408da25c27"
down_revision = "ae3f7c914b16"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # It is unknown whether a backend from an earlier version has every contact: leave the time unset.
    op.execute(
        "ALTER TABLE receivers ADD COLUMN synchronised_at timestamp with time zone,"
        " ADD COLUMN last_error_at timestamp with time zone"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE receivers DROP COLUMN synchronised_at, DROP COLUMN last_error_at")
