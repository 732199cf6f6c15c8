"""Access requests, and the permission to export contacts

Revision ID: d1628a4fe749
Revises: c8f36b12ae49
"""

from alembic import op

revision = "d1628a4fe749"
down_revision = "c8f36b12ae49"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

# The foreign key to `emails` locks that table against writes only for a moment: the new table is empty.
UPGRADE = """
CREATE TABLE access_requests (
    id uuid PRIMARY KEY,
    requested_at timestamptz NOT NULL,
    requested_by text NOT NULL,
    origin varchar(20) NOT NULL,
    contacts integer NOT NULL,
    copies integer NOT NULL,
    failed integer NOT NULL,
    expires_at timestamptz NOT NULL,
    result json
);
CREATE INDEX idx_access_requests_requested_at ON access_requests (requested_at);
CREATE INDEX idx_access_requests_stored ON access_requests (expires_at) WHERE result IS NOT NULL;

CREATE TABLE access_request_contacts (
    request_id uuid NOT NULL REFERENCES access_requests ON DELETE CASCADE,
    email_id uuid NOT NULL REFERENCES emails ON DELETE CASCADE,
    position integer NOT NULL,
    content json NOT NULL,
    PRIMARY KEY (request_id, email_id)
);
CREATE INDEX idx_access_request_contacts_contact ON access_request_contacts (email_id);

CREATE TABLE access_request_copies (
    request_id uuid NOT NULL,
    email_id uuid NOT NULL,
    backend varchar(63) NOT NULL,
    content json,
    PRIMARY KEY (request_id, email_id, backend),
    FOREIGN KEY (request_id, email_id) REFERENCES access_request_contacts ON DELETE CASCADE
);
CREATE INDEX idx_access_request_copies_pending ON access_request_copies (backend) WHERE content IS NULL;

INSERT INTO permissions (name, description) VALUES ('export_contacts', 'Export all data about a person')
ON CONFLICT (name) DO NOTHING;
INSERT INTO role_permissions (role_id, permission_id)
SELECT roles.id, permissions.id FROM roles, permissions
WHERE roles.name = 'admin' AND permissions.name = 'export_contacts'
ON CONFLICT (role_id, permission_id) DO NOTHING;
"""

# Keep the permission, like those before it: it may have been granted.
DOWNGRADE = "DROP TABLE access_request_copies, access_request_contacts, access_requests;"


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
