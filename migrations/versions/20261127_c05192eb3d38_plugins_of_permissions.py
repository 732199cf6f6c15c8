"""The plugin that declared a permission, so that it can be removed with the plugin's tables

Revision ID: c05192eb3d38
Revises: bf408da25c27
"""

import sqlalchemy as sa
from alembic import op

revision = "c05192eb3d38"
down_revision = "bf408da25c27"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("permissions", sa.Column("plugin", sa.String(255)))


def downgrade() -> None:
    op.drop_column("permissions", "plugin")
