"""Results of requests with an Idempotency-Key, and evidence of several contacts in one statement

Revision ID: f71c04ad9e36
Revises: a7d2c95e8b13
"""

from alembic import op

revision = "f71c04ad9e36"
down_revision = "a7d2c95e8b13"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

_ACTOR = "nullif(current_setting('ctms.actor', true), '')"
_REQUEST = "nullif(current_setting('ctms.request_id', true), '')"


def _evidence(key: str) -> str:
    """Return the evidence in the setting of the transaction under a key, as text, or NULL."""
    setting = "current_setting('ctms.evidence', true)"
    return f"nullif(split_part(split_part({setting}, E'\\x01{key}\\x02', 2), E'\\x01', 1), '')"


def _record(table: str, kind: str, *, by_contact: bool) -> str:
    """Return the function of the triggers for new and changed entries.

    A statement that writes entries of several contacts sets the evidence under the contact and the name. Every other
    sets it under the name only, as do all of earlier versions.
    """
    of_any = _evidence(f"{table} ' || to_json(NEW.name)::text || E'")
    of_contact = _evidence(f"{table} ' || NEW.email_id || ' ' || to_json(NEW.name)::text || E'")
    evidence = f"coalesce({of_contact}, {of_any})" if by_contact else of_any
    moved = "ROW(NEW.email_id, NEW.name) IS DISTINCT FROM ROW(OLD.email_id, OLD.name)"
    return f"""
CREATE OR REPLACE FUNCTION ctms_record_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    evidence jsonb := {evidence}::jsonb;
BEGIN
    INSERT INTO subscription_events
        (email_id, kind, name, action, subscribed, source, reason, actor, request_id, evidence)
    VALUES (
        NEW.email_id, '{kind}', NEW.name,
        CASE
            WHEN TG_OP = 'UPDATE' AND coalesce(NEW.subscribed, true) = coalesce(OLD.subscribed, true)
                AND (evidence IS NOT NULL OR NOT {moved}) THEN 'changed'
            WHEN coalesce(NEW.subscribed, true) THEN 'subscribed'
            ELSE 'unsubscribed'
        END,
        coalesce(NEW.subscribed, true), NEW.source, NEW.unsub_reason, {_ACTOR}, {_REQUEST}, evidence);
    RETURN NULL;
END $$;
"""


def upgrade() -> None:
    op.execute(
        """
        CREATE TABLE idempotency_keys (
            client_id varchar(255) NOT NULL REFERENCES api_client ON DELETE CASCADE,
            key bytea NOT NULL,
            digest bytea NOT NULL,
            created_at timestamptz NOT NULL,
            response text,
            PRIMARY KEY (client_id, key)
        );
        CREATE INDEX idx_idempotency_keys_created_at ON idempotency_keys (created_at);
        """
    )
    op.execute(_record("newsletters", "newsletter", by_contact=True))
    op.execute(_record("waitlists", "waitlist", by_contact=True))


def downgrade() -> None:
    op.execute(_record("newsletters", "newsletter", by_contact=False))
    op.execute(_record("waitlists", "waitlist", by_contact=False))
    op.execute("DROP TABLE idempotency_keys")
