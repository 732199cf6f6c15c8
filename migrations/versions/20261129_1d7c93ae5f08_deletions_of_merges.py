"""Deletions that backends owe a merge, not an erasure: `merged_into` is the contact that the merge kept

And an index that finds the erasures that follow others. The indexes are built CONCURRENTLY, which blocks no writer. An
upgrade that was interrupted builds them anew.

Revision ID: 1d7c93ae5f08
Revises: b6e0d47a92c3
"""

from alembic import op

revision = "1d7c93ae5f08"
down_revision = "b6e0d47a92c3"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

_INDEXES = {
    "idx_erasure_deletions_merged_into": "erasure_deletions (merged_into) WHERE merged_into IS NOT NULL",
    "idx_erasures_follows": "erasures USING gin (follows) WHERE follows IS NOT NULL",
}


def upgrade() -> None:
    op.execute(
        "ALTER TABLE erasure_deletions ADD COLUMN IF NOT EXISTS merged_into uuid, ALTER COLUMN erasure_id DROP NOT NULL"
    )
    with op.get_context().autocommit_block():
        # Waiting for older transactions blocks nobody.
        op.execute("SET lock_timeout = 0")
        for name, what in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {what}")


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS idx_erasures_follows")
    # The contacts stay in the outbox, so backends still receive them.
    op.execute("DELETE FROM erasure_deletions WHERE erasure_id IS NULL")
    op.execute("ALTER TABLE erasure_deletions DROP COLUMN IF EXISTS merged_into, ALTER COLUMN erasure_id SET NOT NULL")
