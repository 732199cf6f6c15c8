"""The rule for consents in items that are older than what is stored."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from ctms.batches.consent import ConsentRule
from ctms.batches.items import BatchItem, parse_item
from ctms.batches.writer import write
from ctms.contacts.queries import documents_by_id
from ctms.database import pool
from ctms.database.pool import Connection
from tests.http import ApiClient

pytestmark = pytest.mark.usefixtures("app")

Make = Callable[..., Any]
KEEP = ConsentRule()
AGAIN = ConsentRule("Fair of 2026")
LISTS = {
    "newsletters": [{"name": "kept"}, {"name": "left", "subscribed": False, "unsub_reason": "enough"}],
    "waitlists": [{"name": "waiting"}, {"name": "gone", "subscribed": False}],
}
IMPORTED: dict[str, Any] = {
    "email": {
        "has_opted_out_of_email": False,
        "unsubscribe_reason": None,
        "double_opt_in": True,
        "first_name": "Imported",
    },
    "amo": {"email_opt_in": True, "username": "imported"},
    "newsletters": [
        {"name": "kept", "evidence": {"form": "old"}},
        {"name": "left", "evidence": {"form": "old"}, "lang": "de"},
        {"name": "other", "evidence": {"form": "old"}},
    ],
    "waitlists": [{"name": name} for name in ("waiting", "gone", "more")],
}


def write_one(connection: Connection, email_id: str, contact: Any, rule: ConsentRule | None, **more: Any) -> str:
    """Write an item; return its status."""
    item = parse_item({"match": {"email_id": email_id}, "mode": "upsert", "contact": contact, **more}, rule)
    assert isinstance(item, BatchItem)
    [result] = write(connection, [item])
    return result.status


def subscribed(document: Any, name: str) -> dict[str, bool]:
    return {entry["name"]: entry["subscribed"] for entry in document[name]}


def document_of(connection: Connection, email_id: str) -> Any:
    [text] = documents_by_id(connection, {email_id}).values()  # type: ignore[arg-type]
    return json.loads(text)


def events(api: ApiClient, email_id: str) -> list[Any]:
    found: list[Any] = api.get(f"/ctms/{email_id}/history?limit=1000").json["items"]
    return found


@pytest.fixture
def opted_out(make_contact: Make) -> Any:
    """A contact that has opted out of everything, and has subscriptions from before."""
    return make_contact(**LISTS, email={"has_opted_out_of_email": True, "unsubscribe_reason": "spam"}, amo=None)


@pytest.fixture
def unsubscribed(make_contact: Make) -> Any:
    """A contact that has unsubscribed from some lists."""
    return make_contact(**LISTS, email={"has_opted_out_of_email": False, "unsubscribe_reason": None}, amo=None)


def test_who_has_unsubscribed_stays_so(unsubscribed: Any) -> None:
    email_id = unsubscribed["email"]["email_id"]
    with pool.acquire() as connection:
        assert write_one(connection, email_id, IMPORTED, KEEP) == "updated"
        stored = document_of(connection, email_id)

    assert subscribed(stored, "newsletters") == {"kept": True, "left": False, "other": True}
    assert subscribed(stored, "waitlists") == {"waiting": True, "gone": False, "more": True}
    [left] = [one for one in stored["newsletters"] if one["name"] == "left"]
    assert (left["unsub_reason"], left["lang"]) == ("enough", "en")
    assert stored["email"]["first_name"] == "Imported"
    assert stored["amo"]["email_opt_in"] is True


def test_who_has_opted_out_stays_so(opted_out: Any, api: ApiClient) -> None:
    email_id = opted_out["email"]["email_id"]
    before = events(api, email_id)
    with pool.acquire() as connection:
        assert write_one(connection, email_id, IMPORTED, KEEP) == "updated"
        stored = document_of(connection, email_id)

    assert stored["email"]["has_opted_out_of_email"] is True
    assert stored["email"]["unsubscribe_reason"] == "spam"
    assert stored["email"]["double_opt_in"] == opted_out["email"]["double_opt_in"]
    assert stored["amo"]["email_opt_in"] is False
    assert stored["amo"]["username"] == "imported"
    assert subscribed(stored, "newsletters") == {"kept": True, "left": False}
    assert subscribed(stored, "waitlists") == {"waiting": True, "gone": False}
    assert stored["email"]["first_name"] == "Imported"
    assert events(api, email_id) == before


def test_an_unsubscription_is_imported(unsubscribed: Any) -> None:
    email_id = unsubscribed["email"]["email_id"]
    contact = {"email": {"has_opted_out_of_email": True}, "newsletters": [{"name": "kept", "subscribed": False}]}
    with pool.acquire() as connection:
        write_one(connection, email_id, contact, KEEP)
        stored = document_of(connection, email_id)

    assert stored["email"]["has_opted_out_of_email"] is True
    assert subscribed(stored, "newsletters") == {"kept": False, "left": False}


def test_a_second_time_changes_nothing(unsubscribed: Any, api: ApiClient) -> None:
    email_id = unsubscribed["email"]["email_id"]
    with pool.acquire() as connection:
        for rule in (KEEP, AGAIN):
            assert write_one(connection, email_id, copy.deepcopy(IMPORTED), rule) == "updated"
            once = document_of(connection, email_id)
            recorded = events(api, email_id)

            assert write_one(connection, email_id, copy.deepcopy(IMPORTED), rule) == "unchanged"

            assert document_of(connection, email_id) == once
            assert events(api, email_id) == recorded


def test_with_a_source_people_are_subscribed_again(opted_out: Any, api: ApiClient) -> None:
    email_id = opted_out["email"]["email_id"]
    contact = copy.deepcopy(IMPORTED)
    for entry in (*contact["newsletters"], *contact["waitlists"]):
        entry["subscribed"] = True
    before = len(events(api, email_id))
    with pool.acquire() as connection:
        assert write_one(connection, email_id, contact, AGAIN) == "updated"
        stored = document_of(connection, email_id)

    assert stored["email"]["has_opted_out_of_email"] is False
    assert subscribed(stored, "newsletters") == {"kept": True, "left": True, "other": True}
    recorded = events(api, email_id)
    assert len(recorded) > before
    proven = {one["name"]: one["evidence"] for one in recorded if one["evidence"]}
    expected = {"form": "old", "consent_source": "Fair of 2026"}
    assert proven == {
        "left": expected,
        "other": expected,
        "gone": {"consent_source": "Fair of 2026"},
        "more": {"consent_source": "Fair of 2026"},
    }


def test_new_contacts_have_the_evidence(api: ApiClient) -> None:
    contact = {"email": {"primary_email": "new-one@example.com"}, "newsletters": [{"name": "weekly"}]}
    item = parse_item({"mode": "create", "contact": contact}, AGAIN)
    assert isinstance(item, BatchItem)
    with pool.acquire() as connection:
        [result] = write(connection, [item])

    assert [one["evidence"] for one in events(api, str(result.email_id)) if one["name"] == "weekly"] == [
        {"consent_source": "Fair of 2026"}
    ]


def test_items_of_clients_are_not_ruled(opted_out: Any) -> None:
    email_id = opted_out["email"]["email_id"]
    with pool.acquire() as connection:
        write_one(connection, email_id, IMPORTED, None)
        stored = document_of(connection, email_id)

    assert stored["email"]["has_opted_out_of_email"] is False
    assert subscribed(stored, "newsletters")["other"] is True


def test_the_other_actions_are_left_as_they_are() -> None:
    stored = {"email": {"has_opted_out_of_email": True}, "newsletters": [], "waitlists": []}

    assert KEEP.apply({"newsletters": "UNSUBSCRIBE", "amo": "DELETE"}, stored) == {
        "newsletters": "UNSUBSCRIBE",
        "amo": "DELETE",
    }
