"""The earlier erasures that an erasure follows, and an index that finds the contacts merged into one

The index is built CONCURRENTLY, which blocks no writer. An upgrade that was interrupted builds it anew.

Revision ID: b6e0d47a92c3
Revises: 4f9d27b6c1e8
"""

from alembic import op

revision = "b6e0d47a92c3"
down_revision = "4f9d27b6c1e8"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

_INDEX = "idx_contact_tombstones_merged_into"


def upgrade() -> None:
    op.execute("ALTER TABLE erasures ADD COLUMN IF NOT EXISTS follows uuid[]")
    with op.get_context().autocommit_block():
        # Waiting for older transactions blocks nobody.
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {_INDEX} ON contact_tombstones (merged_into) WHERE merged_into IS NOT NULL"
        )


def downgrade() -> None:
    op.execute("ALTER TABLE erasures DROP COLUMN IF EXISTS follows")
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")
