"""The audit log: administrative acts, which can be added but not changed

The downgrade drops it with all its entries.

Revision ID: b7d25e90c3f4
Revises: a4c83d17e90b
"""

from alembic import op

revision = "b7d25e90c3f4"
down_revision = "a4c83d17e90b"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE audit_log (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
            actor text NOT NULL,
            action varchar(100) NOT NULL,
            target text,
            details jsonb NOT NULL
        );

        CREATE FUNCTION ctms_keep_audit_log() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'the audit log is append-only' USING ERRCODE = 'insufficient_privilege';
        END $$;
        CREATE TRIGGER ctms_keep_audit_log BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_log
        FOR EACH STATEMENT EXECUTE FUNCTION ctms_keep_audit_log();
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE audit_log")
    op.execute("DROP FUNCTION ctms_keep_audit_log()")
