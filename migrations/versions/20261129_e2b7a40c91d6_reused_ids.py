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

_FUNCTIONS = """
CREATE OR REPLACE FUNCTION ctms_remove_tombstone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM contact_tombstones WHERE email_id = NEW.email_id;
    IF FOUND THEN
        {unlink}
        -- The deleted contact may have had the other value of mofo_relevant, and its tombstone no longer says so.
        INSERT INTO mofo_relevance_changes (email_id, changed_at) VALUES (NEW.email_id, clock_timestamp())
        ON CONFLICT (email_id) DO UPDATE SET changed_at = excluded.changed_at;
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION ctms_record_new_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE subscription_events SET email_id = NEW.email_id WHERE email_id = OLD.email_id;
    DELETE FROM contact_tombstones WHERE email_id = NEW.email_id;
    {unlink}
    INSERT INTO contact_tombstones (email_id, deleted_at) VALUES (OLD.email_id, clock_timestamp())
    ON CONFLICT (email_id) DO UPDATE SET deleted_at = excluded.deleted_at, merged_into = NULL;
    RETURN NULL;
END $$;
"""
_UNLINK = "UPDATE contact_tombstones SET merged_into = NULL WHERE merged_into = NEW.email_id;"


def upgrade() -> None:
    op.execute(_FUNCTIONS.format(unlink=_UNLINK))


def downgrade() -> None:
    op.execute(_FUNCTIONS.format(unlink=""))
