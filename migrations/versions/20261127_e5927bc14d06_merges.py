"""The permission to merge contacts, the origin of events that a merge has moved, and the addresses that it has dropped

Revision ID: e5927bc14d06
Revises: d1a63f0c7e49
"""

from alembic import op

revision = "e5927bc14d06"
down_revision = "d1a63f0c7e49"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"


def upgrade() -> None:
    op.execute(
        """
        ALTER TABLE subscription_events ADD COLUMN merged_from uuid;

        CREATE TABLE merged_addresses (
            fingerprint bytea NOT NULL,
            email_id uuid NOT NULL REFERENCES emails ON DELETE CASCADE,
            PRIMARY KEY (fingerprint, email_id)
        );
        CREATE INDEX idx_merged_addresses_contact ON merged_addresses (email_id);

        INSERT INTO permissions (name, description) VALUES
            ('merge_contacts', 'Merge duplicate contacts')
        ON CONFLICT (name) DO NOTHING;
        INSERT INTO role_permissions (role_id, permission_id)
        SELECT roles.id, permissions.id FROM roles, permissions
        WHERE roles.name = 'admin' AND permissions.name = 'merge_contacts'
        ON CONFLICT DO NOTHING;
        """
    )


def downgrade() -> None:
    op.execute("DROP TABLE merged_addresses")
    op.execute("ALTER TABLE subscription_events DROP COLUMN merged_from")
