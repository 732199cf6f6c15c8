"""Exports of contacts over the API

Revision ID: a7c3e90b5d18
Revises: f71c04ad9e36
"""

from alembic import op

revision = "a7c3e90b5d18"
down_revision = "f71c04ad9e36"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE exports (
            id uuid PRIMARY KEY,
            requested_at timestamptz NOT NULL,
            requested_by text NOT NULL,
            format varchar(20) NOT NULL,
            request json,
            attempts integer NOT NULL DEFAULT 0,
            started_at timestamptz,
            finished_at timestamptz,
            expires_at timestamptz,
            contacts bigint,
            manifest json,
            problem text
        );
        CREATE INDEX idx_exports_unfinished ON exports (requested_at) WHERE finished_at IS NULL;
        CREATE INDEX idx_exports_stored ON exports (expires_at) WHERE request IS NOT NULL;

        UPDATE permissions SET description = 'Export all data about a person, or all contacts'
        WHERE name = 'export_contacts' AND description = 'Export all data about a person';
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE exports")
