"""Rate limits of API clients, and the buckets from which processes lease tokens

The buckets are not logged: a crash of the server empties the table, and each client then has a full bucket again.

Revision ID: a4c83d17e90b
Revises: f1a60c8d4e27
"""

from alembic import op

revision = "a4c83d17e90b"
down_revision = "f1a60c8d4e27"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE api_client
            ADD COLUMN rate_limit_requests integer,
            ADD COLUMN rate_limit_seconds integer,
            ADD COLUMN rate_limit_burst integer;

        CREATE UNLOGGED TABLE rate_limit_buckets (
            client_id varchar(255) PRIMARY KEY REFERENCES api_client ON DELETE CASCADE,
            tokens double precision NOT NULL,
            granted integer NOT NULL,
            refilled_at timestamptz NOT NULL
        );
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE rate_limit_buckets")
    op.execute(
        """
        ALTER TABLE api_client
            DROP COLUMN rate_limit_burst, DROP COLUMN rate_limit_seconds, DROP COLUMN rate_limit_requests
        """
    )
