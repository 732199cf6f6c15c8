"""Since when a backend has been told of every contact, and when a backend or handler last failed

Revision ID: bf408da25c27
Revises: ae3f7c914b16
"""

from alembic import op

revision = "bf408da25c27"
down_revision = "ae3f7c914b16"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Of a backend that an earlier version knew nobody knows whether it has every contact: the time is not set.
    op.execute(
        "ALTER TABLE receivers ADD COLUMN synchronised_at timestamp with time zone,"
        " ADD COLUMN last_error_at timestamp with time zone"
    )


def downgrade() -> None:
    op.execute("ALTER TABLE receivers DROP COLUMN synchronised_at, DROP COLUMN last_error_at")
