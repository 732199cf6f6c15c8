"""`flask ctms audit`: every command that changes something leaves one entry, and entries stay as they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
from click.testing import CliRunner
from flask import Flask
from sqlalchemy.exc import DBAPIError

from ctms.cli import ctms
from ctms.cli.actor import current_actor
from ctms.database.engine import db, session_connection
from ctms.history.audit import record_act
from tests.cli.running import run, run_json
from tests.cli.test_contacts import RAW
from tests.clients.factories import create_client
from tests.contacts.factories import address, full
from tests.contacts.rows import execute, insert_contact
from tests.http import ApiClient
from tests.retention.rules import COUNTRY, configure, make, write
from tests.sync.receiving import ctms_plugins
from tools.cli_reference import below

__all__ = ["ctms_plugins"]

pytestmark = pytest.mark.usefixtures("app", "erasure_key")

ID = "id_shop"
READING = {
    "audit",
    "backends errors",
    "backends list",
    "clients list",
    "clients show",
    "documents verify",
    "duplicates",
    "erasures find",
    "erasures list",
    "erasures show",
    "permissions list",
    "plugins check",
    "plugins list",
    "retention check",
    "retention runs",
    "retention statistics",
    "roles list",
    "roles show",
    "settings",
    "suppressions check",
    "suppressions list",
}
"""Commands that change nothing."""

OTHERS = {
    "db shell",  # the statements are the operator's
    "documents build",  # stores again what is already there
    "plugins new",  # creates files
    "plugins purge",  # creates an app of its own: tests/database/test_plugin_migrations.py
    "serve",  # creates the first client: test_the_first_client_is_recorded
    "worker",
}


@dataclass
class Scene:
    """The data that commands change."""

    api: ApiClient
    tmp_path: Path

    def contact(self, **parts: Any) -> str:
        """Create a contact; return its id."""
        body = {**full(), **parts}
        email_id: str = self.api.post("/ctms", body).json["email"]["email_id"]
        return email_id

    def erasure(self) -> str:
        """Erase a contact; return the id of the erasure."""
        mail = address()
        self.api.post("/ctms", {"email": {"primary_email": mail}})
        return self.api.delete(f"/ctms/{mail}").headers["Erasure-Id"]

    def list(self) -> str:
        """Write a list of two addresses; return its path."""
        path = self.tmp_path / "list.txt"
        path.write_text("one@example.com\ntwo@example.com\n")
        return str(path)

    def documents(self) -> str:
        """Write a contact to import; return the path."""
        path = self.tmp_path / "contacts.ndjson"
        path.write_text('{"email": {"primary_email": "jane@example.com"}}\n')
        return str(path)

    def client(self, **kwargs: Any) -> str:
        """Create an API client; return its id."""
        return create_client(ID, **kwargs)


Arguments = Callable[[Scene, CliRunner], list[str]]


def after(*command: str, then: list[str]) -> Arguments:
    """Return the arguments `then`, after another command was run."""

    def arguments(_: Scene, cli: CliRunner) -> list[str]:
        run(cli, *command)
        return then

    return arguments


def wrong_address(_: Scene, __: CliRunner) -> list[str]:
    insert_contact(primary_email=RAW[0])
    return ["--normalize"]


def unused_backend(_: Scene, __: CliRunner) -> list[str]:
    execute("INSERT INTO receivers (kind, name, failures) VALUES ('backend', 'unused', 0)")
    return ["unused", "--yes"]


RECORDED: dict[str, Arguments] = {
    "backends forget": unused_backend,
    "backends pause": lambda *_: ["mail", "--why", "jane@example.com asked"],
    "backends resume": after("backends", "pause", "mail", then=["mail"]),
    "backends retry": lambda *_: ["mail"],
    "backends resync": lambda *_: ["mail", "--since", "1h"],
    "backends verify": lambda s, _: [s.contact() and "mail", "--repair"],
    "clients create": lambda *_: [ID, "owner@example.com", "--role", "viewer"],
    "clients delete": lambda s, _: [s.client(), "--yes"],
    "clients enable": lambda s, _: [s.client(enabled=False)],
    "clients disable": lambda s, _: [s.client()],
    "clients limit": lambda s, _: [s.client(), "--rate", "5/s"],
    "clients rotate-secret": lambda s, _: [s.client(), "--overlap", "1h"],
    "clients grant": lambda s, _: [s.client(), "viewer"],
    "clients revoke": lambda s, _: [s.client(roles=["viewer"]), "viewer"],
    "contacts check-addresses": wrong_address,
    "delete-bulk": lambda s, _: ["--yes", "--email-file", s.list()],
    "erasures close": lambda s, _: [s.erasure(), "mail", "--deletion-handler", "--yes"],
    "erasures retry": lambda s, _: [s.erasure()],
    "export": lambda s, _: ["--output", str(s.tmp_path / "export")],
    "import": lambda s, _: [s.documents(), "--mode", "create", "--consent-source", "jane@example.com"],
    "merge": lambda s, _: [s.contact(), s.contact(), "--yes"],
    "opt-out": lambda s, _: ["--yes", s.list()],
    "permissions create": lambda *_: ["read_more", "--description", "jane@example.com"],
    "permissions delete": after("permissions", "create", "read_more", then=["read_more", "--yes"]),
    "retention run": lambda *_: [],
    "roles create": lambda *_: ["cleaner"],
    "roles delete": after("roles", "create", "cleaner", then=["cleaner", "--yes"]),
    "roles grant": lambda *_: ["viewer", "delete_contacts"],
    "roles revoke": lambda *_: ["viewer", "list_contacts"],
    "subject-access": lambda *_: ["jane@example.com"],
    "suppressions add": lambda *_: ["jane@example.com"],
    "suppressions remove": after("suppressions", "add", "jane@example.com", then=["jane@example.com"]),
    "suppressions import": lambda s, _: [s.list()],
}
"""Every command that changes something or discloses personal data, with its arguments."""

NO_TARGET = {
    "contacts check-addresses",
    "export",
    "import",
    "merge",
    "opt-out",
    "retention run",
    "suppressions add",
    "suppressions remove",
    "suppressions import",
}
"""Those whose target would be personal data, or that have many."""


@pytest.fixture
def scene(app: Flask, api: ApiClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    rules = f'[rules.old]\naction = "anonymise"\nwhen = {{mailing_country = "{COUNTRY}"}}\n'
    configure(app, monkeypatch, write(tmp_path, rules))
    make(1)
    return Scene(api, tmp_path)


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name, child in below(command).items():
            yield from leaves(child, (*path, name))
    else:
        yield " ".join(path)


def entries(cli: CliRunner, *options: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_json(cli, "audit", *options)
    return found


def test_every_command_reads_or_is_recorded() -> None:
    assert READING.isdisjoint(RECORDED)
    assert READING | OTHERS | set(RECORDED) == set(leaves(ctms)), "say whether the command leaves an entry"


@pytest.mark.parametrize("command", RECORDED)
def test_a_command_that_changes_something_leaves_one_entry(cli: CliRunner, scene: Scene, command: str) -> None:
    arguments = RECORDED[command](scene, cli)
    before = entries(cli)

    result = cli.invoke(ctms, [*command.split(), *arguments])

    assert result.exit_code in {0, 3}, result.output
    added = entries(cli)[: len(entries(cli)) - len(before)]
    assert [(one["actor"], one["action"]) for one in added] == [(current_actor(), command)]
    assert (added[0]["target"] is None) == (command in NO_TARGET)
    assert entries(cli)[1:] == before
    text = json.dumps(added)
    assert "@" not in text
    assert "secret" not in text.replace("rotate-secret", "")


@pytest.mark.parametrize(
    "command",
    [
        "clients enable id_shop",
        "clients revoke id_shop editor",
        "clients limit id_shop --remove",
        "roles grant viewer view_contacts",
        "roles revoke viewer delete_contacts",
        "backends resume mail",
        "merge {0} {1} --dry-run",
        "delete-bulk --dry-run --email jane@example.com",
        "import --dry-run --mode create {2}",
        "import --preview --mode create {2}",
        "retention run --dry-run",
        "contacts check-addresses",
    ],
)
def test_a_command_that_changes_nothing_leaves_none(cli: CliRunner, scene: Scene, command: str) -> None:
    create_client(ID)
    ids = scene.contact(), scene.contact(), scene.documents()
    before = entries(cli)

    assert cli.invoke(ctms, command.format(*ids).split()).exit_code in {0, 3}

    assert entries(cli) == before


def test_a_failed_command_leaves_none(cli: CliRunner) -> None:
    before = entries(cli)

    run(cli, "clients", "create", ID, "owner@example.com", "--role", "nobody", status=4)
    run(cli, "clients", "delete", "id_nobody", "--yes", status=4)
    run(cli, "suppressions", "remove", "jane@example.com", status=4)

    assert entries(cli) == before


def test_details_have_what_was_granted(cli: CliRunner, scene: Scene) -> None:
    run(cli, "clients", "create", ID, "owner@example.com", "--role", "viewer")
    run(cli, "clients", "limit", ID, "--rate", "30/m", "--burst", "7")
    run(cli, "suppressions", "import", scene.list())

    assert [one["details"] for one in entries(cli)][:3] == [
        {"addresses": 2},
        {"rate": "30/m", "burst": 7},
        {"roles": ["viewer"]},
    ]
    assert "roles=viewer" in run(cli, "audit").stdout


def test_details_are_readable(cli: CliRunner) -> None:
    run(cli, "clients", "create", ID, "owner@example.com")
    run(cli, "clients", "limit", ID, "--rate", "30/m")
    run(cli, "clients", "limit", ID, "--remove")
    record_act(session_connection(), "operator:jane", "export", None, format="csv", filtered=True)

    found = [line.split("  ")[-1].strip() for line in run(cli, "audit").stdout.splitlines()[1:5]]

    assert found == ["format=csv, filtered=yes", "rate=-, burst=-", "rate=30/m, burst=30", "roles=-"]


def test_entries_are_selected(cli: CliRunner) -> None:
    connection = session_connection()
    record_act(connection, "operator:jane", "clients create", "id_a")
    record_act(connection, "operator:joe", "clients delete", "id_a")
    record_act(connection, "operator:jane", "clientsother", "id_b")
    execute(
        "INSERT INTO audit_log (recorded_at, actor, action, details) VALUES ('2020-01-01', 'operator:x', 'y', '{}')"
    )

    def actions(*options: str) -> list[str]:
        return [one["action"] for one in entries(cli, *options)]

    assert actions("--by", "jane", "--target", "id_a") == ["clients create"]
    assert actions("--by", "operator:joe") == ["clients delete"]
    assert actions("--action", "clients", "--target", "id_a") == ["clients delete", "clients create"]
    assert actions("--action", "clients delete", "--by", "joe") == ["clients delete"]
    assert actions("--action", "clientsother") == ["clientsother"]
    assert actions("--by", "x") == ["y"]
    assert actions("--by", "x", "--since", "1h") == []
    assert len(actions("--limit", "2")) == 2
    assert run(cli, "audit", "--action", "client").stderr == "no entry matches\n"
    assert run(cli, "audit", "--by", "x").stderr == ""
    assert run(cli, "audit", "--by", "x").stdout.splitlines()[0].split() == [
        "recorded_at",
        "actor",
        "action",
        "target",
        "details",
    ]


@pytest.mark.parametrize(
    "change", ["UPDATE audit_log SET actor = 'nobody'", "DELETE FROM audit_log", "TRUNCATE audit_log"]
)
def test_entries_cannot_be_changed(change: str) -> None:
    record_act(session_connection(), "operator:jane", "clients create", "id_a")

    with pytest.raises(DBAPIError) as raised, db.session.begin_nested():
        db.session.connection().exec_driver_sql(change)

    assert isinstance(raised.value.orig, psycopg.errors.InsufficientPrivilege)
    assert "append-only" in str(raised.value.orig)
