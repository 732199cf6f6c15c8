"""`flask ctms erasures`: records and parked contacts."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.erasure import records
from ctms.outbox import deletions
from ctms.plugins import Backend, hookimpl
from tests.cli.running import run, run_json
from tests.contacts.factories import address, full
from tests.contacts.rows import execute
from tests.erasure.handlers import CRM, SHOP, Handlers
from tests.http import ApiClient

pytestmark = pytest.mark.usefixtures("nothing_erased")


class Mirrors:
    """A plugin with two backends."""

    def push(self, contacts: Any, idempotency_key: str) -> None:
        """Take these."""

    @hookimpl
    def ctms_backends(self) -> Iterator[Backend]:
        """Declare two backends."""
        yield Backend(name="mirror", implementation=self)
        yield Backend(name="copy", implementation=self)


@pytest.fixture
def ctms_plugins() -> list[object]:
    return [Handlers()]


@pytest.fixture
def contact(api: ApiClient) -> dict[str, Any]:
    body = full()
    api.post("/ctms", body)
    return body


def delete(api: ApiClient, contact: dict[str, Any]) -> str:
    return api.delete(f"/ctms/{contact['email']['primary_email']}").headers["Erasure-Id"]


def parked_at_old_handler(api: ApiClient, contact: dict[str, Any]) -> str:
    """Return an erasure that is parked at the deletion handler `old`, which no plugin provides any more."""
    erasure = delete(api, contact)
    execute(
        "INSERT INTO erasure_handlers SELECT erasure_id, 'old', 1, 0, 0, 0, NULL, now(), now() FROM"
        " erasure_handlers WHERE handler = 'crm'"
    )
    execute("UPDATE erasure_tasks SET handler = 'old' WHERE handler = 'crm'")
    park(erasure, "old")
    return erasure


def park(erasure_id: str, handler: str, reason: str = "no account") -> None:
    """Park the handler's tasks, as the background service does."""
    execute(
        "UPDATE erasure_tasks SET parked_at = now(), reason = :reason, attempts = 5, failures = 5"
        " WHERE erasure_id = :id AND handler = :handler",
        id=erasure_id,
        handler=handler,
        reason=reason,
    )
    execute(
        "UPDATE erasure_handlers SET parked = pending, pending = 0, reason = :reason"
        " WHERE erasure_id = :id AND handler = :handler",
        id=erasure_id,
        handler=handler,
        reason=reason,
    )


def finish(erasure_id: str, handler: str) -> None:
    execute("DELETE FROM erasure_tasks WHERE erasure_id = :id AND handler = :handler", id=erasure_id, handler=handler)
    execute(
        "UPDATE erasure_handlers SET done = pending, pending = 0 WHERE erasure_id = :id AND handler = :handler",
        id=erasure_id,
        handler=handler,
    )


class TestList:
    def test_the_newest_first(self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]) -> None:
        assert run_json(cli, "erasures", "list") == []
        first = delete(api, contact)
        execute("UPDATE erasures SET requested_at = requested_at - interval '1 day'")
        second = api.post("/erasures", {"emails": ["nobody@example.com"]}).json["id"]

        assert [one["id"] for one in run_json(cli, "erasures", "list")] == [second, first]
        assert [one["id"] for one in run_json(cli, "erasures", "list", "--limit", "1")] == [second]
        assert [one["id"] for one in run_json(cli, "erasures", "list", "--unfinished")] == [first]
        lines = run(cli, "erasures", "list").stdout.splitlines()
        assert lines[0].split()[:3] == ["id", "requested_at", "requested_by"]
        assert lines[1].split()[-5:] == ["api", "no", "0", "1", "done"]
        assert lines[2].split()[-5:] == ["delete", "no", "1", "0", "pending"]

    def test_the_status_is_the_worst_there_is(self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]) -> None:
        erasure = delete(api, contact)

        def status() -> str:
            found: str = run_json(cli, "erasures", "show", erasure)["status"]
            return found

        assert status() == "pending"
        park(erasure, CRM)
        assert status() == "parked"
        finish(erasure, SHOP)
        assert status() == "parked"
        run(cli, "erasures", "retry", erasure)
        assert status() == "pending"
        execute("UPDATE erasure_handlers SET pending = 0, done = 1 WHERE handler = 'crm'")
        execute("UPDATE erasure_tasks SET step = 'verify' WHERE handler = 'crm'")
        assert status() == "verifying"
        execute("DELETE FROM erasure_tasks")
        assert status() == "done"


class TestShow:
    def test_the_record_and_its_handlers(self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]) -> None:
        erasure = delete(api, contact)
        park(erasure, CRM, "unknown [to] us")

        assert run_json(cli, "erasures", "show", erasure) == api.get(f"/erasures/{erasure}").json
        shown = run(cli, "erasures", "show", erasure).stdout
        assert "client:id_test" in shown
        assert [line.split()[:6] for line in shown.splitlines()[-2:]] == [
            [CRM, "yes", "0", "0", "0", "1"],
            [SHOP, "yes", "1", "0", "0", "0"],
        ]
        assert "unknown [to] us" in shown

    def test_one_that_there_is_not(self, cli: CliRunner) -> None:
        unknown = str(uuid.uuid4())
        for command in ("show", "retry"):
            assert run(cli, "erasures", command, unknown, status=4).stderr == f"Error: there is no erasure {unknown}\n"
            run(cli, "erasures", command, "1", status=2)


class TestFind:
    @pytest.mark.usefixtures("erasure_key")
    def test_in_any_case_and_by_the_address_of_the_account(
        self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]
    ) -> None:
        erasure = delete(api, contact)

        own = contact["email"]["primary_email"]
        for known in (own.upper(), contact["fxa"]["primary_email"], f"mailto:{own},", f"\N{ZERO WIDTH SPACE}{own}"):
            (found,) = run_json(cli, "erasures", "find", known)
            assert (found["id"], found["requested_by"]) == (erasure, "client:id_test")
            assert datetime.fromisoformat(found["requested_at"]).tzinfo
            text = run(cli, "erasures", "find", known).stdout
            assert erasure in text
            assert known not in text

    @pytest.mark.usefixtures("erasure_key")
    def test_one_that_was_not_erased(self, cli: CliRunner, contact: dict[str, Any]) -> None:
        for unknown in (address(), contact["email"]["primary_email"]):
            told = run(cli, "erasures", "find", unknown, status=4).stderr
            assert told == "Error: no erasure of this address is known\n"

    def test_without_a_key(self, cli: CliRunner) -> None:
        assert "CTMS_ERASURE_KEY is not set" in run(cli, "erasures", "find", "jane@example.com", status=1).stderr

    def test_invalid_addresses(self, cli: CliRunner) -> None:
        run(cli, "erasures", "find", "jane", status=2)


class TestRetry:
    def test_only_parked_contacts_are_retried(self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]) -> None:
        erasure, other = delete(api, contact), full()
        api.post("/ctms", other)
        elsewhere = delete(api, other)
        park(erasure, CRM)
        park(elsewhere, CRM)

        assert run_json(cli, "erasures", "retry", erasure) == {"id": erasure, "again": {CRM: 1}, "backends": {}}

        handler = api.get(f"/erasures/{erasure}").json["handlers"][0]
        assert (handler["name"], handler["pending"], handler["parked"]) == (CRM, 1, 0)
        waiting = "SELECT count(*) FROM erasure_tasks WHERE erasure_id = :id AND failures = 0 AND parked_at IS NULL"
        assert execute(waiting, id=erasure) == 2
        assert api.get(f"/erasures/{elsewhere}").json["status"] == "parked"

    def test_all_that_is_parked_of_one_handler(
        self, cli: CliRunner, api: ApiClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(records, "BATCH", 2)
        contacts = [full() for _ in range(5)]
        for one in contacts:
            api.post("/ctms", one)
        many = api.post("/erasures", {"emails": [one["email"]["primary_email"] for one in contacts[:3]]}).json["id"]
        erasures = [many, delete(api, contacts[3])]
        untouched = delete(api, contacts[4])
        for erasure in erasures:
            park(erasure, CRM)
        park(untouched, SHOP)

        assert run_json(cli, "erasures", "retry", "--handler", CRM, "--all") == {"handler": CRM, "retried": 4}

        for erasure, number in zip(erasures, (3, 1), strict=True):
            handler = api.get(f"/erasures/{erasure}").json["handlers"][0]
            assert (handler["name"], handler["pending"], handler["parked"]) == (CRM, number, 0)
        assert execute("SELECT count(*) FROM erasure_tasks WHERE parked_at IS NOT NULL") == 1
        again = run(cli, "erasures", "retry", "--handler", CRM, "--all")
        assert (again.stdout, again.stderr) == (f"{CRM}\n", "nothing is parked\n")
        single = run(cli, "erasures", "retry", "--handler", SHOP, "--all")
        assert single.stderr == "1 contact to be tried again\n"

    def test_all_of_a_handler_that_no_plugin_brings_any_more(
        self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]
    ) -> None:
        parked_at_old_handler(api, contact)

        assert run(cli, "erasures", "retry", "--handler", "old", "--all").stderr.splitlines() == [
            "1 contact to be tried again",
            "no enabled plugin provides this deletion handler: they stay pending until one does",
        ]

    @pytest.mark.parametrize(
        "arguments", [(), ("--all",), ("--handler", CRM), (str(uuid.UUID(int=1)), "--all", "--handler", CRM)], ids=str
    )
    def test_either_an_erasure_or_all_of_a_handler(self, cli: CliRunner, arguments: tuple[str, ...]) -> None:
        assert "--handler NAME --all" in run(cli, "erasures", "retry", *arguments, status=2).stderr

    def test_a_handler_that_there_is_not(self, cli: CliRunner) -> None:
        told = run(cli, "erasures", "retry", "--handler", "post", "--all", status=4).stderr
        assert told == f"Error: there is no deletion handler post; the deletion handlers are {CRM}, {SHOP}\n"
        execute("INSERT INTO receivers (kind, name, failures) VALUES ('backend', 'mail', 0)")
        told = run(cli, "erasures", "retry", "--handler", "mail", "--all", status=4).stderr
        assert told == "Error: mail is a backend, not a deletion handler: run `flask ctms backends retry mail`\n"

    def test_nothing_is_parked(self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]) -> None:
        assert "nothing is parked" in run(cli, "erasures", "retry", delete(api, contact)).stderr

    def test_a_handler_that_no_plugin_brings_any_more(
        self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]
    ) -> None:
        erasure = parked_at_old_handler(api, contact)

        told = run(cli, "erasures", "retry", erasure).stderr.splitlines()

        assert told[0] == "deletion handler old: 1 to be tried again"
        assert "no plugin provides the deletion handler old" in told[1]


class TestBackends:
    """Deletions that wait or are parked at backends."""

    @pytest.fixture
    def ctms_plugins(self) -> list[object]:
        return [Mirrors()]

    def state(self, cli: CliRunner, erasure: str) -> dict[str, tuple[Any, ...]]:
        found = run_json(cli, "erasures", "show", erasure)["backends"]
        return {one["name"]: (one["pending"], one["done"], one["parked"], one["reason"]) for one in found}

    def park(self, backend: str) -> None:
        """Park the backend's deletions, as the background service does."""
        execute(
            "UPDATE outbox SET parked_at = now(), reason = 'no', attempts = 5, failures = 5 WHERE backend = :backend",
            backend=backend,
        )
        execute("UPDATE erasure_deletions SET parked = true WHERE backend = :backend", backend=backend)
        execute(
            "UPDATE erasure_backends SET parked = pending, pending = 0, reason = 'no' WHERE backend = :backend",
            backend=backend,
        )

    def test_it_is_listed_and_shown(self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]) -> None:
        erasure = delete(api, contact)

        assert [one["id"] for one in run_json(cli, "erasures", "list", "--unfinished")] == [erasure]
        lines = run(cli, "erasures", "show", erasure).stdout.splitlines()
        assert [line.split()[:5] for line in lines[-3:]] == [
            ["backend", "installed", "pending", "done", "parked"],
            ["copy", "yes", "1", "0", "0"],
            ["mirror", "yes", "1", "0", "0"],
        ]
        self.park("copy")
        assert run_json(cli, "erasures", "show", erasure)["status"] == "parked"
        execute("DELETE FROM erasure_deletions")
        execute("UPDATE erasure_backends SET pending = 0, parked = 0, done = 1")
        assert run_json(cli, "erasures", "list", "--unfinished") == []
        assert run_json(cli, "erasures", "show", erasure)["status"] == "done"

    @pytest.mark.parametrize("batch", [1, 2000])
    def test_only_parked_contacts_are_retried(
        self, cli: CliRunner, api: ApiClient, contact: dict[str, Any], monkeypatch: pytest.MonkeyPatch, batch: int
    ) -> None:
        monkeypatch.setattr(deletions, "BATCH", batch)
        others = [full() for _ in range(2)]
        for other in others:
            api.post("/ctms", other)
        addresses = [one["email"]["primary_email"] for one in others]
        erasure = api.post("/erasures", {"emails": addresses}).json["id"]
        self.park("copy")
        elsewhere = delete(api, contact)
        self.park("mirror")
        waits = "SELECT count(*) FROM outbox WHERE parked_at IS NULL AND attempts = 0 AND backend = :backend"
        before = execute(waits, backend="copy")

        told = run_json(cli, "erasures", "retry", erasure)

        assert told == {"id": erasure, "again": {}, "backends": {"copy": 2, "mirror": 2}}
        assert self.state(cli, erasure) == {"copy": (2, 0, 0, "no"), "mirror": (2, 0, 0, "no")}
        assert self.state(cli, elsewhere)["mirror"] == (0, 0, 1, "no")
        assert (execute(waits, backend="copy"), execute(waits, backend="mirror")) == (before + 2, 2)
        assert "nothing is parked" in run(cli, "erasures", "retry", erasure).stderr

    def test_pushes_of_a_worker_of_an_earlier_version_are_repeated(
        self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]
    ) -> None:
        erasure = delete(api, contact)
        execute("DELETE FROM outbox WHERE backend = 'copy'")

        assert run_json(cli, "erasures", "retry", erasure)["backends"] == {"copy": 1}

        assert execute("SELECT count(*) FROM outbox WHERE backend = 'copy'") == 1
        assert self.state(cli, erasure)["copy"] == (1, 0, 0, None)

    def test_a_backend_that_no_plugin_brings_any_more(
        self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]
    ) -> None:
        erasure = delete(api, contact)
        execute(
            "INSERT INTO erasure_backends SELECT erasure_id, 'old', 1, 0, 0, NULL, now(), now() FROM"
            " erasure_backends WHERE backend = 'copy'"
        )
        execute("UPDATE erasure_deletions SET backend = 'old' WHERE backend = 'copy'")
        execute("UPDATE outbox SET backend = 'old' WHERE backend = 'copy'")
        execute("DELETE FROM erasure_deletions WHERE backend = 'mirror'")
        execute("DELETE FROM erasure_backends WHERE backend <> 'old'")
        warning = "no plugin provides the backend old: its part waits until one does, or until `erasures close`"

        record = run_json(cli, "erasures", "show", erasure)
        assert (record["status"], record["backends"][0]["installed"]) == ("pending", False)
        assert warning in run(cli, "erasures", "show", erasure).stderr
        assert warning in run(cli, "erasures", "retry", erasure).stderr  # nothing is parked, and it stays pending
        self.park("old")
        assert warning in run(cli, "erasures", "retry", erasure).stderr
        assert self.state(cli, erasure)["old"] == (1, 0, 0, "no")

        closed = run_json(cli, "erasures", "close", erasure, "old", "--yes")

        assert closed["status"] == "done"
        assert closed["backends"][0]["reason"].startswith("closed by operator:")
        assert self.state(cli, erasure)["old"][:3] == (0, 1, 0)
        assert execute("SELECT count(*) FROM erasure_deletions") == 0
        assert run(cli, "erasures", "show", erasure).stderr == ""


class TestClose:
    def test_a_deletion_handler(self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]) -> None:
        erasure = delete(api, contact)
        park(erasure, CRM)
        run(cli, "erasures", "close", erasure, CRM, "--deletion-handler", "--yes")

        crm, shop = run_json(cli, "erasures", "show", erasure)["handlers"]
        assert (crm["pending"], crm["done"], crm["parked"]) == (0, 1, 0)
        assert crm["reason"].startswith("closed by operator:")
        before = run_json(cli, "erasures", "show", erasure)
        again = run(cli, "erasures", "close", erasure, CRM, "--deletion-handler", "--yes")
        assert f"nothing is left to do for the deletion handler {CRM}" in again.stderr
        assert run_json(cli, "erasures", "show", erasure) == before
        assert (shop["pending"], shop["reason"]) == (1, None)
        assert execute("SELECT count(*) FROM erasure_tasks WHERE handler = 'crm'") == 0

    def test_a_backend_without_a_part_in_the_erasure(
        self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]
    ) -> None:
        erasure = delete(api, contact)
        for wrong in ((erasure, CRM), (str(uuid.uuid4()), CRM, "--deletion-handler")):
            told = run(cli, "erasures", "close", *wrong, "--yes", status=4).stderr
            assert told.startswith("Error: there is no erasure")
        assert run_json(cli, "erasures", "show", erasure)["status"] == "pending"

    def test_it_asks_for_confirmation(self, cli: CliRunner, api: ApiClient, contact: dict[str, Any]) -> None:
        erasure = delete(api, contact)

        assert "pass --yes" in run(cli, "erasures", "close", erasure, CRM, status=1).stderr
        assert run_json(cli, "erasures", "show", erasure)["status"] == "pending"
