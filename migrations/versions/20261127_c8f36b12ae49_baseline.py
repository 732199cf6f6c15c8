"""The first event of each subscription that is older than its history

It works in batches of contacts, each in a transaction of its own that locks only their rows. If it is interrupted, the
next upgrade continues: an entry with any event gets no baseline.

Revision ID: c8f36b12ae49
Revises: c7e25a019d38
"""

from alembic import op

revision = "c8f36b12ae49"
down_revision = "c7e25a019d38"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

BATCH_SIZE = 1000

# Contacts are locked as writers lock them: otherwise a change could commit between the read and the baseline, which
# would then contradict it.
_BASELINE = f"""
DO $$
DECLARE
    batch uuid[] := ARRAY['00000000-0000-0000-0000-000000000000'::uuid];
BEGIN
    WHILE cardinality(batch) > 0 LOOP
        PERFORM FROM emails WHERE email_id = ANY (batch) ORDER BY email_id FOR NO KEY UPDATE;
        WITH known AS MATERIALIZED (
            SELECT DISTINCT email_id, kind, coalesce(name, '') AS name
            FROM subscription_events WHERE email_id = ANY (batch)),
        entries AS MATERIALIZED (
            SELECT email_id, 'newsletter' AS kind, name, coalesce(subscribed, true) AS subscribed, source,
                unsub_reason AS reason, create_timestamp, update_timestamp
            FROM newsletters WHERE email_id = ANY (batch)
            UNION ALL
            SELECT email_id, 'waitlist', name, subscribed, source, unsub_reason, create_timestamp, update_timestamp
            FROM waitlists WHERE email_id = ANY (batch)
            UNION ALL
            SELECT email_id, 'global_opt_out', NULL, false, NULL, unsubscribe_reason, create_timestamp, update_timestamp
            FROM emails WHERE email_id = ANY (batch) AND has_opted_out_of_email
            UNION ALL
            SELECT email_id, 'double_opt_in', NULL, true, NULL, NULL, create_timestamp, update_timestamp
            FROM emails WHERE email_id = ANY (batch) AND double_opt_in)
        INSERT INTO subscription_events (email_id, kind, name, action, subscribed, source, reason, evidence)
        SELECT email_id, kind, name, 'baseline', subscribed, source, reason,
            jsonb_build_object('create_timestamp', create_timestamp, 'update_timestamp', update_timestamp)
        FROM entries e
        WHERE NOT EXISTS (
            SELECT FROM known k
            WHERE k.email_id = e.email_id AND k.kind = e.kind AND k.name = coalesce(e.name, ''))
        ORDER BY email_id, kind, name;
        COMMIT;
        batch := ARRAY(
            SELECT email_id FROM emails WHERE email_id > batch[cardinality(batch)]
            ORDER BY email_id LIMIT {BATCH_SIZE});
    END LOOP;
END $$;
"""


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute(_BASELINE)


def downgrade() -> None:
    op.execute("DELETE FROM subscription_events WHERE action = 'baseline'")
