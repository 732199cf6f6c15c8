"""Other contacts that have an erased address as that of their account are counted, and erased only on request."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.bulk.entries import Entry
from ctms.contacts import accounts, removal
from ctms.contacts.removal import lock_ids
from ctms.database.pool import Connection
from ctms.erasure.deletion import ERASED, BulkDeletion
from ctms.erasure.erase import ORIGIN_COMMAND, ErasureRequest
from tests.cli.running import run, run_json
from tests.contacts.rows import execute
from tests.erasure.listed import connection, erasure_key, outcomes, work_list
from tests.http import ApiClient
from tests.plans import fill_contacts, plan_of

__all__ = ["connection", "erasure_key"]

pytestmark = pytest.mark.usefixtures("nothing_erased")

ADDRESS = "ines@münchen.de"
SPELT = "Ines@XN--MNCHEN-3YA.de"

Make = Callable[..., str]


@pytest.fixture
def make(api: ApiClient) -> Make:
    """Create a contact with this address and one for its account, and return its id."""

    def make_contact(primary_email: str, account: str | None = None) -> str:
        fxa = {"fxa_id": uuid.uuid4().hex, "primary_email": account}
        body = {"email": {"primary_email": primary_email}, **({"fxa": fxa} if account else {})}
        created = api.post("/ctms", body)
        assert created.status_code == 201, created.text
        found: str = created.json["email"]["email_id"]
        return found

    return make_contact


def left(api: ApiClient, *ids: str) -> list[bool]:
    """Return which of the contacts exist."""
    return [api.get(f"/ctms/{email_id}").status_code == 200 for email_id in ids]


class TestDelete:
    def test_a_header_counts_others(self, api: ApiClient, make: Make) -> None:
        own, other, another = make(ADDRESS, ADDRESS), make("b@example.com", SPELT), make("c@example.com", ADDRESS)

        deleted = api.delete(f"/ctms/{SPELT}")

        assert deleted.headers["Also-Known-In"] == "2"
        assert left(api, own, other, another) == [False, True, True]
        assert api.get(f"/erasures/{deleted.headers['Erasure-Id']}").json["also_known_in"] == 2

    def test_there_is_none(self, api: ApiClient, make: Make) -> None:
        make(ADDRESS, "another@example.com")

        assert api.delete(f"/ctms/{ADDRESS}").headers["Also-Known-In"] == "0"


class TestRequest:
    def test_others_are_counted_and_stay(self, api: ApiClient, make: Make) -> None:
        own, other = make(ADDRESS), make("b@example.com", SPELT)

        erased = api.post("/erasures", {"emails": [SPELT, "nobody@example.com"]}).json

        assert (erased["contacts"], erased["unknown"], erased["also_known_in"]) == (1, 1, 1)
        assert api.get(f"/erasures/{erased['id']}").json["also_known_in"] == 1
        assert left(api, own, other) == [False, True]

    def test_an_erased_contact_is_not_counted_as_another(self, api: ApiClient, make: Make) -> None:
        make(ADDRESS)
        make("b@example.com", ADDRESS)

        erased = api.post("/erasures", {"emails": [ADDRESS, "b@example.com"]}).json

        assert (erased["contacts"], erased["also_known_in"]) == (2, 0)

    @pytest.mark.parametrize("way", ["emails", "identities"])
    def test_they_are_erased_on_demand(self, api: ApiClient, make: Make, way: str) -> None:
        own, other, kept = make(ADDRESS), make("b@example.com", SPELT), make("c@example.com", "b@example.com")
        whom = [ADDRESS] if way == "emails" else [{"email_id": own}]

        erased = api.post("/erasures", {way: whom, "include_fxa": True}).json

        assert (erased["contacts"], erased["unknown"], erased["also_known_in"]) == (2, 0, 0)
        assert left(api, own, other, kept) == [False, False, True]

    def test_an_address_that_is_only_that_of_an_account(self, api: ApiClient, make: Make) -> None:
        other = make("b@example.com", ADDRESS)

        counted = api.post("/erasures", {"emails": [ADDRESS]}).json
        assert (counted["contacts"], counted["unknown"], counted["also_known_in"]) == (0, 1, 1)

        erased = api.post("/erasures", {"emails": [ADDRESS], "include_fxa": True}).json
        assert (erased["contacts"], erased["unknown"], erased["also_known_in"]) == (1, 0, 0)
        assert left(api, other) == [False]

    @pytest.mark.usefixtures("erasure_key")
    def test_forgetting_suppresses_their_own_addresses_too(self, api: ApiClient, make: Make) -> None:
        make("b@example.com", ADDRESS)

        api.post("/erasures", {"emails": [ADDRESS], "include_fxa": True, "forget": True})

        for address in (ADDRESS, "b@example.com"):
            assert api.post("/ctms", {"email": {"primary_email": address}}).status_code == 403

    @pytest.mark.usefixtures("erasure_key")
    def test_a_request_that_is_repeated_gets_the_same_answer(self, api: ApiClient, make: Make) -> None:
        make(ADDRESS)
        make("b@example.com", ADDRESS)
        key = {"Idempotency-Key": "4b7b"}
        first, again = (api.post("/erasures", {"emails": [ADDRESS]}, headers=key).json for _ in range(2))

        assert first == again
        assert again["also_known_in"] == 1
        other = api.post("/erasures", {"emails": [ADDRESS], "include_fxa": True}, headers=key)
        assert other.status_code == 422

    def test_an_erasure_by_an_earlier_version_does_not_know(self, api: ApiClient, make: Make) -> None:
        make(ADDRESS)
        erasure = api.delete(f"/ctms/{ADDRESS}").headers["Erasure-Id"]
        execute("UPDATE erasures SET also_known_in = NULL")

        assert api.get(f"/erasures/{erasure}").json["also_known_in"] is None


class TestCommand:
    def test_the_summary_counts_others(self, cli: CliRunner, api: ApiClient, make: Make) -> None:
        own, other = make(ADDRESS), make("b@example.com", SPELT)
        arguments = ("delete-bulk", "--email", SPELT, "--yes")

        assert run_json(cli, *arguments, "--dry-run")["also_known_in"] == 1
        found = run_json(cli, *arguments)

        assert (found["erased"], found["also_known_in"]) == (1, 1)
        assert execute("SELECT also_known_in FROM erasures") == 1
        assert left(api, own, other) == [False, True]
        assert "also known in:" in run(cli, *arguments).stdout

    def test_they_are_deleted_on_demand(self, cli: CliRunner, api: ApiClient, make: Make) -> None:
        own, other = make(ADDRESS), make("b@example.com", SPELT)
        arguments = ("delete-bulk", "--email", ADDRESS, "--include-fxa", "--yes")

        preview = run_json(cli, *arguments, "--dry-run")
        assert (preview["found"], preview["unknown"], preview["also_known_in"]) == (2, 0, 0)
        assert left(api, own, other) == [True, True]
        found = run_json(cli, *arguments)

        assert (found["erased"], found["unknown"], found["also_known_in"]) == (2, 0, 0)
        assert left(api, own, other) == [False, False]

    def test_one_that_a_later_batch_erases_counts_no_more(self, connection: Connection, make: Make) -> None:
        make(ADDRESS)
        make("b@example.com", ADDRESS)
        make("c@example.com", "b@example.com")
        deletion = BulkDeletion(ErasureRequest(by="operator:ops", origin=ORIGIN_COMMAND))
        for address in (ADDRESS, "b@example.com"):
            found = outcomes(work_list(connection, [Entry(None, address)]), deletion.erase)
            assert [one.outcome for one in found] == [ERASED]
            deletion.report(found)

        assert deletion.also_known_in == 1
        assert execute("SELECT also_known_in FROM erasures") == 1


def test_one_that_changes_its_account_before_it_is_locked_stays(
    connection: Connection, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make("b@example.com", ADDRESS)

    def changed(on: Connection, ids: Any) -> Any:
        execute("UPDATE fxa SET primary_email = 'another@example.com'")
        return lock_ids(on, ids)

    monkeypatch.setattr(removal, "lock_ids", changed)

    assert accounts.lock(connection, [ADDRESS], []) == {}


@pytest.mark.parametrize(
    ("sql", "values"),
    [(accounts._FIND, ([0], ["a@x"], [0], [b"f"], [])), (accounts._count(1), ["a@x", b"f", "a@x"])],
    ids=["several", "one"],
)
def test_they_are_found_by_the_index(connection: Connection, sql: str, values: Any) -> None:
    fill_contacts(connection)

    plan = plan_of(connection, sql, values)

    assert "idx_fxa_primary_email_lower" in plan
    assert "Seq Scan" not in plan
