"""The history of subscriptions, and the deletions of contacts, both recorded by triggers

Revision ID: c7e25a019d38
Revises: c05192eb3d38
"""

from alembic import op

revision = "c7e25a019d38"
down_revision = "c05192eb3d38"
branch_labels = None
depends_on = None

oldest_compatible = "unchanged"

# The caller of a writer, from the settings of its transaction; NULL for a writer that sets none.
_ACTOR = "nullif(current_setting('ctms.actor', true), '')"
_REQUEST = "nullif(current_setting('ctms.request_id', true), '')"

# The order in which writers lock these tables: a different one could deadlock with them.
_TABLES = """
LOCK TABLE emails, mofo, newsletters, waitlists IN SHARE ROW EXCLUSIVE MODE;

CREATE SEQUENCE subscription_events_event_id_seq;
CREATE TABLE subscription_events (
    event_id bigint NOT NULL DEFAULT nextval('subscription_events_event_id_seq'),
    recorded_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    email_id uuid NOT NULL,
    kind varchar(20) NOT NULL,
    name varchar(255),
    action varchar(20) NOT NULL,
    subscribed boolean,
    source text,
    reason text,
    actor text,
    request_id text,
    evidence jsonb,
    PRIMARY KEY (recorded_at, event_id)
) PARTITION BY RANGE (recorded_at);
ALTER SEQUENCE subscription_events_event_id_seq OWNED BY subscription_events.event_id;
CREATE INDEX idx_subscription_events_contact ON subscription_events (email_id, recorded_at, event_id);
CREATE TABLE subscription_events_default PARTITION OF subscription_events DEFAULT;

CREATE TABLE contact_tombstones (
    email_id uuid PRIMARY KEY,
    deleted_at timestamptz NOT NULL,
    merged_into uuid
);
CREATE INDEX idx_contact_tombstones_deleted_at ON contact_tombstones (deleted_at, email_id);

CREATE TABLE mofo_relevance_changes (
    email_id uuid PRIMARY KEY REFERENCES emails ON DELETE CASCADE,
    changed_at timestamptz NOT NULL
);
CREATE INDEX idx_mofo_relevance_changes_changed_at ON mofo_relevance_changes (changed_at, email_id);

CREATE TABLE deletion_feed (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    recorded_since timestamptz NOT NULL
);
INSERT INTO deletion_feed (recorded_since) VALUES (clock_timestamp());

INSERT INTO permissions (name, description) VALUES
    ('view_history', 'Read the history of subscriptions')
ON CONFLICT (name) DO NOTHING;
INSERT INTO role_permissions (role_id, permission_id)
SELECT roles.id, permissions.id FROM roles, permissions
WHERE roles.name = 'admin' AND permissions.name = 'view_history'
ON CONFLICT DO NOTHING;
"""

# The partitions of this month and the next three; the background service creates later ones. Each slows deletions down.
_PARTITIONS = """
DO $$
DECLARE
    first date := date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC');
    month date;
BEGIN
    FOR number IN 0..3 LOOP
        month := first + make_interval(months => number);
        EXECUTE format('CREATE TABLE %I PARTITION OF subscription_events FOR VALUES FROM (%L) TO (%L)',
            'subscription_events_' || to_char(month, 'YYYY_MM'),
            month || ' 00:00:00+00', (month + interval '1 month')::date || ' 00:00:00+00');
    END LOOP;
END $$;
"""


# The evidence of an entry, in a setting of the transaction (`recorded_evidence`). It is found by its name, without
# parsing the evidence of all others for each row: a request may have a thousand.
_GIVEN = (
    "split_part(current_setting('ctms.evidence', true), E'\\x01{table} ' || to_json(NEW.name)::text || E'\\x02', 2)"
)


def _entries(table: str, kind: str, columns: tuple[str, ...]) -> str:
    """Return the triggers of newsletters or waitlists; a change of `columns` is an event."""
    given = _GIVEN.format(table=table)
    compared = ", ".join("{0}." + column for column in ("email_id", "name", "subscribed", *columns))
    moved = "ROW(NEW.email_id, NEW.name) IS DISTINCT FROM ROW(OLD.email_id, OLD.name)"
    return f"""
CREATE FUNCTION ctms_record_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    evidence jsonb := nullif(split_part({given}, E'\\x01', 1), '')::jsonb;
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
CREATE TRIGGER ctms_record_insert AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION ctms_record_{table}();
CREATE TRIGGER ctms_record_update AFTER UPDATE ON {table} FOR EACH ROW
WHEN (ROW({compared.format("NEW")}) IS DISTINCT FROM ROW({compared.format("OLD")}) OR {given} <> '')
EXECUTE FUNCTION ctms_record_{table}();

CREATE FUNCTION ctms_record_removed_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO subscription_events (email_id, kind, name, action, source, reason, actor, request_id)
    VALUES (
        OLD.email_id, '{kind}', OLD.name,
        CASE WHEN coalesce(OLD.subscribed, true) THEN 'unsubscribed' ELSE 'changed' END,
        OLD.source, OLD.unsub_reason, {_ACTOR}, {_REQUEST});
    RETURN NULL;
END $$;
-- Not at the deletion of a contact: the foreign key deletes these rows in a trigger of its own.
CREATE TRIGGER ctms_record_delete AFTER DELETE ON {table} FOR EACH ROW WHEN (pg_trigger_depth() = 0)
EXECUTE FUNCTION ctms_record_removed_{table}();
-- An entry with another name or contact: it is removed, then added (triggers run in the order of their names). The
-- service does so only when it merges contacts: it gives evidence, and moves the events along.
CREATE TRIGGER ctms_record_move AFTER UPDATE ON {table} FOR EACH ROW
WHEN ({moved} AND coalesce({given}, '') = '') EXECUTE FUNCTION ctms_record_removed_{table}();

CREATE FUNCTION ctms_record_truncated_{table}() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO subscription_events (email_id, kind, name, action, source, reason, actor, request_id)
    SELECT
        email_id, '{kind}', name, CASE WHEN coalesce(subscribed, true) THEN 'unsubscribed' ELSE 'changed' END,
        source, unsub_reason, {_ACTOR}, {_REQUEST}
    FROM {table} ORDER BY email_id, name;
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_record_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT
EXECUTE FUNCTION ctms_record_truncated_{table}();
"""


_CONTACTS = f"""
CREATE FUNCTION ctms_record_consent() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    was_out boolean := TG_OP = 'UPDATE' AND coalesce(OLD.has_opted_out_of_email, false);
    was_confirmed boolean := TG_OP = 'UPDATE' AND coalesce(OLD.double_opt_in, false);
    is_out boolean := coalesce(NEW.has_opted_out_of_email, false);
    is_confirmed boolean := coalesce(NEW.double_opt_in, false);
    is_reason_new boolean := TG_OP = 'UPDATE' AND NEW.unsubscribe_reason IS DISTINCT FROM OLD.unsubscribe_reason;
BEGIN
    IF is_out <> was_out OR (is_out AND is_reason_new) THEN
        INSERT INTO subscription_events (email_id, kind, action, subscribed, reason, actor, request_id)
        VALUES (
            NEW.email_id, 'global_opt_out',
            CASE WHEN is_out = was_out THEN 'changed' WHEN is_out THEN 'unsubscribed' ELSE 'subscribed' END,
            NOT is_out, NEW.unsubscribe_reason, {_ACTOR}, {_REQUEST});
    END IF;
    IF is_confirmed <> was_confirmed THEN
        INSERT INTO subscription_events (email_id, kind, action, subscribed, actor, request_id)
        VALUES (
            NEW.email_id, 'double_opt_in', CASE WHEN is_confirmed THEN 'subscribed' ELSE 'unsubscribed' END,
            is_confirmed, {_ACTOR}, {_REQUEST});
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_record_insert AFTER INSERT ON emails FOR EACH ROW
WHEN (NEW.has_opted_out_of_email OR NEW.double_opt_in) EXECUTE FUNCTION ctms_record_consent();
CREATE TRIGGER ctms_record_update AFTER UPDATE ON emails FOR EACH ROW
WHEN (ROW(NEW.has_opted_out_of_email, NEW.double_opt_in, NEW.unsubscribe_reason)
    IS DISTINCT FROM ROW(OLD.has_opted_out_of_email, OLD.double_opt_in, OLD.unsubscribe_reason))
EXECUTE FUNCTION ctms_record_consent();

-- A contact that returns with its id is no longer deleted.
CREATE FUNCTION ctms_remove_tombstone() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM contact_tombstones WHERE email_id = NEW.email_id;
    IF FOUND THEN
        -- The deleted contact may have had the other value of mofo_relevant, and its tombstone no longer says so.
        INSERT INTO mofo_relevance_changes (email_id, changed_at) VALUES (NEW.email_id, clock_timestamp())
        ON CONFLICT (email_id) DO UPDATE SET changed_at = excluded.changed_at;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_remove_tombstone AFTER INSERT ON emails FOR EACH ROW EXECUTE FUNCTION ctms_remove_tombstone();

CREATE FUNCTION ctms_record_deletion() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- An array, so that the indexes are used, however many contacts are deleted at once.
    DELETE FROM subscription_events WHERE email_id = ANY (ARRAY(SELECT email_id FROM deleted));
    INSERT INTO contact_tombstones (email_id, deleted_at)
    SELECT email_id, clock_timestamp() FROM deleted ORDER BY email_id
    ON CONFLICT (email_id) DO UPDATE SET deleted_at = excluded.deleted_at, merged_into = NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_record_deletion AFTER DELETE ON emails REFERENCING OLD TABLE AS deleted
FOR EACH STATEMENT EXECUTE FUNCTION ctms_record_deletion();

-- TRUNCATE deletes contacts, too. All tables' triggers before it run first, so the last one deletes their events.
CREATE FUNCTION ctms_record_truncation() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_WHEN = 'AFTER' THEN
        DELETE FROM subscription_events;
    ELSE
        INSERT INTO contact_tombstones (email_id, deleted_at)
        SELECT email_id, clock_timestamp() FROM emails ORDER BY email_id
        ON CONFLICT (email_id) DO UPDATE SET deleted_at = excluded.deleted_at, merged_into = NULL;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_record_truncate BEFORE TRUNCATE ON emails FOR EACH STATEMENT
EXECUTE FUNCTION ctms_record_truncation();
CREATE TRIGGER ctms_remove_events AFTER TRUNCATE ON emails FOR EACH STATEMENT
EXECUTE FUNCTION ctms_record_truncation();

-- A contact with a new id: the events follow it, and the old id is deleted.
CREATE FUNCTION ctms_record_new_id() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE subscription_events SET email_id = NEW.email_id WHERE email_id = OLD.email_id;
    DELETE FROM contact_tombstones WHERE email_id = NEW.email_id;
    INSERT INTO contact_tombstones (email_id, deleted_at) VALUES (OLD.email_id, clock_timestamp())
    ON CONFLICT (email_id) DO UPDATE SET deleted_at = excluded.deleted_at, merged_into = NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_record_new_id AFTER UPDATE ON emails FOR EACH ROW WHEN (NEW.email_id <> OLD.email_id)
EXECUTE FUNCTION ctms_record_new_id();

CREATE FUNCTION ctms_record_mofo_relevance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO mofo_relevance_changes (email_id, changed_at)
    SELECT id, clock_timestamp()
    FROM (SELECT DISTINCT id FROM unnest(ARRAY[OLD.email_id, NEW.email_id]) AS id WHERE id IS NOT NULL) changed
    ORDER BY id
    ON CONFLICT (email_id) DO UPDATE SET changed_at = excluded.changed_at;
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_record_insert AFTER INSERT ON mofo FOR EACH ROW WHEN (NEW.mofo_relevant)
EXECUTE FUNCTION ctms_record_mofo_relevance();
CREATE TRIGGER ctms_record_update AFTER UPDATE ON mofo FOR EACH ROW
WHEN (coalesce(NEW.mofo_relevant, false) <> coalesce(OLD.mofo_relevant, false)
    OR (NEW.email_id <> OLD.email_id AND NEW.mofo_relevant))
EXECUTE FUNCTION ctms_record_mofo_relevance();
CREATE TRIGGER ctms_record_delete AFTER DELETE ON mofo FOR EACH ROW WHEN (OLD.mofo_relevant AND pg_trigger_depth() = 0)
EXECUTE FUNCTION ctms_record_mofo_relevance();

CREATE FUNCTION ctms_record_truncated_mofo() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO mofo_relevance_changes (email_id, changed_at)
    SELECT email_id, clock_timestamp() FROM mofo WHERE mofo_relevant ORDER BY email_id
    ON CONFLICT (email_id) DO UPDATE SET changed_at = excluded.changed_at;
    RETURN NULL;
END $$;
CREATE TRIGGER ctms_record_truncate BEFORE TRUNCATE ON mofo FOR EACH STATEMENT
EXECUTE FUNCTION ctms_record_truncated_mofo();
"""

_DOWNGRADE = """
DROP TRIGGER ctms_record_insert ON newsletters;
DROP TRIGGER ctms_record_update ON newsletters;
DROP TRIGGER ctms_record_delete ON newsletters;
DROP TRIGGER ctms_record_move ON newsletters;
DROP TRIGGER ctms_record_truncate ON newsletters;
DROP TRIGGER ctms_record_insert ON waitlists;
DROP TRIGGER ctms_record_update ON waitlists;
DROP TRIGGER ctms_record_delete ON waitlists;
DROP TRIGGER ctms_record_move ON waitlists;
DROP TRIGGER ctms_record_truncate ON waitlists;
DROP TRIGGER ctms_record_insert ON emails;
DROP TRIGGER ctms_record_update ON emails;
DROP TRIGGER ctms_remove_tombstone ON emails;
DROP TRIGGER ctms_record_deletion ON emails;
DROP TRIGGER ctms_record_truncate ON emails;
DROP TRIGGER ctms_remove_events ON emails;
DROP TRIGGER ctms_record_new_id ON emails;
DROP TRIGGER ctms_record_insert ON mofo;
DROP TRIGGER ctms_record_update ON mofo;
DROP TRIGGER ctms_record_delete ON mofo;
DROP TRIGGER ctms_record_truncate ON mofo;
DROP FUNCTION ctms_record_newsletters, ctms_record_removed_newsletters, ctms_record_truncated_newsletters,
    ctms_record_waitlists, ctms_record_removed_waitlists, ctms_record_truncated_waitlists, ctms_record_consent,
    ctms_remove_tombstone, ctms_record_deletion, ctms_record_truncation, ctms_record_new_id,
    ctms_record_mofo_relevance, ctms_record_truncated_mofo;
DROP TABLE deletion_feed, mofo_relevance_changes, contact_tombstones, subscription_events;
"""


def upgrade() -> None:
    op.execute(_TABLES)
    op.execute(_PARTITIONS)
    op.execute(_entries("newsletters", "newsletter", ("format", "lang", "source", "unsub_reason")))
    op.execute(_entries("waitlists", "waitlist", ("fields::text", "source", "unsub_reason")))
    op.execute(_CONTACTS)


def downgrade() -> None:
    op.execute(_DOWNGRADE)
