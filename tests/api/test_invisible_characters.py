"""Addresses in invisible characters, as copied from documents, are those without them."""

from __future__ import annotations

import pytest

from tests.contacts.factories import address, full
from tests.contacts.rows import execute
from tests.http import ApiClient, assert_error

SPELT = ["\ufeff{}", "{}\u200b", "Sam <\u200b{}>", " {}\u2800"]


@pytest.mark.usefixtures("erasure_key")
@pytest.mark.parametrize("spelt", SPELT)
@pytest.mark.parametrize("group", ["email", "fxa"])
def test_they_hide_no_address(api: ApiClient, spelt: str, group: str) -> None:
    gone, kept = address(), address()
    api.post("/erasures", {"emails": [gone], "forget": True})
    contacts = [full() for _ in "12"]
    for contact, given in zip(contacts, (gone, kept), strict=True):
        contact[group]["primary_email"] = spelt.format(given)

    refused, stored = (api.post("/ctms", contact) for contact in contacts)

    assert_error(refused, 403, "Address is suppressed")
    assert stored.json[group]["primary_email"] == kept
    parameter = "primary_email" if group == "email" else "fxa_primary_email"
    found = api.get("/ctms", query_string={parameter: spelt.format(kept)}).json
    assert [one["email"]["email_id"] for one in found] == [stored.json["email"]["email_id"]]


@pytest.mark.parametrize("spelt", SPELT)
def test_another_contact_with_them_conflicts_and_a_deletion_finds_it(api: ApiClient, spelt: str) -> None:
    contact, other = full(), full()
    kept = contact["email"]["primary_email"]
    api.post("/ctms", contact)
    other["email"]["primary_email"] = spelt.format(kept)

    assert api.post("/ctms", other).status_code == 409
    assert api.delete(f"/ctms/{spelt.format(kept)}").status_code == 200
    assert execute("SELECT count(*) FROM emails WHERE primary_email = :kept", kept=kept) == 0
