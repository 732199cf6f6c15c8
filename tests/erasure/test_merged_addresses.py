"""A contact is found by an address that it lost in a merge, like one that has it as that of its account."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from ctms.cli import ctms
from tests.api.test_history import create
from tests.api.test_merges import merged
from tests.contacts.rows import execute
from tests.erasure.listed import erasure_key
from tests.http import ApiClient, assert_error

__all__ = ["erasure_key"]

pytestmark = pytest.mark.usefixtures("nothing_erased", "erasure_key")

LOST, SPELT = "ines@münchen.example.com", "INES@xn--mnchen-3ya.example.com"


@pytest.fixture
def target(api: ApiClient) -> str:
    """Return the path of a contact that was merged twice, and lost `LOST` the first time."""
    second, third = create(api), create(api)
    merged(api, second, create(api, email={"primary_email": LOST}))
    merged(api, third, second)
    return third


def test_delete_names_it(api: ApiClient, target: str) -> None:
    answer = api.delete(f"/ctms/{SPELT}")

    assert (answer.status_code, answer.json) == (404, {"detail": f"email {SPELT} not found!", "also_known_in": 1})
    assert api.get(target).status_code == 200
    create(api, email={"primary_email": LOST})
    assert api.delete(f"/ctms/{SPELT}").headers["Also-Known-In"] == "1"


def test_an_erasure_counts_it_or_includes_it(api: ApiClient, target: str) -> None:
    assert api.post("/erasures", {"emails": [SPELT]}).json["also_known_in"] == 1
    assert api.get(target).status_code == 200

    result = api.post("/erasures", {"emails": [SPELT], "include_fxa": True}).json

    assert (result["contacts"], result["unknown"], result["also_known_in"]) == (1, 0, 0)
    assert_error(api.get(target), 404, "Unknown email_id")
    assert execute("SELECT count(*) FROM merged_addresses") == 0


@pytest.mark.parametrize("include_fxa", [True, False])
def test_it_is_not_unknown_if_its_contact_is_erased(
    api: ApiClient, cli: CliRunner, target: str, include_fxa: bool
) -> None:
    own = api.get(target).json["email"]["primary_email"]
    command = ["delete-bulk", "--email", SPELT, "--email", own, "--json", *(["--include-fxa"] if include_fxa else [])]

    preview = json.loads(cli.invoke(ctms, [*command, "--dry-run"]).stdout)
    result = api.post("/erasures", {"emails": [SPELT, own], "include_fxa": include_fxa}).json

    assert (result["contacts"], result["unknown"], result["also_known_in"]) == (1, 0, 0)
    assert (preview["found"], preview["unknown"]) == (1, 0)


def test_a_list_reports_it_or_includes_it(api: ApiClient, cli: CliRunner, target: str) -> None:
    command = ["delete-bulk", "--email", SPELT, "--yes", "--json"]

    assert json.loads(cli.invoke(ctms, command).stdout)["also_known_in"] == 1
    assert api.get(target).status_code == 200
    assert cli.invoke(ctms, [*command, "--include-fxa"]).exit_code == 0
    assert api.get(target).status_code == 404


def test_an_address_that_is_kept_is_not_stored(api: ApiClient) -> None:
    account = {"primary_email": "account@example.com"}
    contact = merged(api, create(api, fxa={"primary_email": SPELT}), create(api, email={"primary_email": LOST}))
    assert contact["conflicts"] == []
    merged(api, create(api, fxa=account), create(api, fxa={"primary_email": "other@example.com"}))

    assert execute("SELECT count(*) FROM merged_addresses") == 2, "the own and the account address of the last source"


def test_nothing_is_stored_by_a_dry_run(api: ApiClient) -> None:
    target, source = create(api), create(api)

    api.post(f"{target}/merge", {"from": source.rpartition("/")[2], "dry_run": True})

    assert execute("SELECT count(*) FROM merged_addresses") == 0
