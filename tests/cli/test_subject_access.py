"""`flask ctms subject-access`: output, files, exit statuses, the record."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask

from ctms.cli import ctms
from ctms.suppression.fingerprints import Fingerprints
from tests.cli.running import run
from tests.contacts.factories import address, full
from tests.contacts.rows import execute, insert_contact
from tests.http import ApiClient
from tests.subject_access.conftest import ctms_plugins
from tests.subject_access.pages import Page
from tests.sync.receiving import RECEIVING

__all__ = ["ctms_plugins"]

pytestmark = pytest.mark.usefixtures("erasure_key")

Make = Callable[..., dict[str, Any]]


def address_of(contact: dict[str, Any]) -> str:
    found: str = contact["email"]["primary_email"]
    return found


def record() -> dict[str, Any]:
    """Return the one record."""
    found: dict[str, Any] = execute("SELECT row_to_json(r) FROM access_requests r")
    return found


def test_it_prints_the_report(cli: CliRunner, make_contact: Make) -> None:
    contact = make_contact()
    RECEIVING.mail.contacts[contact["email"]["email_id"]] = {"email": {"first_name": "Jane"}}

    result = run(cli, "subject-access", f"  {address_of(contact).upper()} ")

    report = json.loads(result.stdout)
    (found,) = report["contacts"]
    assert found["data"]["email"]["primary_email"] == address_of(contact)
    assert {copy["backend"]: copy["status"] for copy in found["copies"]} == {
        "mail": "found",
        "club": "missing",
        "blind": "unsupported",
    }
    assert result.stderr == "1 contact found\n"


def test_it_records_the_request_without_naming_anybody(
    cli: CliRunner, api: ApiClient, make_contact: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUDO_USER", "ana")

    run(cli, "subject-access", address_of(make_contact()))

    found = record()
    path = f"/access-requests/{found.pop('id')}"
    assert found.pop("requested_at") == found.pop("expires_at")
    assert found == {
        "requested_by": "operator:ana",
        "origin": "command",
        "contacts": 1,
        "copies": 2,
        "failed": 0,
        "result": None,
    }
    assert execute("SELECT count(*) FROM access_request_contacts") == 0
    assert (api.get(path).json["status"], api.get(path).json["report"]) == ("expired", None)


def test_it_writes_files_for_its_owner_only(cli: CliRunner, api: ApiClient, tmp_path: Path) -> None:
    contact = api.post("/ctms", full()).json
    folder = tmp_path / "new" / "jane"
    umask = os.umask(0)
    try:
        result = run(cli, "subject-access", address_of(contact), "--output", str(folder))
    finally:
        os.umask(umask)

    assert result.stdout == ""
    as_json, as_html = folder / "subject-access.json", folder / "subject-access.html"
    assert result.stderr.splitlines() == [f"written: {as_json}, {as_html}", "1 contact found"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(file.stat().st_mode) for file in (as_json, as_html)] == [0o600, 0o600]
    assert json.loads(as_json.read_text())["contacts"][0]["data"]["email"]["first_name"] == "Jane"
    assert Page(as_html.read_text()).value("email", "first name") == "Jane"


@pytest.mark.parametrize("name", ["subject-access.json", "subject-access.html"])
def test_it_overwrites_nothing(cli: CliRunner, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("kept")

    result = run(cli, "subject-access", address(), "--output", str(tmp_path), status=10)

    assert f"{name} exists" in result.stderr
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [(name, "kept")]
    assert execute("SELECT count(*) FROM access_requests") == 0


def test_it_leaves_no_file_if_it_fails(cli: CliRunner, tmp_path: Path) -> None:
    result = run(cli, "subject-access", "nobody", "--output", str(tmp_path), status=2)

    assert "ADDRESS: no address: there is no @" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_made_is_named(cli: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = tmp_path / "file" / "below"

    result = run(cli, "subject-access", address(), "--output", str(folder), status=1)

    assert f"Error: {folder} cannot be written: Not a directory" in result.stderr


def test_a_failing_backend_is_in_the_report_and_the_exit_status(
    cli: CliRunner, make_contact: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> Any:
        raise TimeoutError

    monkeypatch.setattr(RECEIVING.mail, "fetch", fail)

    result = cli.invoke(ctms, ["subject-access", address_of(make_contact()), "--output", str(tmp_path)])

    assert result.exit_code == 3
    assert "Error: 1 copy of backends could not be read: see the report" in result.stderr
    (contact,) = json.loads((tmp_path / "subject-access.json").read_text())["contacts"]
    assert {copy["backend"]: copy["error"] for copy in contact["copies"]} == {
        "mail": "`fetch` of the backend mail raised TimeoutError",
        "club": None,
        "blind": None,
    }
    assert "The copy could not be read: `fetch` of the backend mail raised TimeoutError." in "".join(
        Page((tmp_path / "subject-access.html").read_text()).texts
    )
    assert record()["failed"] == 1


def test_nobody_is_an_answer_too(cli: CliRunner) -> None:
    result = run(cli, "subject-access", address())

    assert json.loads(result.stdout)["contacts"] == []
    assert result.stderr == "0 contacts found\n"


def test_text_that_is_stored_as_an_address_is_found(cli: CliRunner) -> None:
    email_id = insert_contact(primary_email="no address at all")

    found = json.loads(run(cli, "subject-access", "No Address at all").stdout)

    assert [contact["email_id"] for contact in found["contacts"]] == [email_id]


def test_it_warns_without_a_key(app: Flask, cli: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(app.extensions, "ctms.fingerprints", Fingerprints(lambda: None))

    result = run(cli, "subject-access", address())

    assert result.stderr.startswith("Warning: CTMS_ERASURE_KEY is not set")
    assert json.loads(result.stdout)["suppressed"] is None
