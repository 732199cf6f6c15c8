"""Stored documents of contacts, and triggers that note which ones other writers have outdated

Revision ID: 4f9d27b6c1e8
Revises: a7c3e90b5d18
"""

from alembic import op

revision = "4f9d27b6c1e8"
down_revision = "a7c3e90b5d18"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

_LISTS = ("newsletters", "waitlists")
_SUB_DOCUMENTS = ("amo", "fxa", "mofo")

# A writer of ours sets it for its transaction: it gives each contact that it changes a new `update_timestamp`.
_IS_FOREIGN = "current_setting('ctms.stamps', true) IS DISTINCT FROM 'on'"

# Writers of other software need not have the tables in their `search_path`: a restore of data has none.
# No foreign key to `emails` from the notes: a writer of other software would wait for writers of ours, and fail when
# the contact is gone. No unique key: it would wait for the next one who changes the contact.
_TABLES = """
CREATE TABLE contact_documents (
    email_id uuid PRIMARY KEY REFERENCES emails ON UPDATE CASCADE ON DELETE CASCADE,
    update_timestamp timestamptz NOT NULL,
    format varchar(20) NOT NULL,
    version bigint NOT NULL,
    document text NOT NULL
);

CREATE TABLE outdated_documents (email_id uuid NOT NULL);
CREATE INDEX idx_outdated_documents_contact ON outdated_documents (email_id);

CREATE TABLE document_progress (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    format varchar(20) NOT NULL,
    moment timestamptz NOT NULL,
    email_id uuid NOT NULL
);

CREATE FUNCTION ctms_outdate_document() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO outdated_documents (email_id) VALUES (NEW.email_id);
    IF TG_OP = 'UPDATE' AND NEW.email_id <> OLD.email_id THEN
        INSERT INTO outdated_documents (email_id) VALUES (OLD.email_id);
    END IF;
    RETURN NULL;
END $$;

-- With the contact goes what is noted of it. The rows of its other tables are deleted before.
CREATE FUNCTION ctms_forget_outdated_documents() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        DELETE FROM outdated_documents;
    ELSE
        DELETE FROM outdated_documents WHERE email_id = ANY (ARRAY(SELECT email_id FROM deleted));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_forget_outdated_documents AFTER DELETE ON emails REFERENCING OLD TABLE AS deleted
FOR EACH STATEMENT EXECUTE FUNCTION ctms_forget_outdated_documents();
CREATE TRIGGER ctms_forget_outdated_documents_of_all AFTER TRUNCATE ON emails
FOR EACH STATEMENT EXECUTE FUNCTION ctms_forget_outdated_documents();

-- Not at the deletion of a contact, which deletes its document: the foreign key deletes these rows after it.
CREATE FUNCTION ctms_outdate_document_of_removed() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO outdated_documents (email_id) SELECT email_id FROM emails WHERE email_id = OLD.email_id;
    RETURN NULL;
END $$;
"""


def _triggers(table: str) -> str:
    return f"""
CREATE TRIGGER ctms_outdate_document AFTER INSERT OR UPDATE ON {table} FOR EACH ROW
WHEN ({_IS_FOREIGN}) EXECUTE FUNCTION ctms_outdate_document();
"""


def _triggers_of_part(table: str) -> str:
    return f"""
CREATE TRIGGER ctms_outdate_document_of_removed AFTER DELETE ON {table} FOR EACH ROW
WHEN ({_IS_FOREIGN}) EXECUTE FUNCTION ctms_outdate_document_of_removed();

CREATE FUNCTION ctms_outdate_documents_of_{table}() RETURNS trigger LANGUAGE plpgsql
SET search_path FROM CURRENT AS $$
BEGIN
    INSERT INTO outdated_documents (email_id) SELECT DISTINCT email_id FROM {table};
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_outdate_documents BEFORE TRUNCATE ON {table} FOR EACH STATEMENT
EXECUTE FUNCTION ctms_outdate_documents_of_{table}();
"""


def upgrade() -> None:
    # The order in which writers lock these tables: a different one could deadlock with them.
    op.execute("LOCK TABLE emails, amo, fxa, mofo, newsletters, waitlists IN SHARE ROW EXCLUSIVE MODE")
    op.execute(_TABLES)
    op.execute(_triggers("emails"))
    for table in (*_SUB_DOCUMENTS, *_LISTS):
        op.execute(_triggers(table) + _triggers_of_part(table))


def downgrade() -> None:
    op.execute(
        """
        DROP TRIGGER ctms_outdate_document ON emails;
        DROP TRIGGER ctms_forget_outdated_documents ON emails;
        DROP TRIGGER ctms_forget_outdated_documents_of_all ON emails;
        """
    )
    for table in (*_SUB_DOCUMENTS, *_LISTS):
        op.execute(
            f"""
            DROP TRIGGER ctms_outdate_document ON {table};
            DROP TRIGGER ctms_outdate_document_of_removed ON {table};
            DROP TRIGGER ctms_outdate_documents ON {table};
            DROP FUNCTION ctms_outdate_documents_of_{table};
            """
        )
    op.execute(
        """
        DROP FUNCTION ctms_outdate_document, ctms_outdate_document_of_removed, ctms_forget_outdated_documents;
        DROP TABLE document_progress, outdated_documents, contact_documents;
        """
    )
