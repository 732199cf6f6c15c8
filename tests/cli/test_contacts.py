"""`flask ctms contacts`: addresses of an adopted database that look-ups do not find."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner
from flask import Flask

from ctms.cli import ctms
from tests.cli.running import run, run_json
from tests.contacts.rows import execute, insert, insert_contact
from tests.http import ApiClient

RAW = (
    "wide@ex\N{FULLWIDTH LATIN SMALL LETTER A}mple.com",
    "stop@example\N{IDEOGRAPHIC FULL STOP}com",
    " space@example.com",
    '"quoted"@example.com',
    "Named <named@example.com>",
    "\N{ZERO WIDTH SPACE}hidden@example.com",
    "\N{LATIN SMALL LETTER E WITH ACUTE}.e\N{COMBINING ACUTE ACCENT}@example.com",
)
"""Addresses as a service may have stored them, in spellings that are not looked for."""

REACHABLE = (
    "plain@example.com",
    "ines@xn--mnchen-3ya.de",
    "ine\N{COMBINING ACUTE ACCENT}s@example.com",
    "INÉS@MÜNCHEN.DE",
    "no address at all",
)


def outcomes(rows: list[dict[str, str]]) -> dict[str, str]:
    return {row["email_id"]: row["outcome"] for row in rows}


@pytest.fixture
def contacts(app: Flask) -> list[str]:  # noqa: ARG001  inside the app's transaction
    """Return the ids of contacts that no look-up finds."""
    execute("DELETE FROM emails")
    for address in REACHABLE:
        insert_contact(primary_email=address)
    return [insert_contact(primary_email=address) for address in RAW]


def check(cli: CliRunner, *options: str, status: int) -> list[dict[str, str]]:
    result = cli.invoke(ctms, ["contacts", "check-addresses", "--json", *options])
    assert result.exit_code == status, result.output
    assert "@" not in result.output
    found: list[dict[str, str]] = json.loads(result.stdout)
    return found


def test_those_in_unusual_spellings_are_found(cli: CliRunner, contacts: list[str]) -> None:
    assert outcomes(check(cli, status=3)) == dict.fromkeys(contacts, "found")


def test_with_their_normal_form_look_ups_find_them(cli: CliRunner, api: ApiClient, contacts: list[str]) -> None:
    assert outcomes(check(cli, "--normalize", status=0)) == dict.fromkeys(contacts, "normalized")

    for name in ("wide", "stop", "space", "quoted", "named", "hidden"):
        assert len(api.get(f"/identities?primary_email={name}@example.com").json) == 1
    assert run_json(cli, "contacts", "check-addresses") == []


def test_one_that_another_contact_has_stays(cli: CliRunner, contacts: list[str]) -> None:
    insert_contact(primary_email="wide@example.com")

    found = outcomes(check(cli, "--normalize", status=3))

    assert found.pop(contacts[0]) == "conflict"
    assert set(found.values()) == {"normalized"}
    stored = execute("SELECT primary_email FROM emails WHERE email_id = :id", id=contacts[0])
    assert stored == RAW[0]


def test_addresses_of_accounts(cli: CliRunner, app: Flask) -> None:  # noqa: ARG001  inside the app's transaction
    execute("DELETE FROM emails")
    owner = insert_contact()
    insert("fxa", email_id=owner, primary_email="Named <named@example.com>")

    (found,) = check(cli, "--normalize", status=0)

    assert (found["email_id"], found["identity"]) == (owner, "fxa_primary_email")
    assert execute("SELECT primary_email FROM fxa") == "named@example.com"


def test_nothing_to_find(cli: CliRunner, app: Flask) -> None:  # noqa: ARG001  inside the app's transaction
    execute("DELETE FROM emails")
    assert run(cli, "contacts", "check-addresses").stdout.split() == ["email_id", "identity", "outcome"]


def test_one_that_is_left_is_one_address(cli: CliRunner, contacts: list[str]) -> None:
    execute("DELETE FROM emails WHERE email_id <> :id", id=contacts[0])

    result = cli.invoke(ctms, ["contacts", "check-addresses"])

    assert result.stderr == "Error: 1 address is not found by its normal form\n"
