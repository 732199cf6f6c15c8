"""The events of any writes, in whatever way they reach the database, rebuild the subscriptions of all contacts."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ctms.contacts import optouts
from ctms.contacts.optouts import OptOut
from ctms.database import pool
from tests.contacts.factories import address
from tests.contacts.rows import execute
from tests.history.replay import Subscriptions, replay, subscriptions
from tests.http import ApiClient

EXAMPLES = int(os.environ.get("CTMS_TEST_EXAMPLES", "40"))
CONTACTS = 3

ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abc"), "subscribed": st.booleans()},
        optional={"source": st.just("https://example.com/"), "evidence": st.just({"form": "f"})},
    ),
    max_size=3,
    unique_by=lambda entry: entry["name"],
)
EMAIL = st.fixed_dictionaries(
    {},
    optional={
        "has_opted_out_of_email": st.booleans(),
        "double_opt_in": st.booleans(),
        "unsubscribe_reason": st.sampled_from(["x", "y"]),
    },
)
VALUES = st.fixed_dictionaries({"email": EMAIL}, optional={"newsletters": ENTRIES, "waitlists": ENTRIES})

Contact = dict[str, str]
"""The id and the address of a contact."""


def _post(api: ApiClient, contact: Contact, values: Any) -> None:
    body = {**values, "email": {**values["email"], **contact}}
    assert api.post("/ctms", body).status_code in {200, 201, 409}


def _put(api: ApiClient, contact: Contact, values: Any) -> None:
    body = {**values, "email": {**values["email"], **contact}}
    assert api.put(f"/ctms/{contact['email_id']}", body).status_code == 201


def _patch(api: ApiClient, contact: Contact, values: Any) -> None:
    assert api.patch(f"/ctms/{contact['email_id']}", values).status_code in {200, 404}


def _unsubscribe(api: ApiClient, contact: Contact, values: Any) -> None:
    body = dict.fromkeys(values.keys() - {"email"}, "UNSUBSCRIBE")
    assert api.patch(f"/ctms/{contact['email_id']}", body).status_code in {200, 404}


def _delete(api: ApiClient, contact: Contact, _values: Any) -> None:
    assert api.delete(f"/ctms/{contact['primary_email']}").status_code in {200, 404}


def _opt_out(_api: ApiClient, contact: Contact, values: Any) -> None:
    with pool.writing() as connection:
        reason = values["email"].get("unsubscribe_reason")
        optouts.opt_out(connection, [OptOut(contact["primary_email"], None, reason)])


def _merge(api: ApiClient, contact: Contact, values: Any) -> None:
    """Merge a new contact into this one."""
    other = {**values, "email": {**values["email"], "primary_email": f"other-{contact['primary_email']}"}}
    created = api.post("/ctms", other)
    if created.status_code in {200, 201}:
        source = created.json["email"]["email_id"]
        merged = api.post(f"/ctms/{contact['email_id']}/merge", {"from": source})
        assert merged.status_code in {200, 404}


def _sql(_api: ApiClient, contact: Contact, values: Any) -> None:
    """Write as a service beside ours does."""
    for entry in values.get("newsletters", ()):
        execute(
            "INSERT INTO newsletters (email_id, name, subscribed)"
            " SELECT email_id, :name, nullif(:subscribed, true) FROM emails WHERE email_id = :id"
            " ON CONFLICT (email_id, name) DO UPDATE SET subscribed = excluded.subscribed",
            name=entry["name"],
            subscribed=entry["subscribed"],
            id=contact["email_id"],
        )
    execute("DELETE FROM waitlists WHERE email_id = :id AND name = 'a'", id=contact["email_id"])


WRITE = st.tuples(
    st.sampled_from([_post, _put, _patch, _patch, _unsubscribe, _delete, _opt_out, _sql, _merge]),
    st.integers(0, CONTACTS - 1),
    VALUES,
)


@settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=st.lists(WRITE, min_size=5, max_size=15))
def test_the_events_of_any_writes_rebuild_the_subscriptions(
    api: ApiClient, writes: list[tuple[Callable[[ApiClient, Contact, Any], None], int, Any]]
) -> None:
    contacts = [{"email_id": str(uuid.uuid4()), "primary_email": address()} for _ in range(CONTACTS)]
    for write, number, values in writes:
        write(api, contacts[number], values)

    for contact in contacts:
        path = f"/ctms/{contact['email_id']}"
        document = api.get(path)
        expected: Subscriptions = subscriptions(document.json) if document.status_code == 200 else {}
        stored = execute(
            "SELECT coalesce(json_agg(s ORDER BY recorded_at, event_id), '[]') FROM subscription_events s"
            " WHERE email_id = :id",
            id=contact["email_id"],
        )
        assert replay(stored).get(contact["email_id"], {}) == expected
