"""The job queue (Procrastinate's own schema) and the outbox for backends

Revision ID: 5e7f3c9a1b32
Revises: 4d6e2b8f8a21
"""

from pathlib import Path

import sqlalchemy as sa
from alembic import op

revision = "5e7f3c9a1b32"
down_revision = "4d6e2b8f8a21"
branch_labels = None
depends_on = None

# The schema of Procrastinate 3.10, copied here so that this revision always creates the same tables. A newer
# Procrastinate with other tables gets its own revision, made from the migrations that it ships.
JOBS = Path(__file__).parent.parent / "procrastinate-3.10.sql"

UPGRADE = """
CREATE TABLE outbox (
    backend varchar(63) NOT NULL,
    email_id uuid NOT NULL,
    version bigint NOT NULL,
    priority smallint NOT NULL,
    waiting_since timestamptz NOT NULL,
    due_at timestamptz NOT NULL,
    attempts integer NOT NULL,
    failures integer NOT NULL,
    parked_at timestamptz,
    reason text,
    PRIMARY KEY (backend, email_id)
);
CREATE INDEX idx_outbox_due ON outbox (backend, priority DESC, due_at) WHERE parked_at IS NULL;
CREATE INDEX idx_outbox_waiting ON outbox (backend, waiting_since) WHERE parked_at IS NULL;
CREATE INDEX idx_outbox_parked ON outbox (backend, reason, email_id) WHERE parked_at IS NOT NULL;

CREATE TABLE outbox_mirrored (
    backend varchar(63) NOT NULL,
    email_id uuid NOT NULL,
    PRIMARY KEY (backend, email_id)
);

CREATE TABLE receivers (
    kind varchar(20) NOT NULL,
    name varchar(63) NOT NULL,
    paused_at timestamptz,
    paused_why text,
    failures integer NOT NULL,
    open_until timestamptz,
    next_call_at timestamptz,
    last_error text,
    last_success_at timestamptz,
    PRIMARY KEY (kind, name)
);

-- Rows that come and go all the time: clean up behind them early. Room on the pages of
-- `outbox`: an edit of a contact that waits changes no index, and its new row fits beside the old one.
ALTER TABLE outbox SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, fillfactor = 70);
ALTER TABLE procrastinate_jobs SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000);
"""

DOWNGRADE = """
DROP TABLE receivers, outbox_mirrored, outbox;
DROP TABLE procrastinate_events, procrastinate_periodic_defers, procrastinate_jobs, procrastinate_workers CASCADE;
DO $$
DECLARE one regprocedure;
BEGIN
    FOR one IN SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.proname LIKE 'procrastinate\\_%' AND p.pronamespace = current_schema()::regnamespace
    LOOP
        EXECUTE 'DROP FUNCTION ' || one || ' CASCADE';
    END LOOP;
END $$;
DROP TYPE procrastinate_job_to_defer_v1;
DROP TYPE procrastinate_job_event_type;
DROP TYPE procrastinate_job_status;
"""


def upgrade() -> None:
    op.execute(sa.text(JOBS.read_text(encoding="utf-8").replace(":", r"\:")))
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(sa.text(DOWNGRADE.replace(":", r"\:")))
