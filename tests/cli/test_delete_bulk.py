"""`flask ctms delete-bulk`, and behaviour that it shares with `flask ctms opt-out`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ctms.cli import ctms
from ctms.cli.actor import current_actor
from ctms.cli.lists import MAX_LINES
from ctms.suppression.fingerprints import Fingerprints
from tests.cli.test_group import no_database, no_tables
from tests.contacts.factories import full
from tests.contacts.rows import execute
from tests.erasure.listed import erasure_key
from tests.http import ApiClient

__all__ = ["erasure_key", "no_database", "no_tables"]

Make = Callable[..., Any]


def delete(cli: CliRunner, *arguments: str, status: int = 0, text: str | bytes | None = None) -> Result:
    result = cli.invoke(ctms, ["delete-bulk", *arguments], input=text)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def summary(result: Result) -> dict[str, str]:
    return {name: value.strip() for name, value in (line.split(":") for line in result.stdout.splitlines())}


def people() -> int:
    return int(execute("SELECT count(*) FROM emails"))


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every app has a key unless a test changes that."""
    monkeypatch.setattr(Fingerprints, "available", True)


@pytest.fixture
def addresses(make_contact: Make) -> list[str]:
    return [make_contact()["email"]["primary_email"] for _ in range(3)]


@pytest.mark.parametrize("quotes", ['""', '"'])
def test_whoever_a_message_in_quotes_names_is_kept(
    cli: CliRunner, addresses: list[str], tmp_path: Path, quotes: str
) -> None:
    one, boss, _ = addresses
    listed = tmp_path / "requests.csv"
    text = "\n".join(["Please delete me.", *("line" for _ in range(25)), boss, f"{boss},{boss}"])
    listed.write_text(f'email,message\n{one},"I am {quotes}Joe{quotes}. {text}"\n')

    if quotes == '"':  # not doubled
        refused = delete(cli, "--email-file", str(listed), "--yes", status=2)
        assert "line 2: a quote does not end" in refused.stderr
        assert people() == 3
    else:
        assert summary(delete(cli, "--email-file", str(listed), "--yes"))["erased"] == "1"
        assert execute("SELECT count(*) FROM emails WHERE primary_email = :one", one=boss) == 1


def test_addresses_of_options_and_lists_are_deleted(cli: CliRunner, addresses: list[str], tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text(f"# to go\n{addresses[1].upper()}\n\nnobody@example.com\n{addresses[0]}\n")

    done = delete(cli, "--email", addresses[0], "--email", "x@example.com", "--email-file", str(listed), "--yes")

    found = summary(done)
    erasure = found.pop("erasure")
    assert float(found.pop("seconds")) >= 0
    assert found == {
        "erased": "2",
        "erased before": "0",
        "unknown": "2",
        "also known in": "0",
        "failed": "0",
        "bad lines": "0",
        "duplicates": "1",
        "left": "0",
        "stopped": "no",
        "dry run": "no",
    }
    assert done.stderr == ""
    assert execute("SELECT array_agg(primary_email) FROM emails") == [addresses[2]]
    record = "SELECT (requested_by, origin, contacts, unknown)::text FROM erasures WHERE id = CAST(:id AS uuid)"
    assert execute(record, id=erasure) == f"({current_actor()},command,2,2)"


def test_a_list_from_standard_input(cli: CliRunner, addresses: list[str]) -> None:
    text = "\ufeffId;E-Mail\r\n" + "".join(f"{number};{address}\r\n" for number, address in enumerate(addresses))

    done = delete(cli, "--email-file", "-", "--yes", "--json", text=text.encode())

    assert json.loads(done.stdout)["erased"] == 3
    assert people() == 0


def test_a_second_run_has_nothing_to_do(cli: CliRunner, addresses: list[str]) -> None:
    delete(cli, "--email", addresses[0], "--yes")

    again = json.loads(delete(cli, "--email", addresses[0], "--yes", "--json").stdout)

    assert (again["erased"], again["unknown"]) == (0, 1)


def test_a_dry_run_counts_and_changes_nothing(cli: CliRunner, addresses: list[str], tmp_path: Path) -> None:
    report = tmp_path / "r.csv"

    found = delete(
        cli, "--email", addresses[0], "--email", "x@example.com", "--dry-run", "--json", "--report", str(report)
    )

    counted = json.loads(found.stdout)
    assert "erasure" not in counted
    assert "erased" not in counted
    assert (counted["found"], counted["unknown"], counted["dry_run"]) == (1, 1, True)
    assert f"{addresses[0]},found," in report.read_text()
    assert people() == 3
    assert execute("SELECT count(*) FROM erasures") == 0


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_the_report_has_the_outcome_of_each_address(cli: CliRunner, api: ApiClient, tmp_path: Path, name: str) -> None:
    contact = full()
    contact["email"]["primary_email"] = '"a, b"@example.com'
    api.post("/ctms", contact)
    (tmp_path / "list.txt").write_text('"A, B"@example.com\nnobody\nnobody@example.com\n')

    done = delete(cli, "--email-file", str(tmp_path / "list.txt"), "--yes", "--report", str(tmp_path / name), status=3)

    assert done.stderr.splitlines() == [
        "line 2: no address: there is no @",
        "Error: skipped bad lines: 1",
    ]
    with (tmp_path / name).open(newline="") as file:
        rows = list(csv.DictReader(file)) if name == "r.csv" else [json.loads(line) for line in file]
    yes, nothing = ("yes", "") if name == "r.csv" else (True, None)
    assert [[row[column] for column in ("address", "outcome", "email_id", "had_fxa", "had_mofo")] for row in rows] == [
        ['"A, B"@example.com', "erased", contact["email"]["email_id"], yes, yes],
        [nothing, "bad line", nothing, nothing, nothing],
        ["nobody@example.com", "unknown", nothing, nothing, nothing],
    ]
    assert [str(row["line"]) for row in rows] == ["1", "2", "3"]
    assert rows[1]["problem"] == "no address: there is no @"


def test_a_report_that_is_there_stays(cli: CliRunner, addresses: list[str], tmp_path: Path) -> None:
    report = tmp_path / "r.csv"
    arguments = ["--email", addresses[0], "--yes", "--report", str(report)]
    delete(cli, "--email", addresses[1], "--yes", "--report", str(report))

    refused = delete(cli, *arguments, status=10)
    assert "--append" in refused.stderr
    assert people() == 2

    delete(cli, *arguments, "--append")
    assert [line.split(",")[0] for line in report.read_text().splitlines()] == ["address", addresses[1], addresses[0]]


def test_many_bad_lines_are_shown_in_part(cli: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("nobody\n" * (MAX_LINES + 5))

    told = delete(cli, "--email-file", str(tmp_path / "list.txt"), "--yes", status=3).stderr.splitlines()

    assert len(told) == MAX_LINES + 2
    assert told[-2:] == ["and 5 more", f"Error: skipped bad lines: {MAX_LINES + 5}"]


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--yes",),
        ("--email", "jane.doe"),
        ("--email-file", "missing.txt"),
        ("--email", "a@x.example", "--yes", "--report", "report.txt"),
        ("--email", "a@x.example", "--yes", "--batch-size", "0"),
        ("--email", "a@x.example", "--yes", "--pause", "-1"),
        ("--email-file", "-"),
    ],
    ids=" ".join,
)
def test_bad_usage(cli: CliRunner, arguments: tuple[str, ...]) -> None:
    refused = delete(cli, *arguments, status=2, text="a@x.example")

    assert refused.stdout == ""
    assert "jane.doe" not in refused.stderr


def test_a_list_without_the_column_is_bad_usage(cli: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("1,jane@example.com\n")

    refused = delete(cli, "--email-file", str(tmp_path / "list.csv"), "--yes", status=2)

    assert refused.stderr.startswith("Error: line 1 has 2 columns and is no header")


def test_it_refuses_without_a_terminal(cli: CliRunner, addresses: list[str]) -> None:
    refused = delete(cli, "--email", addresses[0], status=1)

    assert "--yes" in refused.stderr
    assert people() == 3


@pytest.mark.usefixtures("at_a_terminal")
def test_the_confirmation_shows_the_numbers(cli: CliRunner, addresses: list[str], tmp_path: Path) -> None:
    arguments = ["--email", addresses[0], "--email", "x@x.example", "--report", str(tmp_path / "r.csv")]

    declined = delete(cli, *arguments, status=1, text="n\n")
    assert "Delete 1 contact permanently? (1 address is unknown) [y/N]" in declined.stderr
    assert people() == 3
    assert not list(tmp_path.iterdir())

    assert summary(delete(cli, *arguments, text="y\n"))["erased"] == "1"
    assert people() == 2


@pytest.fixture
def at_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make standard input a terminal."""
    isatty = lambda _: True  # noqa: E731
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", isatty, raising=False)


def test_a_database_that_cannot_be_used_is_one_line(no_database: CliRunner, no_tables: CliRunner) -> None:
    away = delete(no_database, "--email", "jane@example.com", "--yes", status=1)
    empty = delete(no_tables, "--email", "jane@example.com", "--yes", status=1)

    assert away.stderr.startswith("Error: the database cannot be reached: ")
    assert "flask db upgrade" in empty.stderr
    assert len((away.stderr + empty.stderr).splitlines()) == 2


def test_without_a_key_it_warns(cli: CliRunner, addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    warned = "Warning: CTMS_ERASURE_KEY is not set: what is erased cannot be found by address afterwards"
    with monkeypatch.context() as missing:
        missing.setattr(Fingerprints, "available", False)
        without = delete(cli, "--email", addresses[0], "--yes")
    with_key = delete(cli, "--email", addresses[1], "--yes")

    assert without.stderr.startswith(warned)
    assert without.stderr.count("\n") == 1
    assert with_key.stderr == ""


def test_to_forget_needs_a_key(cli: CliRunner, addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fingerprints, "available", False)
    refused = delete(cli, "--email", addresses[0], "--forget", "--yes", status=1)

    assert "CTMS_ERASURE_KEY" in refused.stderr
    assert people() == 3


@pytest.mark.usefixtures("erasure_key")
def test_to_forget_keeps_the_address_out(cli: CliRunner, api: ApiClient, addresses: list[str]) -> None:
    body = {"email": {"primary_email": addresses[0]}}
    delete(cli, "--email", addresses[0], "--yes")
    assert api.post("/ctms", body).status_code == 201

    delete(cli, "--email", addresses[0], "--forget", "--yes")
    assert api.post("/ctms", body).status_code == 403


@pytest.mark.usefixtures("erasure_key")
def test_the_report_of_a_second_run_lists_erased_before(cli: CliRunner, addresses: list[str], tmp_path: Path) -> None:
    delete(cli, "--email", addresses[0], "--yes")

    report = tmp_path / "r.csv"
    found = delete(cli, *(f"--email={address}" for address in addresses), "--yes", "--report", str(report))

    assert summary(found)["erased before"] == "1"
    assert {line.split(",")[0]: line.split(",")[1] for line in report.read_text().splitlines()[1:]} == {
        addresses[0]: "erased before",
        addresses[1]: "erased",
        addresses[2]: "erased",
    }
