"""The number of other contacts with an erased address as their account address

Revision ID: 9d2f6e8d3a05
Revises: 8b1e5d7c2f94
"""

from alembic import op

revision = "9d2f6e8d3a05"
down_revision = "8b1e5d7c2f94"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE erasures ADD COLUMN also_known_in integer")


def downgrade() -> None:
    op.execute("ALTER TABLE erasures DROP COLUMN also_known_in")
