"""Packages created by `flask ctms plugins new` work as created, and after changes by their authors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from ctms.cli.scaffold import KINDS, words_for, write
from ctms.testing import contact_body
from tests.prepared import FOLDER_OF_RUN
from tests.serving import Served, serve
from tests.testing.environments import Environment

HUB = '''\
"""The rules for the fields of the waitlist `hub`."""

from collections.abc import Iterator

import marshmallow as ma
from ctms.plugins import Waitlist, hookimpl


class Fields(ma.Schema):
    """`referrer` must be there; `seats`, where given, is a whole number from 1 to 500."""

    referrer = ma.fields.String(required=True, validate=ma.validate.Length(min=1, max=100))
    seats = ma.fields.Integer(strict=True, validate=ma.validate.Range(min=1, max=500))


@hookimpl
def ctms_waitlists() -> Iterator[Waitlist]:
    """Declare the waitlist."""
    yield Waitlist(name="hub", title="Hub", schema=Fields)
'''


def made(folder: Path, name: str, kind: str) -> Path:
    """Create a package and return its folder."""
    words = words_for(name, kind)
    target = folder / str(words["package"])
    write(target, kind, words)
    return target


@pytest.mark.parametrize("kind", KINDS)
def test_its_tests_pass(kind: str, tmp_path: Path) -> None:
    package = made(tmp_path, "my-other", kind)
    environment = Environment(tmp_path / "environment")

    done = environment.run("pytest", "-W", "error", variables=environment.variables(tmp_path), folder=package)

    assert re.search(r"^=+ ([4-9]|[1-9]\d+) passed(, 1 skipped)? in [\d.]+s", done.stdout, re.MULTILINE), done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_it_passes_ruff_and_mypy(kind: str, tmp_path: Path) -> None:
    pytest.importorskip("mypy")
    pytest.importorskip("ruff")
    package = made(tmp_path, "my-other", kind)
    # mypy's results for the libraries are the same for all kinds.
    cache = Path(os.environ[FOLDER_OF_RUN], "mypy")

    for tool in (
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["mypy", "--strict", "--cache-dir", cache],
    ):
        command = [sys.executable, "-m", *tool]
        done = subprocess.run(command, cwd=package, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KINDS)
def test_it_works_after_its_installation(kind: str, tmp_path: Path) -> None:
    package = made(tmp_path, "my-other", kind)
    environment = Environment(tmp_path / "environment")
    variables = environment.variables(tmp_path)

    environment.run("pip", "install", str(package), variables=variables, folder=tmp_path)
    checked = environment.run("flask", "ctms", "plugins", "check", "my_other", variables=variables, folder=tmp_path)

    assert re.search(r"^state: +on$", checked.stdout, re.MULTILINE), checked.stdout


def test_a_package_is_installed_used_and_uninstalled(tmp_path: Path) -> None:
    environment = Environment(tmp_path / "environment")
    variables = environment.variables(tmp_path)
    package = made(tmp_path, "hub", "waitlist")
    (package / "src" / "ctms_hub" / "plugin.py").write_text(HUB)

    environment.run("pip", "install", str(package), variables=variables, folder=tmp_path)
    with serve(tmp_path, flask=str(environment.commands / "flask")) as running:
        secret = running.client_secret
        holds(running)

    environment.run("pip", "uninstall", "--yes", "ctms-hub", variables=variables, folder=tmp_path)
    with serve(tmp_path, flask=str(environment.commands / "flask")) as running:
        running.client_secret = secret
        is_gone(running)


def holds(running: Served) -> None:
    """The service has the rules for the waitlist `hub`."""
    api = running.session()
    assert refused(api, running, {}) == [["body", "waitlists", 0, "fields", "referrer"]]
    assert refused(api, running, {"referrer": "ada", "seats": 0}) == [["body", "waitlists", 0, "fields", "seats"]]
    assert refused(api, running, {"referrer": "ada", "seats": 501}) == [["body", "waitlists", 0, "fields", "seats"]]
    assert refused(api, running, {"seats": "many", "colour": 1}) == [
        ["body", "waitlists", 0, "fields", name] for name in ("colour", "referrer", "seats")
    ]
    for seats in (1, 500):
        created = posted(api, running, {"referrer": "ada", "seats": seats})
        assert created.status_code == 201, created.text
        found = api.get(f"{running.url}{created.headers['Location']}", timeout=60).json()
        assert [entry["fields"] for entry in found["waitlists"]] == [{"referrer": "ada", "seats": seats}]
    (shown,) = [one for one in api.get(f"{running.url}/waitlists", timeout=60).json() if one["name"] == "hub"]
    assert shown["plugin"] == "hub"
    assert shown["schema"]["properties"]["seats"]["maximum"] == 500
    schemas = requests.get(f"{running.url}/openapi.json", timeout=60).json()["components"]["schemas"]
    assert schemas["Fields.hub"]["required"] == ["referrer"]


def is_gone(running: Served) -> None:
    """The service does not know the waitlist `hub`, but shows its stored fields."""
    api = running.session()
    assert posted(api, running, {"seats": 501}).status_code == 201
    assert "hub" not in [one["name"] for one in api.get(f"{running.url}/waitlists", timeout=60).json()]
    schemas = requests.get(f"{running.url}/openapi.json", timeout=60).json()["components"]["schemas"]
    assert "Fields.hub" not in schemas
    updated = api.get(f"{running.url}/updates", params={"start": "2000-01-01"}, timeout=60).json()["items"]
    stored = [contact["waitlists"][0]["fields"] for contact in updated]
    assert stored == [{"referrer": "ada", "seats": 1}, {"referrer": "ada", "seats": 500}, {"seats": 501}]


def posted(api: requests.Session, running: Served, fields: dict[str, object]) -> requests.Response:
    """Ask for a contact that is on the waitlist `hub` with these fields."""
    body = contact_body(waitlists=[{"name": "hub", "fields": fields}])
    return api.post(f"{running.url}/ctms", json=body, timeout=60)


def refused(api: requests.Session, running: Served, fields: dict[str, object]) -> list[list[str | int]]:
    """Return the places of the invalid fields in the response, in order."""
    answer = posted(api, running, fields)
    assert answer.status_code == 422, answer.text
    return sorted((problem["loc"] for problem in answer.json()["detail"]), key=str)
