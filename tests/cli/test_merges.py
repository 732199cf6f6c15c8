"""`flask ctms duplicates` and `flask ctms merge`."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.cli import ctms
from ctms.cli.actor import current_actor
from tests.api.test_history import create, events_of
from tests.contacts.factories import address, full
from tests.contacts.rows import execute
from tests.http import ApiClient


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


@pytest.fixture
def pair(api: ApiClient) -> tuple[str, str]:
    """Return the ids of two contacts with the same account address."""
    execute("DELETE FROM emails")
    account = {"primary_email": address()}
    target = create(api, fxa={**account, "fxa_id": uuid.uuid4().hex}, newsletters=[{"name": "a"}])
    source = create(api, **{**full(fxa=account), "newsletters": [{"name": "a", "subscribed": False}]})
    return id_of(target), id_of(source)


def test_duplicates_are_listed_with_a_proposal(cli: CliRunner, pair: tuple[str, str]) -> None:
    result = cli.invoke(ctms, ["duplicates", "--json"])

    assert json.loads(result.stdout) == [
        {
            "shared": "fxa_primary_email",
            "contacts": 2,
            "target": pair[0],
            "others": [pair[1]],
            "reason": "has an account",
        }
    ]
    table = cli.invoke(ctms, ["duplicates"])
    assert table.exit_code == 0
    assert pair[1] in table.stdout
    assert "@" not in result.output + table.output


@pytest.mark.usefixtures("pair")
def test_no_more_are_listed_than_asked_for(cli: CliRunner, api: ApiClient) -> None:
    for _ in range(2):
        create(api, email={"primary_email": address(), "sfdc_id": "same"})

    listed = [json.loads(cli.invoke(ctms, ["duplicates", "--json", *more]).stdout) for more in ([], ["--limit", "1"])]

    assert [len(rows) for rows in listed] == [2, 1]


def test_merge(cli: CliRunner, api: ApiClient, pair: tuple[str, str]) -> None:
    result = cli.invoke(ctms, ["merge", *pair, "--yes"])

    assert result.exit_code == 0, result.output
    assert result.stderr == f"{pair[1]} was merged into {pair[0]}\n"
    assert "filled" in result.stdout
    assert "unsubscribed, as in the source" in result.stdout
    assert "conflict" in result.stdout
    assert "@" not in result.output
    assert api.get(f"/ctms/{pair[1]}").json["merged_into"] == pair[0]
    assert {event["actor"] for event in events_of(api, f"/ctms/{pair[0]}")} == {"client:id_test", current_actor()}


def test_a_dry_run_changes_nothing(cli: CliRunner, api: ApiClient, pair: tuple[str, str]) -> None:
    before = [api.get(f"/ctms/{email_id}").json for email_id in pair]

    result = cli.invoke(ctms, ["merge", *pair, "--dry-run", "--json"])

    assert result.exit_code == 0, result.output
    shown: dict[str, Any] = json.loads(result.stdout)
    assert (shown["dry_run"], shown["target"], shown["merged_from"]) == (True, *pair)
    assert {"part": "email", "field": "first_name"} in shown["filled"]
    assert {"part": "email", "field": "primary_email"} in shown["conflicts"]
    assert [api.get(f"/ctms/{email_id}").json for email_id in pair] == before


def test_it_is_confirmed(cli: CliRunner, api: ApiClient, pair: tuple[str, str]) -> None:
    result = cli.invoke(ctms, ["merge", *pair])

    assert result.exit_code == 1
    assert "pass --yes" in result.stderr
    assert api.get(f"/ctms/{pair[1]}").status_code == 200


def test_contacts_that_do_not_exist(cli: CliRunner, pair: tuple[str, str]) -> None:
    unknown = str(uuid.uuid4())
    for wanted in ((pair[0], unknown), (unknown, pair[0])):
        result = cli.invoke(ctms, ["merge", *wanted, "--yes"])
        assert (result.exit_code, result.stderr) == (4, f"Error: there is no contact {unknown}\n")
    cli.invoke(ctms, ["merge", *pair, "--yes"])

    result = cli.invoke(ctms, ["merge", *pair, "--yes"])

    assert result.stderr == f"Error: there is no contact {pair[1]}: it was merged into {pair[0]}\n"
    assert cli.invoke(ctms, ["merge", pair[0], pair[0]]).exit_code == 2
