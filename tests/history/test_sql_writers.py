"""Statements of operators that no code of the service runs: the history is complete after them, too."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contacts.rows import execute, insert, insert_contact
from tests.history.replay import replay

pytestmark = pytest.mark.usefixtures("app")

LISTS = {"newsletters": "newsletter", "waitlists": "waitlist"}


def events(*email_ids: str) -> list[dict[str, Any]]:
    """Return the events of the contacts in their order."""
    found: list[dict[str, Any]] = execute(
        "SELECT coalesce(json_agg(s ORDER BY recorded_at, event_id), '[]') FROM subscription_events s"
        " WHERE email_id::text = ANY (:ids)",
        ids=list(email_ids),
    )
    return found


def is_deleted(email_id: str) -> bool:
    """Return whether the feed lists the contact as deleted."""
    return bool(execute("SELECT count(*) FROM contact_tombstones WHERE email_id = :id", id=email_id))


def is_relevance_recorded(email_id: str) -> bool:
    """Return whether a change of `mofo_relevant` is recorded."""
    return bool(execute("SELECT count(*) FROM mofo_relevance_changes WHERE email_id = :id", id=email_id))


@pytest.mark.parametrize("table", LISTS)
@pytest.mark.parametrize("subscribed", [True, False])
def test_a_renamed_entry(table: str, subscribed: bool) -> None:
    contact = insert_contact()
    insert(table, email_id=contact, name="old", subscribed=subscribed)

    execute(f"UPDATE {table} SET name = 'new' WHERE email_id = :id", id=contact)

    assert replay(events(contact)) == {contact: {(LISTS[table], "new"): subscribed}}


@pytest.mark.parametrize("table", LISTS)
def test_an_entry_that_another_contact_gets(table: str) -> None:
    source, target = insert_contact(), insert_contact()
    insert(table, email_id=source, name="a", subscribed=True)

    execute(f"UPDATE {table} SET email_id = :target WHERE email_id = :source", source=source, target=target)

    found = replay(events(source, target))
    assert found[target] == {(LISTS[table], "a"): True}
    assert found[source] == {}


def test_a_relevance_that_another_contact_gets() -> None:
    source, target = insert_contact(), insert_contact()
    insert("mofo", email_id=source, mofo_relevant=True)
    execute("DELETE FROM mofo_relevance_changes")

    execute("UPDATE mofo SET email_id = :target WHERE email_id = :source", source=source, target=target)

    assert is_relevance_recorded(source)
    assert is_relevance_recorded(target)


def test_a_contact_with_a_new_id() -> None:
    old, new = insert_contact(double_opt_in=True), "b6b3f2a1-7d0e-4f55-9f44-0e6d0e1c2f6a"

    execute("UPDATE emails SET email_id = :new WHERE email_id = :old", old=old, new=new)

    assert events(old) == []
    assert replay(events(new)) == {new: {("double_opt_in", None): True}}
    assert is_deleted(old)
    execute("UPDATE emails SET email_id = :old WHERE email_id = :new", old=old, new=new)
    assert not is_deleted(old)
    assert is_deleted(new)


def test_truncated_contacts_leave_no_event() -> None:
    contact = insert_contact(double_opt_in=True)
    insert("newsletters", email_id=contact, name="a", subscribed=True)
    insert("mofo", email_id=contact, mofo_relevant=True)

    execute("TRUNCATE emails CASCADE")

    assert execute("SELECT count(*) FROM subscription_events") == 0
    assert is_deleted(contact)


@pytest.mark.parametrize("table", LISTS)
def test_truncated_entries_are_removed(table: str) -> None:
    contact = insert_contact(double_opt_in=True)
    for name, subscribed in (("a", True), ("b", False)):
        insert(table, email_id=contact, name=name, subscribed=subscribed)

    execute(f"TRUNCATE {table}")

    assert replay(events(contact)) == {contact: {("double_opt_in", None): True}}


def test_a_truncated_relevance_is_a_change() -> None:
    contact = insert_contact()
    insert("mofo", email_id=contact, mofo_relevant=True)
    execute("DELETE FROM mofo_relevance_changes")

    execute("TRUNCATE mofo")

    assert is_relevance_recorded(contact)
