"""One person, however the address is spelt: every operation, with every spelling, on every form that may be stored.

The database is one of an existing deployment that was adopted: its rows were written before our migrations ran.
"""

from __future__ import annotations

import hmac
import unicodedata
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctms.addresses import normalize
from ctms.app import create_app
from ctms.database.alembic_config import upgrade_own_tables
from ctms.database.engine import release_database
from ctms.settings import Settings
from ctms.testing.apps import Apps
from ctms.testing.plugins import bundled
from ctms.testing.servers import empty_database
from tests.cli.running import run, run_json
from tests.conftest import SECRET_KEY
from tests.contacts.factories import address, minimal
from tests.contacts.rows import execute, insert, insert_contact
from tests.database.test_migrations import FIRST
from tests.http import Answer, ApiClient, assert_error
from tests.spellings import SPELLINGS, STORED, accepted_addresses, respelt
from tests.sync.receiving import RECEIVING

pytestmark = pytest.mark.usefixtures("nothing_erased", "erasure_key")

OWN, ACCOUNT = "own", "account"


@pytest.fixture(scope="module")
def apps(postgres: str, worker_id: str) -> Iterator[Apps]:
    """Return apps on an adopted database instead of the database shared by all tests."""
    url = empty_database(postgres, f"adopted_{worker_id}")
    options = Settings(db_url=url, secret_key=SECRET_KEY, use_mozlog=False)
    existing = create_app(options, bundled())
    with existing.app_context():
        upgrade_own_tables(revision=FIRST)
        for number, spelling in enumerate(STORED.values()):
            insert_contact(primary_email=spelling.format(f"{OWN}{number}"))
            owner = insert_contact()
            insert("fxa", email_id=owner, primary_email=spelling.format(f"{ACCOUNT}{number}"), account_deleted=False)
    release_database(existing)
    made = Apps(options)
    yield made
    made.release()


@pytest.fixture
def ctms_plugins() -> list[object]:
    return [*bundled(), RECEIVING]


@dataclass(frozen=True)
class Case:
    """A stored address, a spelling of it, its contact, and files with the spelling."""

    stored: str
    spelt: str
    email_id: str
    file: Path

    @property
    def normal(self) -> str:
        """The normal form."""
        return normalize(self.stored)


def find(column: str, table: str, value: str) -> str:
    """Return the id of the contact with exactly this address."""
    return str(execute(f"SELECT email_id FROM {table} WHERE {column} = :value", value=value))


@pytest.fixture(params=list(STORED))
def stored_as(request: pytest.FixtureRequest) -> int:
    """Return the number of a stored form."""
    return list(STORED).index(request.param)


@pytest.fixture(params=list(SPELLINGS))
def spelling(request: pytest.FixtureRequest) -> str:
    """Return a spelling."""
    return SPELLINGS[request.param]


@pytest.fixture
def own(app: Flask, stored_as: int, spelling: str, tmp_path: Path) -> Case:  # noqa: ARG001  inside its transaction
    """Return the case of a contact's own address."""
    return _case(OWN, stored_as, spelling, tmp_path, lambda stored: find("primary_email", "emails", stored))


@pytest.fixture
def account(app: Flask, stored_as: int, spelling: str, tmp_path: Path) -> Case:  # noqa: ARG001  inside its transaction
    """Return the case of an account's address."""
    return _case(ACCOUNT, stored_as, spelling, tmp_path, lambda stored: find("primary_email", "fxa", stored))


def _case(kind: str, stored_as: int, spelling: str, folder: Path, find_id: Callable[[str], str]) -> Case:
    tag = f"{kind}{stored_as}"
    stored = list(STORED.values())[stored_as].format(tag)
    spelt = spelling.format(tag)
    (folder / "list.txt").write_text(f"{spelt}\n")
    return Case(stored, spelt, find_id(stored), folder / "list.txt")


def exists(case: Case) -> bool:
    """Return whether the contact exists."""
    return bool(execute("SELECT count(*) FROM emails WHERE email_id = :id", id=case.email_id))


def assert_taken(answer: Answer, detail: str) -> None:
    """Assert that a response is a conflict of the address."""
    assert assert_error(answer, 409, detail)["field"] == "primary_email"


class TestReading:
    @pytest.mark.parametrize("path", ["/identities", "/ctms"])
    def test_by_its_own_address(self, api: ApiClient, own: Case, path: str) -> None:
        (found,) = api.get(path, query_string={"primary_email": own.spelt}).json
        assert own.email_id in str(found)
        assert own.stored in str(found)

    @pytest.mark.parametrize("path", ["/identities", "/ctms"])
    def test_by_that_of_its_account(self, api: ApiClient, account: Case, path: str) -> None:
        (found,) = api.get(path, query_string={"fxa_primary_email": account.spelt}).json
        assert account.email_id in str(found)
        assert account.stored in str(found)


class TestErasing:
    def test_delete(self, api: ApiClient, own: Case) -> None:
        (deleted,) = api.delete(f"/ctms/{own.spelt}").json
        assert (deleted["email_id"], deleted["primary_email"]) == (own.email_id, own.stored)
        assert not exists(own)
        assert_error(api.delete(f"/ctms/{own.spelt}"), 404, f"email {own.spelt} not found!")

    def test_conditional_delete(self, api: ApiClient, own: Case) -> None:
        answer = api.delete(f"/ctms/{own.spelt}", headers={"If-Match": '"another"'})
        assert answer.status_code == 412
        assert exists(own)

    def test_erasure(self, api: ApiClient, own: Case) -> None:
        body = api.post("/erasures", {"emails": [own.spelt]}).json
        assert (body["contacts"], body["unknown"]) == (1, 0)
        assert not exists(own)

    def test_erasure_by_identities(self, api: ApiClient, own: Case, account: Case) -> None:
        wanted = [
            {"primary_email": own.spelt, "email_id": own.email_id},
            {"fxa_primary_email": account.spelt},
        ]
        body = api.post("/erasures", {"identities": wanted}).json
        assert (body["contacts"], body["unknown"]) == (2, 0)
        assert not exists(own)
        assert not exists(account)

    def test_spellings_of_one_erasure_are_one_item(self, api: ApiClient, own: Case) -> None:
        body = api.post("/erasures", {"emails": [own.spelt, own.stored, own.normal]}).json
        assert (body["contacts"], body["unknown"]) == (1, 0)

    def test_delete_bulk(self, cli: CliRunner, api: ApiClient, own: Case) -> None:
        own.file.write_text(f"{own.spelt}\n{own.normal}\n")
        preview = run_json(cli, "delete-bulk", "--email-file", str(own.file), "--dry-run")
        assert (preview["found"], preview["unknown"], preview["duplicates"]) == (1, 0, 1)

        done = run_json(cli, "delete-bulk", "--email-file", str(own.file), "--yes", "--forget")

        assert (done["erased"], done["unknown"], done["duplicates"]) == (1, 0, 1)
        assert not exists(own)
        for one in (own.spelt, own.stored, own.normal):
            assert_error(api.post("/ctms", minimal(primary_email=one)), 403, "Address is suppressed")
        again = run_json(cli, "delete-bulk", "--email-file", str(own.file), "--yes")
        assert (again["erased"], again["erased_before"]) == (0, 1)

    def test_each_spelling_finds_the_contact(self, cli: CliRunner, api: ApiClient, own: Case) -> None:
        record = api.delete(f"/ctms/{own.stored}").headers["Erasure-Id"]
        (found,) = run_json(cli, "erasures", "find", own.spelt)
        assert found["id"] == record


class TestOptingOut:
    def test_by_list(self, cli: CliRunner, own: Case, account: Case) -> None:
        rows = "".join(f"{one.spelt},2026-01-01\n{one.normal},2025-01-01\n" for one in (own, account))
        own.file.write_text(f"Email,Date\n{rows}")

        done = run_json(cli, "opt-out", str(own.file), "--yes")

        assert (done["opted_out"], done["unknown"], done["duplicates"]) == (2, 0, 2)
        for one in (own, account):
            assert execute("SELECT has_opted_out_of_email FROM emails WHERE email_id = :id", id=one.email_id)


def test_resync_by_list(cli: CliRunner, own: Case) -> None:
    execute("DELETE FROM outbox")
    done = run_json(cli, "backends", "resync", "mail", "--email-file", str(own.file))
    assert (done["contacts"], done["unknown"]) == (1, 0)
    assert str(execute("SELECT email_id FROM outbox WHERE backend = 'mail'")) == own.email_id


class TestSuppressing:
    @pytest.mark.parametrize("by", ["add", "import"])
    def test_every_other_spelling_is_refused(self, cli: CliRunner, api: ApiClient, own: Case, by: str) -> None:
        api.delete(f"/ctms/{own.stored}")
        run(cli, "suppressions", by, own.spelt if by == "add" else str(own.file))

        for one in (own.stored, own.normal, own.spelt):
            assert_error(api.post("/ctms", minimal(primary_email=one)), 403, "Address is suppressed")
        other = api.post("/ctms", minimal()).json["email"]["email_id"]
        patch = {"email": {"primary_email": own.stored}}
        assert_error(api.patch(f"/ctms/{other}", patch), 403, "Address is suppressed")

        for one in (own.stored, own.normal, own.spelt):
            run(cli, "suppressions", "check", one)
        run(cli, "suppressions", "remove", own.normal)
        run(cli, "suppressions", "check", own.spelt, status=4)
        assert api.post("/ctms", minimal(primary_email=own.spelt)).status_code == 201

    def test_as_the_address_of_an_account(self, cli: CliRunner, api: ApiClient, own: Case) -> None:
        run(cli, "suppressions", "add", own.spelt)
        account = {"fxa_id": "1", "primary_email": own.stored}
        other = api.post("/ctms", minimal()).json["email"]["email_id"]

        for answer in (
            api.post("/ctms", {**minimal(), "fxa": account}),
            api.put(f"/ctms/{other}", {**minimal(email_id=other), "fxa": account}),
            api.patch(f"/ctms/{other}", {"fxa": {"primary_email": own.stored}}),
        ):
            assert_error(answer, 403, "Address is suppressed")
        assert api.patch(f"/ctms/{other}", {"fxa": "DELETE"}).status_code == 200

    def test_with_the_fingerprint_of_an_earlier_version(self, cli: CliRunner, api: ApiClient, own: Case) -> None:
        """Earlier versions used the spelling as given."""
        api.delete(f"/ctms/{own.stored}")
        run(cli, "suppressions", "add", "somebody@example.com")
        raw = _earlier_fingerprint(own.stored)
        execute("UPDATE suppressions SET fingerprint = :raw", raw=raw)

        assert_error(api.post("/ctms", minimal(primary_email=own.stored)), 403, "Address is suppressed")
        run(cli, "suppressions", "remove", own.stored)
        assert api.post("/ctms", minimal(primary_email=own.spelt)).status_code == 201


def _earlier_fingerprint(text: str) -> bytes:
    return hmac.digest(b"a key for tests only", unicodedata.normalize("NFC", text).lower().encode(), "sha256")


class TestWriting:
    def test_creating_another_spelling_is_a_conflict(self, api: ApiClient, own: Case) -> None:
        answer = api.post("/ctms", minimal(primary_email=own.spelt))
        assert_taken(answer, "Contact already exists")

    def test_putting_it_elsewhere_is_a_conflict(self, api: ApiClient, own: Case) -> None:
        new = str(uuid.uuid4())
        detail = "Contact with primary_email or basket_token already exists"
        for email_id in (new, api.post("/ctms", minimal()).json["email"]["email_id"]):
            answer = api.put(f"/ctms/{email_id}", minimal(email_id=email_id, primary_email=own.spelt))
            assert_taken(answer, detail)
        assert not execute("SELECT count(*) FROM emails WHERE email_id = :id", id=new)

    def test_changing_another_to_it_is_a_conflict(self, api: ApiClient, own: Case) -> None:
        other = api.post("/ctms", minimal()).json["email"]["email_id"]
        detail = "Contact with primary_email, basket_token, mofo_email_id, or fxa_id already exists"
        patch = {"email": {"primary_email": own.spelt}}
        assert_taken(api.patch(f"/ctms/{other}", patch), detail)
        assert_error(api.patch(f"/ctms/{uuid.uuid4()}", patch), 404, "Unknown email_id")

    def test_creating_the_same_contact_is_idempotent(self, api: ApiClient, own: Case) -> None:
        execute(
            "UPDATE emails SET double_opt_in = false, email_format = 'H', email_lang = 'en',"
            " has_opted_out_of_email = false WHERE email_id = :id",
            id=own.email_id,
        )
        answer = api.post("/ctms", minimal(email_id=own.email_id, primary_email=own.stored))
        assert answer.status_code == 200, answer.text
        assert answer.json["email"]["primary_email"] == own.stored

    @pytest.mark.parametrize("method", ["put", "patch"])
    def test_writing_it_to_its_own_contact_stores_its_normal_form(self, api: ApiClient, own: Case, method: str) -> None:
        body = minimal(email_id=own.email_id, primary_email=own.spelt)
        answer = getattr(api, method)(f"/ctms/{own.email_id}", body)
        assert answer.json["email"]["primary_email"] == normalize(own.spelt)


class TestTwoContactsWithOneAddress:
    """An adopted database may hold two such contacts, because its unique index does not use the normal form."""

    @pytest.fixture
    def pair(self, app: Flask) -> list[str]:
        """Return the ids of two contacts with one address, in normal form and raw."""
        return sorted(insert_contact(primary_email=one) for one in ("zoë@münchen.de", "zoë@xn--mnchen-3ya.de"))

    def test_both_are_found_and_erased(self, api: ApiClient, pair: list[str]) -> None:
        found = api.get("/identities", query_string={"primary_email": "ZOË@münchen.de"}).json
        assert sorted(one["email_id"] for one in found) == pair
        assert [one["email_id"] for one in api.delete("/ctms/zoë@münchen.de").json] == pair

    def test_both_by_list(self, cli: CliRunner, pair: list[str], tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("zoë@münchen.de\n")
        report = tmp_path / "report.csv"
        done = run_json(
            cli, "delete-bulk", "--email-file", str(tmp_path / "list.txt"), "--yes", "--report", str(report)
        )
        assert (done["erased"], done["unknown"]) == (2, 0)
        assert all(one in report.read_text() for one in pair)

    @pytest.mark.parametrize("method", ["put", "patch"])
    def test_writing_a_read_contact_keeps_the_spelling(self, api: ApiClient, pair: list[str], method: str) -> None:
        for email_id in pair:
            before = api.get(f"/ctms/{email_id}").json["email"]["primary_email"]
            body = minimal(email_id=email_id, primary_email=before, first_name="Zoë")
            answer = getattr(api, method)(f"/ctms/{email_id}", body)
            assert answer.status_code in {200, 201}, answer.text
            assert answer.json["email"]["primary_email"] == before
            assert answer.json["email"]["first_name"] == "Zoë"


class TestSpaces:
    def test_a_plus_that_was_not_escaped(self, api: ApiClient) -> None:
        tagged = address().replace("@", "+tag@")
        api.post("/ctms", {"email": {"primary_email": tagged}, "fxa": {"fxa_id": "x", "primary_email": tagged}})
        for name in ("primary_email", "fxa_primary_email"):
            assert len(api.get(f"/identities?{name}={tagged}").json) == 1

    @pytest.mark.parametrize("given", ["  {}\t", "Wes <{}>", '"Doe, Wes" <{}>'])
    @pytest.mark.parametrize("method", ["post", "put", "patch"])
    def test_decoration_of_an_address(self, api: ApiClient, given: str, method: str) -> None:
        wanted = address()
        email_id = api.post("/ctms", minimal()).json["email"]["email_id"]
        body = {"email": {"primary_email": given.format(wanted)}}
        if method == "post":
            answer = api.post("/ctms", body)
        elif method == "put":
            answer = api.put(f"/ctms/{email_id}", {"email": {**body["email"], "email_id": email_id}})
        else:
            answer = api.patch(f"/ctms/{email_id}", body)
        assert answer.json["email"]["primary_email"] == wanted

    @pytest.mark.parametrize("given", ["  {}\t", "Wes <{}>", '"Doe, Wes" <{}>'])
    def test_decoration_of_an_account_address(self, api: ApiClient, given: str) -> None:
        wanted = address().upper()
        account = {"fxa_id": wanted, "primary_email": given.format(wanted)}
        assert api.post("/ctms", {**minimal(), "fxa": account}).json["fxa"]["primary_email"] == wanted
        assert len(api.get("/identities", query_string={"fxa_primary_email": wanted}).json) == 1
        assert api.post("/erasures", {"emails": [wanted], "include_fxa": True}).json["contacts"] == 1

    @pytest.mark.parametrize("text", ["nobody", " of <no> service ", "a@b@c"])
    def test_the_address_of_an_account_may_be_any_text(self, api: ApiClient, text: str) -> None:
        account = {"fxa_id": address(), "primary_email": text}
        assert api.post("/ctms", {**minimal(), "fxa": account}).json["fxa"]["primary_email"] == text


@given(written=accepted_addresses(), data=st.data())
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_all_operations_agree(api: ApiClient, cli: CliRunner, written: str, data: st.DataObject) -> None:
    """Any spelling of any accepted address finds, erases and suppresses the stored contact."""
    for table in ("emails", "suppressions"):  # a failed example may have left some
        execute(f"DELETE FROM {table}")
    created = api.post("/ctms", minimal(primary_email=written))
    assert created.status_code == 201, created.text
    stored = created.json["email"]["primary_email"]
    one, other, third = (data.draw(respelt(stored)) for _ in range(3))
    assert_taken(api.post("/ctms", minimal(primary_email=one)), "Contact already exists")
    (found,) = api.get("/identities", query_string={"primary_email": other}).json
    assert found["primary_email"] == stored
    body = api.post("/erasures", {"emails": [third], "forget": True}).json
    assert (body["contacts"], body["unknown"]) == (1, 0)
    assert api.get("/identities", query_string={"primary_email": stored}).json == []
    assert_error(api.post("/ctms", minimal(primary_email=other)), 403, "Address is suppressed")
    run(cli, "suppressions", "remove", "--", one)
    created = api.post("/ctms", minimal(primary_email=third))
    assert created.status_code == 201, created.text
    assert_error(api.delete(f"/ctms/x{one}"), 404, f"email x{one} not found!")
    assert len(api.delete(f"/ctms/{one}").json) == 1


def test_of_an_existing_deployment(stored_as: int) -> None:
    """The stored forms differ; otherwise the matrix would test one of them three times."""
    assert len({value.format(stored_as) for value in STORED.values()}) == 3
