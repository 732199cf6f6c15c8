"""The permission to list contacts in bulk, split from that to view contacts

Each role with `view_contacts` is granted `list_contacts`, too, so that no client loses anything.
The downgrade keeps the permission and its grants, because the older code ignores them. A later upgrade recognizes the
permission by its description, and grants nothing: what was revoked stays revoked.

Revision ID: f1a60c8d4e27
Revises: e5927bc14d06
"""

from alembic import op

revision = "f1a60c8d4e27"
down_revision = "e5927bc14d06"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

DESCRIPTION = "List contacts in bulk"

# A permission of this name that operators created earlier keeps its description, and is granted as a new one.
UPGRADE = f"""
WITH known AS (SELECT id, description FROM permissions WHERE name = 'list_contacts'),
     created AS (
        INSERT INTO permissions (name, description)
        SELECT 'list_contacts', '{DESCRIPTION}' WHERE NOT EXISTS (SELECT FROM known) RETURNING id),
     granted AS (
        SELECT id FROM created
        UNION ALL SELECT id FROM known WHERE description IS DISTINCT FROM '{DESCRIPTION}')
INSERT INTO role_permissions (role_id, permission_id)
SELECT given.role_id, granted.id
FROM granted, role_permissions given JOIN permissions ON permissions.id = given.permission_id
WHERE permissions.name = 'view_contacts'
ON CONFLICT (role_id, permission_id) DO NOTHING;
"""


def upgrade() -> None:
    op.execute(UPGRADE)


def downgrade() -> None:
    pass
