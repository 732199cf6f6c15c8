"""`flask ctms backends verify`: comparison of another system's data with the contacts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.cli import ctms
from tests.cli.running import run, run_json
from tests.http import ApiClient
from tests.sync.receiving import RECEIVING, contacts, ctms_plugins, deliver, execute, ids, park, waiting

__all__ = ["contacts", "ctms_plugins"]

Make = Callable[..., dict[str, Any]]


def verify(cli: CliRunner, name: str, *options: str, status: int = 3) -> dict[str, Any]:
    """Return the result of `verify --json`; the exit status shows whether there are differences."""
    result = cli.invoke(ctms, ["backends", "verify", name, "--json", *options])
    assert result.exit_code == status, result.output
    assert result.stderr.startswith("Error: differences: ") == (status == 3)
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def keep(contacts: list[dict[str, Any]], api: ApiClient) -> dict[str, dict[str, Any]]:
    """Have `mail` keep the contacts as they are, as copies of their own."""
    kept = {email_id: api.get(f"/ctms/{email_id}").json for email_id in ids(contacts)}
    RECEIVING.mail.contacts.update(kept)
    return kept


def test_verify_finds_all_equal(cli: CliRunner, api: ApiClient, contacts: list[dict[str, Any]]) -> None:
    keep(contacts, api)

    found = run_json(cli, "backends", "verify", "mail", "--repair")

    assert found == {
        "backend": "mail",
        "sample": 3,
        "equal": 3,
        **dict.fromkeys(("waiting", "parked", "changed", "unclear", "repaired"), 0),
        "missing": [],
        "extra": [],
        "differing": {},
    }
    assert waiting() == set()


def test_verify_reports_places_and_ids_and_repairs(
    cli: CliRunner, api: ApiClient, contacts: list[dict[str, Any]]
) -> None:
    first, second, third = ids(contacts)
    kept = keep(contacts, api)
    kept[first]["email"]["first_name"] = "A Secret"
    kept[first]["newsletters"] = []
    kept[first]["email"]["of jane@example.com"] = "x"
    del RECEIVING.mail.contacts[second]

    found = verify(cli, "mail")
    shown = cli.invoke(ctms, ["backends", "verify", "mail", "--repair"])

    assert (found["equal"], found["missing"], found["extra"]) == (1, [second], [])
    assert found["differing"] == {
        "email.first_name": [first],
        "email.of …": [first],
        "newsletters.club": [first],
    }
    assert "Secret" not in shown.output
    assert "jane@example.com" not in shown.output
    assert f"differs: email.first_name  1         {first}\n" in shown.stdout
    assert shown.exit_code == 3
    assert shown.stderr == ("Error: differences: 2 contacts of 3; they are pushed again, verify again afterwards\n")
    assert waiting() == {first, second}
    again = run_json(cli, "backends", "verify", "mail")
    assert (again["sample"], again["waiting"], again["equal"], again["missing"]) == (3, 2, 1, [])
    assert third not in waiting()


def test_one_contact_differs(cli: CliRunner, api: ApiClient, contacts: list[dict[str, Any]]) -> None:
    keep(contacts[:2], api)

    shown = cli.invoke(ctms, ["backends", "verify", "mail"])

    assert (shown.exit_code, shown.stderr) == (
        3,
        "Error: differences: 1 contact of 3; --repair pushes them again\n",
    )
    assert waiting() == set()


def test_verify_respects_the_sample_size(cli: CliRunner, contacts: list[dict[str, Any]]) -> None:
    found = verify(cli, "mail", "--sample", "2")

    assert found["sample"] == len(found["missing"]) == 2
    assert set(found["missing"]) < set(ids(contacts))


def test_verify_of_a_backend_that_wants_some(cli: CliRunner, make_contact: Make) -> None:
    """Contacts that it has unexpectedly, or that were deleted, are removed again."""
    on_it, off_it, unclear = ids(
        [
            make_contact(newsletters=[{"name": "club"}]),
            make_contact(),
            make_contact(newsletters=[{"name": "club"}], email={"first_name": "Nobody can tell"}),
        ]
    )
    deleted = "11111111-2222-4333-8444-555555555555"
    execute("INSERT INTO outbox_mirrored VALUES ('club', %(e)s), ('club', %(d)s)", e=on_it, d=deleted)
    deliver()
    RECEIVING.club.contacts.update({off_it: {}, deleted: {}})

    found = verify(cli, "club", "--repair")

    assert (found["missing"], sorted(found["extra"]), found["unclear"]) == ([on_it], sorted([off_it, deleted]), 1)
    assert waiting("club") == {on_it, off_it, deleted}
    mirrored = {one for (one,) in execute("SELECT email_id::text FROM outbox_mirrored WHERE backend = 'club'")}
    assert mirrored == {on_it, off_it, deleted}
    assert unclear not in waiting("club")


def test_verify_does_not_compare_parked_or_changing_contacts(
    cli: CliRunner, api: ApiClient, contacts: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, _ = ids(contacts)
    api.patch(f"/ctms/{first}", {"email": {"first_name": "Jo"}})
    park(first, "full")
    real = RECEIVING.mail.fetch

    def fetch(email_ids: list[str]) -> Any:
        # Edited and pushed between the two looks.
        execute("UPDATE emails SET first_name = first_name || 'x', update_timestamp = clock_timestamp()")
        return real(email_ids)

    found = verify(cli, "mail", "--sample", "3")
    assert (found["parked"], len(found["missing"]), first in found["missing"]) == (1, 2, False)

    monkeypatch.setattr(RECEIVING.mail, "fetch", fetch, raising=True)
    execute("UPDATE emails SET first_name = 'Jo'")
    moving = run_json(cli, "backends", "verify", "mail")
    assert (moving["parked"], moving["changed"], moving["missing"]) == (1, 2, [])
    assert second not in moving["missing"]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (ValueError("of jane@example.com"), "`fetch` of the backend mail raised ValueError"),
        ([], "`fetch` of the backend mail must return what is kept by email_id"),
        ({"x": None}, "`fetch` of the backend mail must return what is kept by email_id"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("contacts")
def test_verify_with_a_fetch_that_fails(
    cli: CliRunner, answer: Any, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(_email_ids: list[str]) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(RECEIVING.mail, "fetch", fetch)

    assert run(cli, "backends", "verify", "mail", status=1).stderr == f"Error: {problem}\n"


def test_verify_of_a_backend_without_fetch(cli: CliRunner) -> None:
    failed = run(cli, "backends", "verify", "blind", status=1)

    assert failed.stderr == "Error: the backend blind cannot be compared: its implementation has no `fetch`\n"
