"""`flask ctms roles …` and `flask ctms permissions …`."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from flask import Flask

from ctms.clients.access import (
    DELETE_CONTACTS,
    EXPORT_CONTACTS,
    LIST_CONTACTS,
    MANAGE_CONTACTS,
    MERGE_CONTACTS,
    SEARCH_CONTACTS,
    VIEW_CONTACTS,
    VIEW_ERASURES,
    VIEW_HISTORY,
)
from ctms.clients.tokens import tokens
from tests.cli.running import run, run_json
from tests.clients.factories import create_client
from tests.http import ApiClient, assert_error

SEARCH = "/ctms?primary_email=jane@example.com"


def caller(app: Flask, client_id: str, *roles: str) -> ApiClient:
    """Make a client with these roles, calling with its token."""
    create_client(client_id, roles=roles)
    return ApiClient(app.test_client(), tokens().issue(client_id))


def test_the_roles_that_are_there_from_the_start(cli: CliRunner) -> None:
    found = {role["name"]: role["permissions"] for role in run_json(cli, "roles", "list")}

    assert found == {
        "admin": [
            DELETE_CONTACTS,
            EXPORT_CONTACTS,
            LIST_CONTACTS,
            MANAGE_CONTACTS,
            MERGE_CONTACTS,
            SEARCH_CONTACTS,
            VIEW_CONTACTS,
            VIEW_ERASURES,
            VIEW_HISTORY,
        ],
        "editor": [LIST_CONTACTS, MANAGE_CONTACTS, VIEW_CONTACTS],
        "viewer": [LIST_CONTACTS, VIEW_CONTACTS],
    }
    assert run(cli, "roles", "list").stdout.splitlines()[0].split() == ["name", "description", "permissions"]


def test_a_custom_role(cli: CliRunner, app: Flask) -> None:
    assert run(cli, "roles", "create", "cleaner", "--description", "Deletes [only]").stdout == "cleaner\n"
    cleaner = caller(app, "id_cleaner", "cleaner")
    assert_error(cleaner.delete("/ctms/jane@example.com"), 403, "Permission(s) required: delete_contacts")

    assert run(cli, "roles", "grant", "cleaner", DELETE_CONTACTS).stdout == "cleaner\n"
    assert_error(cleaner.delete("/ctms/jane@example.com"), 404, "email jane@example.com not found!")
    assert_error(cleaner.get(SEARCH), 403, "Permission(s) required: view_contacts")
    assert run_json(cli, "roles", "show", "cleaner") == {
        "name": "cleaner",
        "description": "Deletes [only]",
        "permissions": [DELETE_CONTACTS],
        "clients": ["id_cleaner"],
    }
    assert "Deletes [only]" in run(cli, "roles", "show", "cleaner").stdout

    assert run_json(cli, "roles", "revoke", "cleaner", DELETE_CONTACTS)["permissions"] == []
    assert_error(cleaner.delete("/ctms/jane@example.com"), 403, "Permission(s) required: delete_contacts")


def test_deleting_a_role_that_clients_have(cli: CliRunner, app: Flask) -> None:
    viewer = caller(app, "id_reader", "viewer")
    refused = run(cli, "roles", "delete", "viewer", status=1)
    assert "id_reader" in refused.stderr
    assert viewer.get(SEARCH).status_code == 200

    assert run_json(cli, "roles", "delete", "viewer", "--yes")["clients"] == ["id_reader"]

    assert_error(viewer.get(SEARCH), 403, "Permission(s) required: view_contacts")
    assert run_json(cli, "clients", "show", "id_reader")["roles"] == []
    run(cli, "roles", "show", "viewer", status=4)


def test_a_role_that_exists(cli: CliRunner) -> None:
    assert run(cli, "roles", "create", "viewer", status=10).stderr == "Error: there is a role viewer already\n"
    assert run_json(cli, "roles", "show", "viewer")["permissions"] == [LIST_CONTACTS, VIEW_CONTACTS]


@pytest.mark.parametrize("bad", ["", "two words", "é", "x" * 256, "tab\t"])
def test_a_bad_new_name_is_a_usage_error(cli: CliRunner, bad: str) -> None:
    run(cli, "roles", "create", bad, status=2)
    run(cli, "permissions", "create", bad, status=2)


def test_the_role_admin_cannot_be_deleted_or_robbed(cli: CliRunner) -> None:
    assert "has every permission" in run(cli, "roles", "delete", "admin", "--yes", status=10).stderr
    assert "has every permission" in run(cli, "roles", "revoke", "admin", VIEW_CONTACTS, status=10).stderr
    assert VIEW_CONTACTS in run_json(cli, "roles", "show", "admin")["permissions"]


def test_the_role_admin_has_every_permission_by_its_name(cli: CliRunner) -> None:
    run(cli, "permissions", "create", "send_letters", "--description", "Letters")

    assert "send_letters" in run_json(cli, "roles", "show", "admin")["permissions"]
    assert {"name": "send_letters", "description": "Letters", "roles": ["admin"], "plugin": None} in run_json(
        cli, "permissions", "list"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "nobody"),
        ("delete", "nobody", "--yes"),
        ("grant", "nobody", VIEW_CONTACTS),
        ("revoke", "nobody", VIEW_CONTACTS),
    ],
    ids=" ".join,
)
def test_an_unknown_role(cli: CliRunner, arguments: tuple[str, ...]) -> None:
    refused = run(cli, "roles", *arguments, status=4)
    assert refused.stderr == "Error: there is no role nobody: `flask ctms roles list` lists them\n"


@pytest.mark.parametrize("command", ["grant", "revoke"])
def test_an_unknown_permission(cli: CliRunner, command: str) -> None:
    refused = run(cli, "roles", command, "viewer", "fly", status=4)

    assert refused.stderr == "Error: there is no permission fly: `flask ctms permissions list` lists them\n"


def test_grant_and_revoke_are_idempotent(cli: CliRunner) -> None:
    assert "already" in run(cli, "roles", "grant", "viewer", VIEW_CONTACTS).stderr
    assert "did not have" in run(cli, "roles", "revoke", "viewer", DELETE_CONTACTS).stderr
    assert run_json(cli, "roles", "show", "viewer")["permissions"] == [LIST_CONTACTS, VIEW_CONTACTS]


def test_deleting_a_permission_that_roles_give(cli: CliRunner) -> None:
    run(cli, "permissions", "create", "send_letters")
    run(cli, "roles", "grant", "viewer", "send_letters")
    assert "viewer" in run(cli, "permissions", "delete", "send_letters", status=1).stderr

    assert run(cli, "permissions", "delete", "send_letters", "--yes").stdout == "send_letters\n"

    assert run_json(cli, "roles", "show", "viewer")["permissions"] == [LIST_CONTACTS, VIEW_CONTACTS]
    assert run(cli, "permissions", "delete", "send_letters", "--yes", status=4)


@pytest.mark.parametrize("name", [VIEW_CONTACTS, MANAGE_CONTACTS, DELETE_CONTACTS])
def test_required_permissions_cannot_be_deleted(cli: CliRunner, name: str) -> None:
    assert "routes" in run(cli, "permissions", "delete", name, "--yes", status=10).stderr
    assert name in run(cli, "permissions", "list").stdout


def test_a_permission_that_exists(cli: CliRunner) -> None:
    refused = run(cli, "permissions", "create", VIEW_CONTACTS, status=10)

    assert refused.stderr == f"Error: there is a permission {VIEW_CONTACTS} already\n"
