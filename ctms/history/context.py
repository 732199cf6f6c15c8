"""The caller and the evidence of a change, which the triggers add to its events.

They are settings of the transaction: the triggers of changes by writers that set none record NULL.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from ctms.database.pool import Connection

SET_ACTOR = "set_config('ctms.actor', {actor}, true), set_config('ctms.request_id', {request_id}, true)"
"""SQL expressions that set the caller; they are part of the query that authorizes a client."""

# The setting has the evidence of each entry between characters that JSON text never contains, so that the triggers find
# one without parsing all.
_SET_EVIDENCE = """
    SELECT set_config('ctms.evidence', coalesce(string_agg(
        E'\\x01' || list.key || ' ' || to_json(entry.key)::text || E'\\x02' || entry.value || E'\\x01', ''), ''), true)
    FROM jsonb_each(%s::jsonb) AS list, jsonb_each(list.value) AS entry"""

# The same for the entries of several contacts: each under its contact and name. Under the name alone, the condition of
# the triggers finds that there is evidence; only entries with evidence may be written meanwhile.
_SET_EVIDENCE_OF_CONTACTS = """
    SELECT set_config('ctms.evidence',
        string_agg(
            E'\\x01' || list.key || ' ' || contact.key || ' ' || to_json(entry.key)::text || E'\\x02' || entry.value
            || E'\\x01', '')
        || string_agg(DISTINCT E'\\x01' || list.key || ' ' || to_json(entry.key)::text || E'\\x02null\\x01', ''), true)
    FROM jsonb_each(%s::jsonb) AS list, jsonb_each(list.value) AS contact, jsonb_each(contact.value) AS entry"""


STAMPS = "set_config('ctms.stamps', 'on', true)"
"""SQL expression of a writer that gives each contact that it changes a new `update_timestamp`.

Without it, triggers note the contacts whose stored documents are outdated (`ctms.contacts.stored_documents`).
"""

_SET_ACTOR = f"SELECT {SET_ACTOR.format(actor='%s', request_id='%s')}, {STAMPS}"


def set_actor(connection: Connection, actor: str, request_id: str = "") -> None:
    """Set who makes the changes of this transaction: `client:<id>`, `operator:<user>`, or a rule of the service.

    It is for writers that give each contact that they change a new `update_timestamp`.
    """
    connection.execute(_SET_ACTOR, (actor, request_id))


@contextmanager
def recorded_evidence(connection: Connection, evidence: Mapping[str, Mapping[str, Any]]) -> Iterator[None]:
    """Record the evidence, by list (`newsletters`) and name of the entry, with the changes inside the context."""
    if not evidence:
        yield
        return
    connection.execute(_SET_EVIDENCE, (json.dumps(evidence),))
    yield
    connection.execute(_SET_EVIDENCE, ("{}",))  # the next change in this transaction has other evidence


@contextmanager
def recorded_evidence_of_contacts(
    connection: Connection, evidence: Mapping[str, Mapping[UUID, Mapping[str, Any]]]
) -> Iterator[None]:
    """Record the evidence, by list, contact and name of the entry, with the changes inside the context.

    All entries that are written inside must have evidence.
    """
    given = {
        name: {str(email_id): entries for email_id, entries in contacts.items()} for name, contacts in evidence.items()
    }
    connection.execute(_SET_EVIDENCE_OF_CONTACTS, (json.dumps(given),))
    yield
    connection.execute(_SET_EVIDENCE, ("{}",))
