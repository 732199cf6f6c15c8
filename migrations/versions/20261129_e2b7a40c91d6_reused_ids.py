"""A contact that was merged into a deleted one does not lead to the next contact with that one's id

The tombstone of a merged contact names the contact that it was merged into. When that one is deleted and its id is used
again, the new contact is somebody else.

Revision ID: e2b7a40c91d6
Revises: 1d7c93ae5f08
"""

from alembic import op

revision = "e2b7a40c91d6"
down_revision = "1d7c93ae5f08"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

# Deferred, so that a slow transaction does not lock the tombstones of other contacts. One that is locked nevertheless
# is about to be deleted, since its id is used again, too.
_TRIGGER = """
CREATE FUNCTION ctms_unlink_tombstones() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- Later ones were merged into the contact that has the id now.
    UPDATE contact_tombstones SET merged_into = NULL WHERE email_id = ANY (ARRAY(
        SELECT email_id FROM contact_tombstones WHERE merged_into = OLD.email_id AND deleted_at <= OLD.deleted_at
        FOR UPDATE SKIP LOCKED));
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER ctms_unlink_tombstones AFTER DELETE ON contact_tombstones DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION ctms_unlink_tombstones();
"""
# A contact that is younger than the tombstone is not the one that was merged into.
_REPAIR = """
UPDATE contact_tombstones t SET merged_into = NULL
FROM emails e WHERE e.email_id = t.merged_into AND e.create_timestamp > t.deleted_at
"""


def upgrade() -> None:
    op.execute(_REPAIR)
    op.execute(_TRIGGER)


def downgrade() -> None:
    op.execute("DROP TRIGGER ctms_unlink_tombstones ON contact_tombstones")
    op.execute("DROP FUNCTION ctms_unlink_tombstones")
