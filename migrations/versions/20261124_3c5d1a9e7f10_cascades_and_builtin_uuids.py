"""Deleting a contact takes its rows along; ids come from PostgreSQL itself

The foreign keys are added NOT VALID and then validated: existing rows are checked without blocking writers.

Revision ID: 3c5d1a9e7f10
Revises: 2b00e4069aea
"""

from alembic import op

revision = "3c5d1a9e7f10"
down_revision = "2b00e4069aea"
branch_labels = None
depends_on = None

TABLES = ("amo", "fxa", "mofo", "newsletters", "waitlists")


def _foreign_keys(on_delete: str) -> None:
    for table in TABLES:
        op.execute(
            f"ALTER TABLE {table} DROP CONSTRAINT {table}_email_id_fkey,"
            f" ADD CONSTRAINT {table}_email_id_fkey FOREIGN KEY (email_id)"
            f" REFERENCES emails (email_id) {on_delete} NOT VALID"
        )
    with op.get_context().autocommit_block():  # commits first: validation holds no lock that stops writers
        for table in TABLES:
            op.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {table}_email_id_fkey")


def upgrade() -> None:
    op.execute("ALTER TABLE emails ALTER COLUMN email_id SET DEFAULT gen_random_uuid()")
    _foreign_keys("ON DELETE CASCADE")


def downgrade() -> None:
    _foreign_keys("")
    op.execute("ALTER TABLE emails ALTER COLUMN email_id SET DEFAULT uuid_generate_v4()")
