"""Seed the roles and permissions, which are checked from now on, and grant admin to existing clients

Secrets can be rotated: the previous one stays valid for some time.

Roles are seeded and granted only once per database. A downgrade leaves a marker row in `roles`, which is part of dumps
and fits the previous schema. An upgrade that finds it grants nothing: what was revoked stays revoked, and operators
grant roles to clients that the older service created.

Revision ID: 4d6e2b8f8a21
Revises: 3c5d1a9e7f10
"""

from alembic import op

revision = "4d6e2b8f8a21"
down_revision = "3c5d1a9e7f10"
branch_labels = None
depends_on = None

MARK = "ctms: roles are in use"

# Existing rows of these names keep their descriptions.
UPGRADE = f"""
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
-- `admin` is always there: it has every permission by its name.
INSERT INTO roles (name, description)
SELECT name, description
FROM (VALUES
    ('admin', 'Everything'),
    ('editor', 'Reads, creates and changes contacts'),
    ('viewer', 'Reads contacts')
) AS seed (name, description)
WHERE name = 'admin' OR NOT EXISTS (SELECT FROM roles WHERE name = '{MARK}')
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
WHERE NOT EXISTS (SELECT FROM roles WHERE name = '{MARK}')
ON CONFLICT (role_id, permission_id) DO NOTHING;

INSERT INTO api_client_roles (api_client_id, role_id)
SELECT client_id, roles.id FROM api_client, roles
WHERE roles.name = 'admin' AND NOT EXISTS (SELECT FROM roles WHERE name = '{MARK}')
ON CONFLICT (api_client_id, role_id) DO NOTHING;

DELETE FROM roles WHERE name = '{MARK}';
"""

# Keep the rows: roles and grants may have been changed by operators, and the older service reads the same tables.
DOWNGRADE = f"""
INSERT INTO roles (name, description)
VALUES ('{MARK}', 'Keep this row: with it, the next upgrade grants no roles to API clients.')
ON CONFLICT (name) DO NOTHING;
ALTER TABLE api_client DROP COLUMN previous_secret_expires, DROP COLUMN previous_hashed_secret;
ALTER TABLE role_permissions DROP CONSTRAINT uix_role_permissions;
ALTER TABLE api_client_roles DROP CONSTRAINT uix_api_client_roles;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    op.execute(DOWNGRADE)
