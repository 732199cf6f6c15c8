"""Pending deletions of backends for erasures

Revision ID: 8b1e5d7c2f94
Revises: 6f804dab2c43
"""

from alembic import op

revision = "8b1e5d7c2f94"
down_revision = "6f804dab2c43"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE erasure_backends (
    erasure_id uuid NOT NULL REFERENCES erasures ON DELETE CASCADE,
    backend varchar(63) NOT NULL,
    pending integer NOT NULL,
    done integer NOT NULL,
    parked integer NOT NULL,
    reason text,
    started_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (erasure_id, backend)
);
CREATE INDEX idx_erasure_backends_open ON erasure_backends (backend, started_at) WHERE pending > 0 OR parked > 0;

CREATE TABLE erasure_deletions (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erasure_id uuid NOT NULL,
    backend varchar(63) NOT NULL,
    email_id uuid NOT NULL,
    parked boolean NOT NULL,
    FOREIGN KEY (erasure_id, backend) REFERENCES erasure_backends ON DELETE CASCADE
);
CREATE INDEX idx_erasure_deletions_contact ON erasure_deletions (backend, email_id);
CREATE INDEX idx_erasure_deletions_erasure ON erasure_deletions (erasure_id, backend, email_id);
ALTER TABLE erasure_deletions SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);
"""

DOWNGRADE = "DROP TABLE erasure_deletions, erasure_backends;"


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
