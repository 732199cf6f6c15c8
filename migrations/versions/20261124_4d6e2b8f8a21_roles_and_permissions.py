"""Permissions are checked from now on: seed them, and let every client that exists do what it could

Secrets can be rotated: the one before stays valid for a while.

Revision ID: 4d6e2b8f8a21
Revises: 3c5d1a9e7f10
"""

from alembic import op

revision = "4d6e2b8f8a21"
down_revision = "3c5d1a9e7f10"
branch_labels = None
depends_on = None

# What exists under one of these names stays as it is, with its own description.
UPGRADE = """
DELETE FROM api_client_roles one USING api_client_roles other
WHERE one.id > other.id AND (one.api_client_id, one.role_id) = (other.api_client_id, other.role_id);
DELETE FROM role_permissions one USING role_permissions other
WHERE one.id > other.id AND (one.role_id, one.permission_id) = (other.role_id, other.permission_id);
ALTER TABLE api_client_roles ADD CONSTRAINT uix_api_client_roles UNIQUE (api_client_id, role_id);
ALTER TABLE role_permissions ADD CONSTRAINT uix_role_permissions UNIQUE (role_id, permission_id);

ALTER TABLE api_client
    ADD COLUMN previous_hashed_secret varchar,
    ADD COLUMN previous_secret_expires timestamptz;

INSERT INTO permissions (name, description) VALUES
    ('view_contacts', 'Read contacts and their identities'),
    ('manage_contacts', 'Create, replace and change contacts'),
    ('delete_contacts', 'Delete contacts')
ON CONFLICT (name) DO NOTHING;
INSERT INTO roles (name, description) VALUES
    ('admin', 'Everything'),
    ('editor', 'Reads, creates and changes contacts'),
    ('viewer', 'Reads contacts')
ON CONFLICT (name) DO NOTHING;
INSERT INTO role_permissions (role_id, permission_id)
SELECT roles.id, permissions.id
FROM (VALUES
    ('admin', 'view_contacts'), ('admin', 'manage_contacts'), ('admin', 'delete_contacts'),
    ('editor', 'view_contacts'), ('editor', 'manage_contacts'),
    ('viewer', 'view_contacts')
) AS seed (role, permission)
JOIN roles ON roles.name = seed.role
JOIN permissions ON permissions.name = seed.permission
ON CONFLICT (role_id, permission_id) DO NOTHING;

INSERT INTO api_client_roles (api_client_id, role_id)
SELECT client_id, roles.id FROM api_client, roles WHERE roles.name = 'admin'
ON CONFLICT (api_client_id, role_id) DO NOTHING;
"""

# The rows stay: roles and grants are the operator's by now, and the older service reads the same tables.
DOWNGRADE = """
ALTER TABLE api_client DROP COLUMN previous_secret_expires, DROP COLUMN previous_hashed_secret;
ALTER TABLE role_permissions DROP CONSTRAINT uix_role_permissions;
ALTER TABLE api_client_roles DROP CONSTRAINT uix_api_client_roles;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
