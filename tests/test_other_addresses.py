"""Addresses that resemble the one asked for: no operation touches their contacts."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from ctms.addresses import comparison_key, normalize
from tests.cli.running import run, run_json
from tests.contacts.factories import minimal
from tests.contacts.rows import execute
from tests.http import ApiClient, assert_error

pytestmark = pytest.mark.usefixtures("nothing_erased", "erasure_key")

PAIRS = {
    "dotted capital in the domain": ("a@\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}stanbul.com", "a@istanbul.com"),
    "dot above in the local part": ("ki\N{COMBINING DOT ABOVE}m@example.com", "kim@example.com"),
    "final sigma": ("οδος@example.com", "οδο\N{GREEK SMALL LETTER SIGMA}@example.com"),
    "sharp s": ("a@straße.de", "a@strasse.de"),
}


@pytest.fixture(params=list(PAIRS))
def asked(request: pytest.FixtureRequest, api: ApiClient) -> str:
    """Return the address of nobody; the other one of the pair has a contact."""
    execute("DELETE FROM emails")
    asked, stored = PAIRS[request.param]
    assert api.post("/ctms", minimal(primary_email=stored)).status_code == 201
    return asked


@pytest.fixture
def listed(asked: str, tmp_path: Path) -> str:
    """Return the path of a list with the address."""
    (tmp_path / "list.txt").write_text(f"{asked}\n")
    return str(tmp_path / "list.txt")


def number_of_contacts() -> int:
    """Return the number of stored contacts."""
    return int(execute("SELECT count(*) FROM emails"))


def test_reading(api: ApiClient, asked: str) -> None:
    for path in ("/identities", "/ctms"):
        assert api.get(path, query_string={"primary_email": asked}).json == []


def test_deleting(api: ApiClient, asked: str) -> None:
    assert_error(api.delete(f"/ctms/{asked}"), 404, f"email {asked} not found!")
    assert number_of_contacts() == 1


def test_erasing(api: ApiClient, asked: str) -> None:
    stored = str(execute("SELECT primary_email FROM emails"))

    body = api.post("/erasures", {"emails": [asked], "forget": True, "include_fxa": True}).json

    assert (body["contacts"], body["unknown"]) == (0, 1)
    assert number_of_contacts() == 1
    execute("DELETE FROM emails")
    assert api.post("/ctms", minimal(primary_email=stored)).status_code == 201  # not suppressed
    assert_error(api.post("/ctms", minimal(primary_email=asked)), 403, "Address is suppressed")


def test_erasing_by_list(cli: CliRunner, asked: str, listed: str) -> None:  # noqa: ARG001  the contact of the other
    done = run_json(cli, "delete-bulk", "--email-file", listed, "--yes")
    assert (done["erased"], done["unknown"]) == (0, 1)
    assert number_of_contacts() == 1


def test_opting_out_by_list(cli: CliRunner, asked: str, listed: str) -> None:  # noqa: ARG001  the contact of the other
    assert run_json(cli, "opt-out", listed, "--yes")["unknown"] == 1
    assert not execute("SELECT has_opted_out_of_email FROM emails")


def test_creating(api: ApiClient, cli: CliRunner, asked: str) -> None:
    created = api.post("/ctms", minimal(primary_email=asked)).json
    assert created["email"]["primary_email"] == normalize(asked)
    assert number_of_contacts() == 2

    run(cli, "delete-bulk", "--email", asked, "--yes", "--forget")

    assert number_of_contacts() == 1
    assert execute("SELECT primary_email FROM emails") != normalize(asked)


def test_two_capitals_of_one_letter_are_one_person(api: ApiClient) -> None:
    """Unicode has a character for the small letter with both marks, but none for the capital."""
    capital, small = "x\u03aa\u0301y@example.com", "x\u0390y@example.com"
    execute("DELETE FROM emails")
    api.post("/ctms", minimal(primary_email=capital))

    assert_error(api.post("/ctms", minimal(primary_email=small)), 409, "Contact already exists")
    assert api.post("/erasures", {"emails": [small], "forget": True}).json["contacts"] == 1
    for one in (capital, small):
        assert_error(api.post("/ctms", minimal(primary_email=one)), 403, "Address is suppressed")


@pytest.mark.usefixtures("app")
def test_case_is_mapped_as_by_the_database() -> None:
    """Of each character that this Python and the database know; newer letters are in one of them only."""
    rows = execute(
        "SELECT json_agg(json_build_array(n, lower(chr(n))) ORDER BY n) FROM generate_series(1, :last) AS n"
        " WHERE n NOT BETWEEN 55296 AND 57343 AND lower(chr(n)) <> chr(n)",
        last=sys.maxunicode,
    )
    lowered = {chr(number): lower for number, lower in rows}
    assert len(lowered) > 1_300
    assert {character: lower for character, lower in lowered.items() if len(lower) != 1} == {}
    differing = {
        character: lower for character, lower in lowered.items() if comparison_key(character) != comparison_key(lower)
    }
    assert differing == {}
