"""Commands that change contacts refuse to run in a shell without the plugins that would receive the changes."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner

from ctms.cli import ctms
from tests.api.test_history import create
from tests.cli.running import run
from tests.contacts.rows import execute
from tests.erasure.handlers import CRM, Handlers
from tests.http import ApiClient

pytestmark = pytest.mark.usefixtures("nothing_erased")

JANE, JOE = str(uuid4()), str(uuid4())
COMMANDS = [
    ("delete-bulk", "--email-file", "list", "--yes"),
    ("opt-out", "list", "--yes"),
    ("import", "new.jsonl", "--mode", "create"),
    ("contacts", "check-addresses", "--normalize"),
    ("merge", JANE, JOE, "--yes"),
]


@pytest.fixture
def ctms_plugins() -> list[object]:
    return [Handlers()]


@pytest.fixture(autouse=True)
def listed(api: ApiClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with a contact, and a contact whose address is stored in an unusual spelling."""
    create(api, email={"email_id": JANE, "primary_email": "jane@example.com"})
    create(api, email={"email_id": JOE, "primary_email": "joe@example.com"})
    execute("UPDATE emails SET primary_email = ' joe@example.com' WHERE primary_email = 'joe@example.com'")
    (tmp_path / "list").write_text("primary_email\njane@example.com\n")
    (tmp_path / "new.jsonl").write_text('{"email": {"primary_email": "new@example.com"}}')
    monkeypatch.chdir(tmp_path)


def stored() -> str:
    return str(execute("SELECT string_agg(primary_email || has_opted_out_of_email, ',' ORDER BY 1) FROM emails"))


def know(kind: str, name: str) -> None:
    """Store that a receiver was called."""
    execute("INSERT INTO receivers (kind, name, failures) VALUES (:kind, :name, 0)", kind=kind, name=name)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_nothing_is_changed_until_it_is_ignored(cli: CliRunner, command: tuple[str, ...]) -> None:
    know("backend", "braze")
    know("deletion_handler", "braze")
    know("deletion_handler", CRM)
    before = stored()

    refused = cli.invoke(ctms, command)

    assert refused.exit_code == 1
    assert "no enabled plugin provides the backend braze, the deletion handler braze: changes" in refused.stderr
    assert stored() == before
    run(cli, *command, "--ignore-missing")
    assert stored() != before


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_what_is_provided_is_not_missing(cli: CliRunner, command: tuple[str, ...]) -> None:
    know("deletion_handler", CRM)
    before = stored()

    run(cli, *command)

    assert stored() != before


@pytest.mark.parametrize(
    "waiting",
    [
        "INSERT INTO outbox SELECT 'braze', gen_random_uuid(), 1, 0, now(), now(), 0, 0",
        """
        INSERT INTO erasure_tasks (erasure_id, handler, identities, step, waiting_since, due_at, attempts, failures)
        SELECT erasure_id, 'braze', '{}', 'erase', now(), now(), 0, 0 FROM handler""",
    ],
    ids=["backend", "deletion handler"],
)
def test_what_has_only_waiting_work_is_known(cli: CliRunner, waiting: str) -> None:
    execute(
        "WITH erasure AS (INSERT INTO erasures (id, requested_at, requested_by, origin, forget, contacts, unknown)"
        " VALUES (gen_random_uuid(), now(), 'x', 'api', false, 1, 0) RETURNING id)"
        " INSERT INTO erasure_handlers (erasure_id, handler, pending, done, verified, parked, started_at, changed_at)"
        " SELECT id, 'braze', 1, 0, 0, 0, now(), now() FROM erasure"
    )
    execute(f"WITH handler AS (SELECT erasure_id FROM erasure_handlers) {waiting}")

    assert " braze: changes of contacts would not be sent" in cli.invoke(ctms, COMMANDS[1]).stderr


@pytest.mark.parametrize(
    "command",
    [
        ("delete-bulk", "--email", "jane@example.com", "--dry-run"),
        ("import", "new.jsonl", "--mode", "create", "--dry-run"),
        ("merge", JANE, JOE, "--dry-run"),
    ],
    ids=lambda command: command[0],
)
def test_a_dry_run_only_warns(cli: CliRunner, command: tuple[str, ...]) -> None:
    know("backend", "braze")
    before = stored()

    warning = "Warning: no enabled plugin provides the backend braze: changes of contacts would not be sent there.\n"
    assert warning in run(cli, *command).stderr
    assert "no enabled plugin" not in run(cli, *command, "--ignore-missing").stderr
    assert stored() == before


def test_what_changes_nothing_is_not_refused(cli: CliRunner) -> None:
    know("backend", "braze")

    assert cli.invoke(ctms, ["contacts", "check-addresses"]).exit_code == 3
