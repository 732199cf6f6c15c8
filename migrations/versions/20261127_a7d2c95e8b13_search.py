"""Indexes that find the contacts of a search, and the permission to search

The indexes are built CONCURRENTLY, which blocks no writer. An upgrade that was interrupted builds them anew.

Revision ID: a7d2c95e8b13
Revises: b7d25e90c3f4
"""

from alembic import op

revision = "a7d2c95e8b13"
down_revision = "b7d25e90c3f4"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

# Each ends with `email_id`, the order of pages. Only columns that rarely change: an entry's new values need no new rows
# in them.
INDEXES = {
    "idx_newsletters_name": "newsletters (name, email_id)",
    "idx_waitlists_name": "waitlists (name, email_id)",
    "idx_emails_mailing_country": "emails (lower(mailing_country), email_id)",
    "idx_emails_email_lang": "emails (lower(email_lang), email_id)",
    "idx_emails_create_timestamp": "emails (create_timestamp, email_id)",
    "idx_emails_opted_out": "emails (email_id) WHERE has_opted_out_of_email",
}


def upgrade() -> None:
    op.execute(
        """
        INSERT INTO permissions (name, description) VALUES
            ('search_contacts', 'Search for contacts by condition')
        ON CONFLICT (name) DO NOTHING;
        INSERT INTO role_permissions (role_id, permission_id)
        SELECT roles.id, permissions.id FROM roles, permissions
        WHERE roles.name = 'admin' AND permissions.name = 'search_contacts'
        ON CONFLICT DO NOTHING;
        """
    )
    with op.get_context().autocommit_block():
        # Waiting for older transactions blocks nobody.
        op.execute("SET lock_timeout = 0")
        for name, columns in INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {columns}")
        op.execute("ANALYZE emails")  # the planner has no statistics of the expressions yet


def downgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("SET lock_timeout = 0")
        for name in INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
