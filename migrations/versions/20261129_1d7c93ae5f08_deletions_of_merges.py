"""Deletions that backends owe a merge, not an erasure: `merged_into` is the contact that the merge kept

Revision ID: 1d7c93ae5f08
Revises: b6e0d47a92c3
"""

from alembic import op

revision = "1d7c93ae5f08"
down_revision = "b6e0d47a92c3"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

_INDEX = "idx_erasure_deletions_merged_into"


def upgrade() -> None:
    op.execute(
        "ALTER TABLE erasure_deletions ADD COLUMN IF NOT EXISTS merged_into uuid, ALTER COLUMN erasure_id DROP NOT NULL"
    )
    with op.get_context().autocommit_block():
        # Waiting for older transactions blocks nobody.
        op.execute("SET lock_timeout = 0")
        op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {_INDEX}")
        op.execute(
            f"CREATE INDEX CONCURRENTLY {_INDEX} ON erasure_deletions (merged_into) WHERE merged_into IS NOT NULL"
        )


def downgrade() -> None:
    # The contacts stay in the outbox, so backends still receive them.
    op.execute("DELETE FROM erasure_deletions WHERE erasure_id IS NULL")
    op.execute("ALTER TABLE erasure_deletions DROP COLUMN IF EXISTS merged_into, ALTER COLUMN erasure_id SET NOT NULL")
