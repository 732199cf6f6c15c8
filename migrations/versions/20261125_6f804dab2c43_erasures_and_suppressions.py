"""Records of erasures, tasks of deletion handlers, and suppressed addresses

Revision ID: 6f804dab2c43
Revises: 5e7f3c9a1b32
"""

from alembic import op

revision = "6f804dab2c43"
down_revision = "5e7f3c9a1b32"
branch_labels = None
depends_on = None

UPGRADE = """
CREATE TABLE erasures (
    id uuid PRIMARY KEY,
    requested_at timestamptz NOT NULL,
    requested_by text NOT NULL,
    origin varchar(20) NOT NULL,
    forget boolean NOT NULL,
    contacts integer NOT NULL,
    unknown integer NOT NULL,
    request_key bytea UNIQUE,
    request_digest bytea
);
CREATE INDEX idx_erasures_requested_at ON erasures (requested_at);

CREATE TABLE erasure_addresses (
    fingerprint bytea NOT NULL,
    erasure_id uuid NOT NULL REFERENCES erasures ON DELETE CASCADE,
    PRIMARY KEY (fingerprint, erasure_id)
);
CREATE INDEX idx_erasure_addresses_erasure ON erasure_addresses (erasure_id);

CREATE TABLE erasure_handlers (
    erasure_id uuid NOT NULL REFERENCES erasures ON DELETE CASCADE,
    handler varchar(63) NOT NULL,
    pending integer NOT NULL,
    done integer NOT NULL,
    verified integer NOT NULL,
    parked integer NOT NULL,
    reason text,
    started_at timestamptz NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (erasure_id, handler)
);
CREATE INDEX idx_erasure_handlers_open ON erasure_handlers (started_at) WHERE pending > 0 OR parked > 0;

CREATE TABLE erasure_tasks (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    erasure_id uuid NOT NULL,
    handler varchar(63) NOT NULL,
    identities jsonb NOT NULL,
    step varchar(10) NOT NULL,
    waiting_since timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    failures integer NOT NULL,
    parked_at timestamptz,
    reason text,
    FOREIGN KEY (erasure_id, handler) REFERENCES erasure_handlers ON DELETE CASCADE
);
CREATE INDEX idx_erasure_tasks_due ON erasure_tasks (handler, due_at) WHERE parked_at IS NULL;
CREATE INDEX idx_erasure_tasks_waiting ON erasure_tasks (handler, waiting_since) WHERE parked_at IS NULL;
CREATE INDEX idx_erasure_tasks_parked ON erasure_tasks (handler) WHERE parked_at IS NOT NULL;
CREATE INDEX idx_erasure_tasks_erasure ON erasure_tasks (erasure_id, handler);
ALTER TABLE erasure_tasks SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000);

CREATE TABLE suppressions (
    fingerprint bytea PRIMARY KEY,
    suppressed_at timestamptz NOT NULL,
    source varchar(20) NOT NULL
);

INSERT INTO permissions (name, description) VALUES ('view_erasures', 'Read the records of erasures')
ON CONFLICT (name) DO NOTHING;
INSERT INTO role_permissions (role_id, permission_id)
SELECT roles.id, permissions.id FROM roles, permissions
WHERE roles.name = 'admin' AND permissions.name = 'view_erasures'
ON CONFLICT (role_id, permission_id) DO NOTHING;
"""

# Keep the permission, like those before it: it may have been granted.
DOWNGRADE = "DROP TABLE suppressions, erasure_tasks, erasure_handlers, erasure_addresses, erasures;"


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
