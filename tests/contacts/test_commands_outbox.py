"""A write adds the contact to the outbox in the same transaction, and defers no job: workers look for due entries."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import psycopg
import pytest

from ctms.testing import ApiClient
from tests.contacts.factories import full, minimal
from tests.sync.working import PLUGIN, row, rows

HEARD = "SELECT email_id::text FROM outbox"
JOBS = "SELECT count(*) FROM procrastinate_jobs"


@pytest.fixture
def ctms_plugins() -> Iterable[object]:
    return ["default_waitlist", PLUGIN]


@pytest.fixture
def email_id(make_contact: Callable[..., dict[str, Any]]) -> str:
    """Return a contact that is not in the outbox."""
    email_id: str = make_contact()["email"]["email_id"]
    rows("DELETE FROM outbox")
    return email_id


def test_a_new_contact(api: ApiClient) -> None:
    email_id = api.post("/ctms", minimal()).json["email"]["email_id"]

    assert rows(HEARD) == [email_id]
    assert row(JOBS) == 0


def test_creating_the_same_contact_adds_nothing_to_the_outbox(api: ApiClient) -> None:
    contact = full(waitlists=[])
    assert api.post("/ctms", contact).status_code == 201
    rows("DELETE FROM outbox")

    assert api.post("/ctms", contact).status_code == 200

    assert rows(HEARD) == []


@pytest.mark.parametrize("new", [True, False])
def test_put(api: ApiClient, email_id: str, new: bool) -> None:
    if new:
        email_id = f"{email_id[:-4]}abcd"
    body = {"email": {**minimal()["email"], "email_id": email_id}}

    assert api.put(f"/ctms/{email_id}", body).status_code in {200, 201}

    assert rows(HEARD) == [email_id]
    assert row(JOBS) == 0


def test_patch(api: ApiClient, email_id: str) -> None:
    for name in ("Jane", "Joan"):
        assert api.patch(f"/ctms/{email_id}", {"email": {"first_name": name}}).status_code == 200

    assert rows(HEARD) == [email_id]
    assert row(JOBS) == 0


def test_delete(api: ApiClient, email_id: str) -> None:
    address = row("SELECT primary_email FROM emails WHERE email_id = %s", email_id)

    assert api.delete(f"/ctms/{address}").status_code == 200

    assert rows(HEARD) == [email_id]
    assert rows("SELECT handler FROM erasure_tasks") == ["other"]
    assert row(JOBS) == 0


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/ctms", {"email": {"primary_email": "taken@example.com"}}),
        ("PATCH", "/ctms/{email_id}", {"email": {"primary_email": "taken@example.com"}}),
        ("PATCH", "/ctms/{email_id}", {"email": {"first_name": ["no", "name"]}}),
        ("PATCH", "/ctms/332de237-cab7-4461-bcc3-48e68f42bd5c", {"email": {"first_name": "Jane"}}),
        ("PUT", "/ctms/{email_id}", {"email": {"primary_email": "taken@example.com", "email_id": "{email_id}"}}),
        ("DELETE", "/ctms/nobody@example.com", None),
    ],
)
def test_a_request_that_fails_leaves_nothing(api: ApiClient, email_id: str, method: str, path: str, body: Any) -> None:
    api.post("/ctms", {"email": {"primary_email": "taken@example.com"}})
    rows("DELETE FROM outbox")
    if method == "PUT":
        body["email"]["email_id"] = email_id

    answer = api.request(method, path.format(email_id=email_id), json=body)

    assert answer.status_code in {404, 409, 422}
    assert rows(HEARD) == []


class TestWithoutABackend:
    @pytest.fixture
    def ctms_plugins(self) -> Iterable[object]:
        return ["default_waitlist"]

    def test_a_write_adds_nothing_for_backends(self, api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
        sent: list[str] = []
        execute = psycopg.Connection.execute

        def listen(connection: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
            sent.append(str(query))
            return execute(connection, query, *args, **kwargs)

        monkeypatch.setattr(psycopg.Connection, "execute", listen)

        contact = api.post("/ctms", minimal()).json
        api.patch(f"/ctms/{contact['email']['email_id']}", {"email": {"first_name": "Jane"}})
        api.delete(f"/ctms/{contact['email']['primary_email']}")

        assert any("INSERT INTO emails" in statement for statement in sent)
        assert any("UPDATE emails" in statement for statement in sent)
        assert not [one for one in sent if "outbox" in one or "procrastinate" in one]
