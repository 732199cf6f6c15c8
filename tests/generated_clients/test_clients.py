"""Each generated client works: its effects are read back without it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import requests

from tests.generated_clients.conftest import Generated, Step, run
from tests.serving import Served

Read = Callable[[str], dict[str, Any]]


@pytest.fixture
def address() -> str:
    return f"{uuid.uuid4().hex[:20]}@example.com"


@pytest.fixture
def read(service: Served, api: requests.Session) -> Read:
    """Reads a contact without a generated client."""

    def read(email_id: str) -> dict[str, Any]:
        found = api.get(f"{service.url}/ctms/{email_id}", timeout=30)
        assert found.status_code == 200, found.text
        contact: dict[str, Any] = found.json()
        return contact

    return read


@pytest.fixture
def email_id(client: Step, address: str) -> str:
    """A contact that the client created."""
    found: str = client("create", address=address)
    return found


def timeless(value: Any) -> Any:
    """Return the value without the time of its last change, which a PUT moves."""
    if isinstance(value, dict):
        return {name: timeless(member) for name, member in value.items() if name != "update_timestamp"}
    return [timeless(item) for item in value] if isinstance(value, list) else value


def subscribed(contact: dict[str, Any]) -> dict[str, bool]:
    """Return whether the contact is subscribed, by newsletter and waitlist."""
    return {entry["name"]: entry["subscribed"] for entry in (*contact["newsletters"], *contact["waitlists"])}


def test_nothing_is_left_out(generated: Generated) -> None:
    printed = [
        line for line in generated.printed.splitlines() if not line.startswith("npm warn")
    ]  # of the user's npmrc
    warnings = [line for line in printed if "warn" in line.lower()]

    if generated.generator == "openapi-generator":  # it reports this for every document of OpenAPI 3.1
        warnings = [line for line in warnings if not any(part in line for part in EXPECTED_WARNINGS)]
    assert warnings == [], generated.printed


EXPECTED_WARNINGS = (
    "OpenAPI 3.1 support is still in beta",
    "Failed to get the schema name: null",
    "'scheme' not defined in the spec (2.0)",  # the URL of the server is relative
)


def test_the_example_of_the_how_to_runs(checked: Generated, read: Read) -> None:
    printed = run(*checked.command(checked.example), cwd=checked.workspace, PYTHONPATH=str(checked.folder))

    email_id, state = printed.split()
    assert state.lower() == "false"
    contact = read(email_id)
    assert subscribed(contact) == {"weekly": True, "vpn": False}
    assert contact["waitlists"][0]["fields"] == {"geo": "ca"}


def test_create(client: Step, address: str, read: Read) -> None:
    contact = read(client("create", address=address))

    assert contact["email"]["primary_email"] == address
    assert (contact["email"]["first_name"], contact["email"]["email_format"]) == ("Ada", "T")
    assert contact["email"]["email_lang"] == "en"
    assert contact["fxa"]["fxa_id"] == f"fxa:{address}"
    assert [(one["name"], one["lang"], one["format"]) for one in contact["newsletters"]] == [("weekly", None, "H")]
    assert {one["name"]: one["fields"] for one in contact["waitlists"]} == {
        "vpn": {"geo": "ca", "platform": "linux"},
        "hub": {"seats": {"rows": [1, 2]}},
    }
    assert subscribed(contact) == {"weekly": True, "vpn": True, "hub": True}


def test_create_with_an_address_only(client: Step, address: str, read: Read) -> None:
    contact = read(client("create_minimal", address=address))

    assert (contact["email"]["email_format"], contact["email"]["email_lang"]) == ("H", "en")
    assert contact["newsletters"] == contact["waitlists"] == []


def test_read(client: Step, address: str, email_id: str) -> None:
    assert client("read", email_id=email_id) == {
        "primary_email": address,
        "email_format": "T",
        "year": datetime.now(UTC).year,
        "fields": {"vpn": {"geo": "ca", "platform": "linux"}, "hub": {"seats": {"rows": [1, 2]}}},
        "vpn": "ca",
    }


def test_read_irregular_data_of_existing_services(
    client: Step, address: str, email_id: str, database: psycopg.Connection
) -> None:
    for change in (
        "emails SET basket_token = 'no uuid ' || %(email_id)s, email_format = NULL, email_lang = NULL",
        "emails SET double_opt_in = NULL",
        "newsletters SET source = 'no url', subscribed = NULL, format = 'X', lang = NULL",
        "fxa SET account_deleted = NULL, fxa_id = repeat('x', 200) || %(email_id)s",
        "waitlists SET source = '', unsub_reason = ''",
    ):
        database.execute(f"UPDATE {change} WHERE email_id = %(email_id)s", {"email_id": email_id})

    found = client("read", email_id=email_id)

    assert (found["primary_email"], found["email_format"]) == (address, "H")


def test_find_and_list(client: Step, address: str, email_id: str, read: Read) -> None:
    start = read(email_id)["email"]["update_timestamp"]

    found = client("list", start=start, fxa_id=f"fxa:{address}")

    assert email_id in found["updates"]
    assert found["found"] == found["identities"] == [email_id]
    assert {"vpn", "relay", "relay any", "relay_any", "Relay_any", "*"} == set(found["waitlists"])


def test_put_a_read_contact(client: Step, email_id: str, read: Read) -> None:
    before = read(email_id)

    assert client("put_what_was_read", email_id=email_id) == "ok"

    after = read(email_id)
    assert timeless(after) == timeless(before)
    assert after["email"]["update_timestamp"] > before["email"]["update_timestamp"]


def test_put_a_read_contact_of_an_adopted_database(
    client: Step, email_id: str, read: Read, database: psycopg.Connection
) -> None:
    database.execute("UPDATE emails SET email_format = NULL, email_lang = NULL WHERE email_id = %s", (email_id,))
    database.execute("UPDATE newsletters SET subscribed = NULL, format = NULL WHERE email_id = %s", (email_id,))
    before = read(email_id)

    assert client("put_what_was_read", email_id=email_id) == "ok"

    assert timeless(read(email_id)) == timeless(before)


def test_put_a_read_and_changed_contact(client: Step, email_id: str, read: Read) -> None:
    before = read(email_id)

    assert client("put_changed", email_id=email_id, first_name="Grace") == "Grace"

    before["email"]["first_name"] = "Grace"
    before["newsletters"][0]["lang"] = "fr"
    assert timeless(read(email_id)) == timeless(before)


def test_patch(client: Step, email_id: str, read: Read) -> None:
    before = read(email_id)

    assert client("patch", email_id=email_id, first_name="Grace") == "Grace"

    before["email"]["first_name"] = "Grace"
    assert timeless(read(email_id)) == timeless(before)


def test_unsubscribe_from_one_waitlist(client: Step, email_id: str, read: Read) -> None:
    before = read(email_id)

    assert client("unsubscribe", email_id=email_id, waitlist="vpn") == [True, False]

    after = read(email_id)
    assert subscribed(after) == {"weekly": True, "vpn": False, "hub": True}
    assert [one["fields"] for one in after["waitlists"]] == [one["fields"] for one in before["waitlists"]]


def test_unsubscribe_from_all(client: Step, email_id: str, read: Read) -> None:
    assert client("unsubscribe_all", email_id=email_id) == "ok"

    assert subscribed(read(email_id)) == {"weekly": False, "vpn": False, "hub": False}


def test_reset_a_group(client: Step, email_id: str, read: Read) -> None:
    before = read(email_id)

    assert client("reset_account", email_id=email_id) is None

    after = read(email_id)
    assert after["fxa"]["fxa_id"] is None
    assert timeless({**after, "fxa": None}) == timeless({**before, "fxa": None})


def test_delete(client: Step, service: Served, api: requests.Session, address: str, email_id: str) -> None:
    assert client("delete", address=address) == [address]

    assert api.get(f"{service.url}/ctms/{email_id}", timeout=30).status_code == 404


def test_not_found(client: Step) -> None:
    assert client("fail_to_read", email_id=str(uuid.uuid4())) == [404, "Unknown email_id"]


def test_a_conflict(client: Step, address: str, email_id: str, read: Read) -> None:
    before = read(email_id)

    answer = client("fail_to_create_twice", address=address)

    assert answer == [409, "Contact already exists", "primary_email"]
    assert read(email_id) == before


def test_invalid_requests(client: Step, service: Served, api: requests.Session, address: str) -> None:
    answer = client("fail_to_validate", address=address)

    assert answer == [422, [["body", "waitlists", 0, "fields", "more"]]]
    assert api.get(f"{service.url}/ctms", params={"primary_email": address}, timeout=30).json() == []
