"""Erasures: the record of a deletion, its cost, and that no data of the person is left."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.contacts import removal
from ctms.database import pool
from ctms.database.engine import db
from ctms.erasure.erase import ORIGIN_COMMAND, ErasureRequest, erase, lock_addresses_to_forget
from ctms.errors import OperatorError
from ctms.plugins import Backend, hookimpl
from tests.contacts.factories import full
from tests.contacts.rows import execute
from tests.erasure.handlers import CRM, SHOP, Handlers
from tests.http import ApiClient

pytestmark = pytest.mark.usefixtures("nothing_erased")

# Members of a contact that are one person's: `primary_email` is twice there, in the account too.
PERSONAL = {"primary_email", "basket_token", "sfdc_id", "user_id", "fxa_id", "mofo_email_id", "mofo_contact_id"}


class Mirror:
    """A plugin with a backend."""

    def push(self, contacts: Any, idempotency_key: str) -> None:
        """Accept these."""

    @hookimpl
    def ctms_backends(self) -> Iterator[Backend]:
        """Yield a backend."""
        yield Backend(name="mirror", implementation=self)


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list of statements sent to the database from now on."""
    sent: list[str] = []
    execute_really = psycopg.Connection.execute

    def note(connection: Any, query: Any, *arguments: Any, **words: Any) -> Any:
        sent.append(" ".join(str(query).split()[:3]))
        return execute_really(connection, query, *arguments, **words)

    monkeypatch.setattr(psycopg.Connection, "execute", note)
    return sent


class TestCost:
    """The statements of a DELETE: only the first four and the last of these need a result before the commit."""

    PLAIN = (
        "SELECT c.enabled, EXISTS",
        "SELECT count(*) FROM",
        "SELECT FROM emails",
        "SELECT e.email_id, e.primary_email,",
    )
    ERASE = ("WITH record AS", "DELETE FROM emails", "SELECT kind, name")

    @pytest.fixture
    def ctms_plugins(self, request: pytest.FixtureRequest) -> list[object]:
        return list(getattr(request, "param", ()))

    @pytest.fixture
    def sent(self, api: ApiClient, statements: list[str]) -> list[str]:
        address = api.post("/ctms", full()).json["email"]["primary_email"]
        api.get("/ctms?fxa_id=x")  # a client that was seen recently is not recorded again
        statements.clear()
        assert api.delete(f"/ctms/{address}").status_code == 200
        return statements

    def test_three_statements_more_than_finding_the_contacts_needs(self, sent: list[str]) -> None:
        assert sent == [*self.PLAIN, *self.ERASE]

    @pytest.mark.parametrize("ctms_plugins", [(Handlers(),)], indirect=True)
    def test_two_more_for_all_handlers_together(self, sent: list[str]) -> None:
        assert sent[:7] == [*self.PLAIN, *self.ERASE]
        assert [one.split()[2] for one in sent[7:]] == ["erasure_handlers", "erasure_tasks"]

    @pytest.mark.parametrize("ctms_plugins", [(Mirror(),)], indirect=True)
    def test_backends_hear_that_the_contact_is_gone(self, sent: list[str]) -> None:
        assert sent[:7] == [*self.PLAIN, *self.ERASE]
        assert len(sent) == 9, "the outbox, and the deletions of all backends"
        waiting = "SELECT count(*) FROM outbox o LEFT JOIN emails e USING (email_id) WHERE e.email_id IS NULL"
        assert execute(waiting) == 1


class TestBatches:
    @pytest.fixture
    def ctms_plugins(self) -> list[object]:
        return [Handlers()]

    @pytest.mark.usefixtures("erasure_key")
    def test_a_record_grows_with_each_transaction(self, app: Flask, api: ApiClient) -> None:
        request = ErasureRequest(by="operator:ops", origin=ORIGIN_COMMAND)
        contacts = [api.post("/ctms", full()).json["email"]["primary_email"] for _ in range(5)]
        for batch in (contacts[:2], contacts[2:], []):
            with pool.writing() as connection:
                lock_addresses_to_forget(connection, request, batch)
                found = removal.lock_addresses(connection, [*batch, "nobody@example.com"])
                contacts_found = [one for position in range(len(batch)) for one in found[position]]
                assert [one.addresses["primary_email"] for one in contacts_found] == batch
                erase(connection, request, contacts_found, unknown=1)

        record = api.get(f"/erasures/{request.id}").json
        assert (record["requested_by"], record["contacts"], record["unknown"]) == ("operator:ops", 5, 3)
        assert [(one["name"], one["pending"]) for one in record["handlers"]] == [(CRM, 5), (SHOP, 5)]
        assert execute("SELECT count(*) FROM erasure_tasks") == 10
        assert execute("SELECT count(*) FROM erasure_addresses") == 10

    def test_forgetting_needs_a_key(self, app: Flask) -> None:
        with pytest.raises(OperatorError, match="CTMS_ERASURE_KEY is not set"), pool.writing() as connection:
            lock_addresses_to_forget(
                connection, ErasureRequest(by="operator:ops", origin=ORIGIN_COMMAND, forget=True), ["jane@example.com"]
            )


def everything_stored() -> str:
    """Return every value in the database as text, with bytes in hexadecimal."""
    tables = db.session.connection().exec_driver_sql(
        "SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY 1"
    )
    found = []
    for (table,) in tables.all():
        rows = db.session.connection().exec_driver_sql(f'SELECT t::text FROM "{table}" t').all()
        found += [f"{table}: {text}" for (text,) in rows]
    return "\n".join(found)


@pytest.mark.usefixtures("erasure_key")
class TestNoTrace:
    @pytest.fixture
    def ctms_plugins(self) -> list[object]:
        return ["default_waitlist", Handlers(), Mirror()]

    @pytest.fixture
    def logged(self, app: Flask) -> Iterator[Callable[[], str]]:
        root = logging.getLogger()
        (ours,) = [handler for handler in root.handlers if type(handler).__module__.startswith("ctms")]
        copy = logging.StreamHandler(io.StringIO())
        copy.setFormatter(ours.formatter)
        root.addHandler(copy)
        yield copy.stream.getvalue
        root.removeHandler(copy)

    @pytest.mark.parametrize("way", ["DELETE", "POST", "POST and forget"])
    def test_of_a_person_nothing_is_left_but_ids(self, api: ApiClient, logged: Callable[[], str], way: str) -> None:
        contact = full()
        contact["email"]["primary_email"] = f"Private-{contact['email']['primary_email']}"
        api.post("/ctms", contact)
        secrets = {
            str(value).lower()
            for group in ("email", "amo", "fxa", "mofo")
            for name, value in contact[group].items()
            if name in PERSONAL
        }
        assert len(secrets) == len(PERSONAL) + 1
        before = everything_stored().lower()
        assert all(secret in before for secret in secrets)

        address = contact["email"]["primary_email"]
        if way == "DELETE":
            api.delete(f"/ctms/{address}")
        else:
            identities = {"fxa_id": contact["fxa"]["fxa_id"], "primary_email": address}
            headers = {"Idempotency-Key": "7f3b"}
            body = {"emails": [address], "identities": [identities], "forget": way != "POST"}
            assert api.post("/erasures", body, headers=headers).json["contacts"] == 1
            api.post("/ctms", contact if way != "POST" else {"email": {}})
        told = everything_stored().lower()
        assert all(f'"{secret}' in told for secret in secrets), "the handlers receive it"
        assert all(
            line.startswith("erasure_tasks: ") for line in told.splitlines() if any(one in line for one in secrets)
        )
        # The same as the background service when the handlers are done.
        execute("DELETE FROM erasure_tasks")
        execute("UPDATE erasure_handlers SET done = pending, pending = 0")

        left = everything_stored().lower()
        assert "erasure_addresses: " in left
        output = (logged() + api.get("/metrics").text + api.get("/openapi.json").text).lower()
        assert "path=/" in output
        for secret in secrets:
            for written in (secret, secret.encode().hex()):
                assert written not in left
                assert written not in output
