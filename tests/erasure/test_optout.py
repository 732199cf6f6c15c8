"""Opt-outs of the contacts on a work list."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from ctms.bulk.batches import UNKNOWN
from ctms.bulk.entries import Entry
from ctms.contacts import optouts
from ctms.database.pool import Connection
from ctms.erasure.optout import OPTED_OUT, OPTED_OUT_BEFORE, opt_out, preview
from ctms.plugins import Backend, hookimpl
from tests.contacts.rows import LONG_AGO, execute, set_back
from tests.erasure.listed import connection, named, outcomes, work_list
from tests.http import ApiClient
from tests.plans import fill_contacts, plan_of

__all__ = ["connection"]

Make = Callable[..., Any]


class Mirror:
    """A plugin with a backend that these tests never call."""

    def push(self, contacts: Any, idempotency_key: str) -> None: ...

    @hookimpl
    def ctms_backends(self) -> Iterator[Backend]:
        yield Backend(name="mirror", implementation=self)


@pytest.fixture
def ctms_plugins(ctms_plugins: list[object]) -> list[object]:
    return [*ctms_plugins, Mirror()]


def entry(address: str, reason: str | None = "bounced", day: int | None = 1) -> Entry:
    return Entry(None, address, datetime(2023, 1, day, tzinfo=UTC) if day else None, reason)


def state(api: ApiClient, contact: Any) -> tuple[bool, str | None, bool]:
    """Return whether the contact has opted out, the reason, and whether it has changed since `LONG_AGO`."""
    email = api.get(f"/ctms/{contact['email']['email_id']}").json["email"]
    changed = email["update_timestamp"] != LONG_AGO
    return email["has_opted_out_of_email"], email["unsubscribe_reason"], changed


def make(make_contact: Make, **groups: Any) -> Any:
    contact = make_contact(**groups)
    set_back(contact["email"]["email_id"])
    execute("DELETE FROM outbox")
    return contact


def test_an_own_address_and_an_accounts(api: ApiClient, connection: Connection, make_contact: Make) -> None:
    own = make(make_contact)
    account = make(make_contact, fxa={"fxa_id": "1", "primary_email": "Account@example.com"})
    other = make(make_contact)
    own_address = own["email"]["primary_email"].upper()

    found = outcomes(
        work_list(connection, [entry(own_address), entry("ACCOUNT@example.com", "asked"), entry("nobody@example.com")]),
        opt_out,
    )

    assert named(found) == {
        own_address: OPTED_OUT,
        "ACCOUNT@example.com": OPTED_OUT,
        "nobody@example.com": UNKNOWN,
    }
    assert [str(one.email_id) for one in found[:2]] == [one["email"]["email_id"] for one in (own, account)]
    assert state(api, own) == (True, "bounced", True)
    assert state(api, account) == (True, "asked", True)
    assert state(api, other) == (False, None, False)
    waiting = execute("SELECT array_agg(email_id::text ORDER BY email_id) FROM outbox WHERE backend = 'mirror'")
    assert waiting == sorted(one["email"]["email_id"] for one in (own, account))


def test_an_opted_out_contact_is_unchanged(api: ApiClient, connection: Connection, make_contact: Make) -> None:
    email = {"has_opted_out_of_email": True, "unsubscribe_reason": "my own"}
    contact = make_contact()
    api.patch(f"/ctms/{contact['email']['email_id']}", {"email": email})
    set_back(contact["email"]["email_id"])
    execute("DELETE FROM outbox")

    (found,) = outcomes(work_list(connection, [entry(contact["email"]["primary_email"])]), opt_out)

    assert found.outcome == OPTED_OUT_BEFORE
    assert state(api, contact) == (True, "my own", False)
    assert execute("SELECT count(*) FROM outbox") == 0


def test_a_state_that_is_null_is_not_opted_out(api: ApiClient, connection: Connection, make_contact: Make) -> None:
    contact = make(make_contact)
    execute("UPDATE emails SET has_opted_out_of_email = NULL, unsubscribe_reason = 'earlier'")

    (found,) = outcomes(work_list(connection, [entry(contact["email"]["primary_email"], None)]), opt_out)

    assert found.outcome == OPTED_OUT
    assert state(api, contact) == (True, "earlier", True)


@pytest.mark.parametrize("batch_size", [1, 100])
@pytest.mark.parametrize(
    ("own", "account", "reason"),
    [((1, "1"), (2, "2"), "2"), ((2, "1"), (1, "2"), "1"), ((1, "1"), (1, "2"), "2"), ((None, "1"), (None, "2"), "2"),
     ((1, "1"), (None, "2"), "1")],
)  # fmt: skip
def test_of_two_addresses_of_a_contact_the_later_opt_out_counts(
    api: ApiClient, connection: Connection, make_contact: Make, *, own: Any, account: Any, reason: str, batch_size: int
) -> None:
    contact = make(make_contact, fxa={"fxa_id": "1", "primary_email": "account@example.com"})
    address = contact["email"]["primary_email"]
    entries = [entry(address, own[1], own[0]), entry("account@example.com", account[1], account[0])]

    found = outcomes(work_list(connection, entries, of_accounts=True, last_wins=True), opt_out, batch_size)

    assert sorted(one.outcome for one in found) == [OPTED_OUT, OPTED_OUT_BEFORE]
    assert state(api, contact) == (True, reason, True)


def test_an_account_that_several_share(api: ApiClient, connection: Connection, make_contact: Make) -> None:
    contacts = [
        make(make_contact, fxa={"fxa_id": number, "primary_email": "account@example.com"}) for number in ("1", "2")
    ]

    found = outcomes(work_list(connection, [entry("account@example.com")]), opt_out)

    assert [one.outcome for one in found] == [OPTED_OUT, OPTED_OUT]
    assert all(state(api, contact) == (True, "bounced", True) for contact in contacts)


def test_it_is_a_change_of_now_for_consumers_of_updates(connection: Connection, make_contact: Make) -> None:
    contact = make(make_contact)

    outcomes(work_list(connection, [entry(contact["email"]["primary_email"])]), opt_out)

    assert execute("SELECT update_timestamp > now() FROM emails"), "the clock's time, not the transaction's beginning"


def test_a_look_changes_nothing(api: ApiClient, connection: Connection, make_contact: Make) -> None:
    contact = make(make_contact)
    address = contact["email"]["primary_email"].upper()
    worklist = work_list(connection, [entry(address), entry("nobody@example.com")])

    assert named(outcomes(worklist, preview)) == {address: "found", "nobody@example.com": UNKNOWN}
    assert state(api, contact) == (False, None, False)

    outcomes(worklist, opt_out)
    assert named(outcomes(worklist, preview))[address] == OPTED_OUT_BEFORE


def test_addresses_are_found_by_the_indexes(connection: Connection) -> None:
    fill_contacts(connection)

    plan = plan_of(connection, optouts._MATCH, {"positions": [0], "spellings": ["a@x"]})

    assert "idx_email_primary_unique_email_lower" in plan
    assert "idx_fxa_primary_email_lower" in plan
    assert "Seq Scan" not in plan
