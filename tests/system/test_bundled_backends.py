"""Contacts reach other systems through the bundled backends, and deleted ones are erased there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import requests
from standardwebhooks import Webhook

from ctms.testing import Reply, StubServer, contact_body
from tests.plugins.braze_workspace import KEY, Workspace
from tests.plugins.webhook_client import OLD
from tests.serving import Served, serve


def variables(folder: Path, hooks: StubServer, braze: StubServer) -> dict[str, str]:
    """Return the settings of the three plugins."""
    return {
        "CTMS_PLUGIN_WEBHOOK_URL": f"{hooks.url}/changes",
        "CTMS_PLUGIN_WEBHOOK_ERASURE_URL": f"{hooks.url}/erase",
        "CTMS_PLUGIN_WEBHOOK_SECRETS": OLD,
        "CTMS_PLUGIN_WEBHOOK_ALLOW_PRIVATE": "true",
        "CTMS_PLUGIN_BRAZE_URL": braze.url,
        "CTMS_PLUGIN_BRAZE_KEY": KEY,
        "CTMS_PLUGIN_JSONL_PATH": str(folder / "contacts.jsonl"),
    }


def work(running: Served, *, status: int = 0) -> None:
    """Run the worker until nothing is due, and check its exit status."""
    done = running.flask("ctms", "worker", "--once", timeout=300)
    assert done.returncode == status, done.stderr


def messages(hooks: StubServer) -> list[tuple[str, str, Any]]:
    """Return the messages that came: where, of which type and with what."""
    read = [(one.path, Webhook(OLD).verify(one.body, dict(one.headers))) for one in hooks.received]
    return [(path, message["type"], message["data"]) for path, message in read]


def receivers(running: Served) -> dict[str, Any]:
    """Return how the receivers are doing, by kind and name."""
    listed = running.flask("ctms", "backends", "list", "--json")
    assert listed.returncode == 0, listed.stderr
    return {one["name"]: one for one in json.loads(listed.stdout) if one["kind"] == "backend"}


def test_contacts_come_change_and_go(tmp_path: Path) -> None:
    file, workspace = tmp_path / "contacts.jsonl", Workspace()
    with (
        StubServer() as hooks,
        StubServer() as braze,
        serve(tmp_path, **variables(tmp_path, hooks, braze)) as running,
    ):
        braze.reply = workspace
        api = running.session()
        made = created(api, running)
        email_id, address = made["email"]["email_id"], made["email"]["primary_email"]

        work(running)
        assert messages(hooks) == [("/changes", "contact.changed", {"email_id": email_id})]
        assert [line["email"]["first_name"] for line in lines(file)] == ["Zoë"]
        assert workspace.profiles[email_id]["first_name"] == "Zoë"

        hooks.received.clear()
        hooks.reply = Reply(410)
        changed = api.patch(f"{running.url}/ctms/{email_id}", json={"email": {"first_name": "Zoe"}}, timeout=60)
        assert changed.status_code == 200, changed.text
        work(running, status=3)  # the webhook's contact is to be retried
        assert [line["email"]["first_name"] for line in lines(file)] == ["Zoë", "Zoe"]
        assert workspace.profiles[email_id]["first_name"] == "Zoe"
        assert receivers(running)["webhook"]["state"] == "paused"

        hooks.received.clear()
        hooks.reply = Reply()
        api.delete(f"{running.url}/ctms/{address}", timeout=60).raise_for_status()
        assert running.flask("ctms", "backends", "resume", "webhook").returncode == 0
        work(running)
        deleted, (path, kind, erased) = sorted(messages(hooks))
        assert deleted == ("/changes", "contact.deleted", {"email_id": email_id})
        assert (path, kind) == ("/erase", "contact.erased")
        assert [(one["email_id"], one["primary_email"]) for one in erased["contacts"]] == [(email_id, address)]
        assert lines(file)[2:] == [{"email_id": email_id, "gone": True}]
        assert workspace.profiles == {}
        assert "no enabled plugin" not in running.output.read_text()

    with serve(tmp_path) as running:
        assert (
            "CTMS: warning: no enabled plugin provides the backend braze, the backend jsonl, the backend webhook,"
            " the deletion handler braze, the deletion handler webhook: changes of contacts would not be sent there;"
        ) in running.output.read_text()
        refused = running.flask("ctms", "delete-bulk", "--email", "nobody@example.com", "--yes")
        assert refused.returncode == 1
        assert "no enabled plugin provides the backend braze, " in refused.stderr


def created(api: requests.Session, running: Served) -> Any:
    """Make a contact."""
    answer = api.post(f"{running.url}/ctms", json=contact_body(email={"first_name": "Zoë"}), timeout=60)
    assert answer.status_code == 201, answer.text
    return answer.json()


def lines(file: Path) -> list[Any]:
    """Return the lines of the file."""
    return [json.loads(line) for line in file.read_text().splitlines()]
