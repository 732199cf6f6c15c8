"""The time of the last push of contacts that `outbox_mirrored` does not list

Revision ID: ae3f7c914b16
Revises: 9d2f6e8d3a05
"""

from alembic import op

revision = "ae3f7c914b16"
down_revision = "9d2f6e8d3a05"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE receivers ADD COLUMN unlisted_at timestamp with time zone")
    # It is unknown what was pushed to these while they wanted all contacts.
    op.execute("UPDATE receivers SET unlisted_at = clock_timestamp() WHERE kind = 'backend'")


def downgrade() -> None:
    op.execute("ALTER TABLE receivers DROP COLUMN unlisted_at")
