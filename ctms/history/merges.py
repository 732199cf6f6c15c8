"""The history of a merged contact, which moves to the contact that it was merged into.

A moved event keeps its time, its id and its actor; `merged_from` names the contact that it happened to. So the events
of two contacts interleave, and the last event of a subscription may not be the decision that counts. `conclude` adds
an event where that is so: replaying all events in their order gives the contact's subscriptions.
"""

from __future__ import annotations

from uuid import UUID

from psycopg.types.json import Jsonb

from ctms.database.pool import Connection

MERGED_FROM = "merged_from"
"""The member of an event's evidence that names the merged contact."""

_MOVE = """
    UPDATE subscription_events SET email_id = %(target)s, merged_from = coalesce(merged_from, email_id)
    WHERE email_id = %(source)s"""

_CONCLUDE = """
    WITH latest AS (
        SELECT DISTINCT ON (kind, name) kind, name, subscribed FROM subscription_events WHERE email_id = %(target)s
        ORDER BY kind, name, recorded_at DESC, event_id DESC),
    states AS (
        SELECT 'newsletter' AS kind, name, coalesce(subscribed, true) AS subscribed, source, unsub_reason AS reason
        FROM newsletters WHERE email_id = %(target)s
        UNION ALL
        SELECT 'waitlist', name, coalesce(subscribed, true), source, unsub_reason
        FROM waitlists WHERE email_id = %(target)s
        UNION ALL
        SELECT 'global_opt_out', NULL, has_opted_out_of_email IS NOT TRUE, NULL, unsubscribe_reason
        FROM emails WHERE email_id = %(target)s
        UNION ALL
        SELECT 'double_opt_in', NULL, double_opt_in IS TRUE, NULL, NULL FROM emails WHERE email_id = %(target)s)
    INSERT INTO subscription_events
        (email_id, kind, name, action, subscribed, source, reason, actor, request_id, evidence)
    SELECT %(target)s, s.kind, s.name, 'changed', s.subscribed, s.source, s.reason,
        nullif(current_setting('ctms.actor', true), ''), nullif(current_setting('ctms.request_id', true), ''),
        %(evidence)s
    FROM states s JOIN latest l ON l.kind = s.kind AND l.name IS NOT DISTINCT FROM s.name
    WHERE l.subscribed IS DISTINCT FROM s.subscribed
    ORDER BY s.kind, s.name"""


def move(connection: Connection, source: UUID, target: UUID) -> None:
    """Move the events of the contact `source` to `target`. The transaction has locked both."""
    connection.execute(_MOVE, {"source": source, "target": target})


def conclude(connection: Connection, source: UUID, target: UUID) -> None:
    """Record the state of each subscription and consent of `target` that its last event does not give.

    Call it after the last change of the merge.
    """
    connection.execute(_CONCLUDE, {"target": target, "evidence": Jsonb({MERGED_FROM: str(source)})})
