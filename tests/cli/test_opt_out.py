"""`flask ctms opt-out`; `test_delete_bulk` tests what both share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ctms.cli import ctms
from ctms.cli.actor import current_actor
from tests.contacts.rows import execute
from tests.http import ApiClient

Make = Callable[..., Any]


def opt_out(cli: CliRunner, *arguments: str, status: int = 0, text: str | None = None) -> Result:
    result = cli.invoke(ctms, ["opt-out", *arguments], input=text)
    assert result.exit_code == status, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def contacts(make_contact: Make) -> list[str]:
    """The addresses of two contacts, one with an account, which both want mail."""
    account = make_contact(fxa={"fxa_id": "1", "primary_email": "account@example.com"})
    return [make_contact()["email"]["primary_email"], account["email"]["primary_email"]]


def reasons() -> dict[str, str | None]:
    """Return the reasons of contacts that have opted out."""
    found: dict[str, str | None] = execute(
        "SELECT coalesce(jsonb_object_agg(primary_email, unsubscribe_reason), '{}')"
        " FROM emails WHERE has_opted_out_of_email"
    )
    return found


def test_lists_of_a_mailing_service_are_taken_over(cli: CliRunner, contacts: list[str], tmp_path: Path) -> None:
    (tmp_path / "bounces.csv").write_text(
        f'"Email","Date","Reason"\n"{contacts[0].upper()}","2023-01-05 02:05 PM","bounced, hard"\n'
        f'"{contacts[0]}","2023-01-05 02:05 AM","earlier"\n'
    )
    (tmp_path / "complaints.txt").write_text(
        "reason|date|email\ncomplained|2023-01-06T10:00:00Z|account@example.com\nx|2023-01-06|nobody@example.com\n"
    )
    lists = [str(tmp_path / "bounces.csv"), str(tmp_path / "complaints.txt")]

    done = opt_out(cli, *lists, "--yes", "--json", "--report", str(tmp_path / "r.jsonl"))

    told = json.loads(done.stdout)
    assert told.pop("seconds") >= 0
    assert told == {
        "opted_out": 2,
        "opted_out_before": 0,
        "unknown": 1,
        "failed": 0,
        "bad_lines": 0,
        "duplicates": 1,
        "undated": 0,
        "left": 0,
        "stopped": False,
        "dry_run": False,
    }
    assert reasons() == {contacts[0]: "bounced, hard", contacts[1]: "complained"}
    report = [json.loads(line) for line in (tmp_path / "r.jsonl").read_text().splitlines()]
    assert {(row["address"], row["outcome"], row["line"]) for row in report} == {
        (contacts[0].upper(), "opted out", 2),
        ("account@example.com", "opted out", 2),
        ("nobody@example.com", "unknown", 3),
    }

    again = json.loads(opt_out(cli, *lists, "--yes", "--json").stdout)

    assert (again["opted_out"], again["opted_out_before"]) == (0, 2)


def test_an_opt_out_is_an_event_of_the_operator(cli: CliRunner, contacts: list[str]) -> None:
    opt_out(cli, "-", "--yes", text=f"Email,Date,Reason\n{contacts[0]},2023-01-05,bounced\n")

    found = execute(
        "SELECT json_agg(json_build_array(primary_email, kind, action, reason, actor))"
        " FROM subscription_events JOIN emails USING (email_id)"
    )
    assert found == [[contacts[0], "global_opt_out", "unsubscribed", "bounced", current_actor()]]


def test_a_list_from_standard_input(cli: CliRunner, contacts: list[str]) -> None:
    opt_out(cli, "-", "--yes", text=f"Email;Date\n{contacts[0]};2023-01-05\n")

    assert reasons() == {contacts[0]: None}


def test_a_dry_run_changes_nothing(cli: CliRunner, contacts: list[str]) -> None:
    found = opt_out(cli, "-", "--dry-run", "--json", text=f"Email;Date\n{contacts[0]};2023-01-05\n")

    assert json.loads(found.stdout)["found"] == 1
    assert reasons() == {}


def test_bad_lines_are_passed_over(cli: CliRunner, contacts: list[str]) -> None:
    text = f"Email;Date\n{contacts[0]};2023-01-05\nnobody;2023-01-05\n"

    done = opt_out(cli, "-", "--yes", status=3, text=text)

    assert done.stderr.splitlines() == [
        "line 3: no address: there is no @",
        "Error: skipped bad lines: 1",
    ]
    assert reasons() == {contacts[0]: None}


def test_a_date_only_orders_duplicates(cli: CliRunner, contacts: list[str]) -> None:
    text = (
        f"Email,Reason,Unsubscribed at\n{contacts[0]},dated,2023-01-05\n{contacts[0]},undated,soon\n"
        f"{contacts[1]},unreadable,31st of May\n"
    )

    done = json.loads(opt_out(cli, "-", "--yes", "--json", text=text).stdout)

    assert (done["opted_out"], done["undated"], done["duplicates"], done["bad_lines"]) == (2, 1, 1, 0)
    assert reasons() == {contacts[0]: "dated", contacts[1]: "unreadable"}


def test_columns_may_be_named(cli: CliRunner, contacts: list[str]) -> None:
    text = f"Kunde,Abgemeldet,Grund\n{contacts[0]},24.05.2024,neu\n{contacts[0]},23.05.2024,alt\n"
    columns = ["--column", "Kunde", "--date-column", "Abgemeldet", "--reason-column", "Grund"]

    opt_out(cli, "-", "--yes", *columns, text=text)

    assert reasons() == {contacts[0]: "neu"}


@pytest.mark.parametrize("arguments", [(), ("missing.csv", "--yes"), ("-",)], ids=" ".join)
def test_bad_usage(cli: CliRunner, arguments: tuple[str, ...]) -> None:
    opt_out(cli, *arguments, status=2)


def test_a_list_without_its_columns_is_bad_usage(cli: CliRunner) -> None:
    refused = opt_out(cli, "-", "--yes", status=2, text="customer,reason\na@x.example,b\n")

    assert refused.stderr == (
        "Error: line 1: no column is known to hold the addresses: name it with --column"
        " (the columns: customer, reason)\n"
    )


def test_it_refuses_without_a_terminal(cli: CliRunner, contacts: list[str], tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"Email;Date\n{contacts[0]};2023-01-05\n")

    assert "--yes" in opt_out(cli, str(tmp_path / "list.csv"), status=1).stderr
    assert reasons() == {}


def test_the_time_of_change_moves(cli: CliRunner, api: ApiClient, contacts: list[str]) -> None:
    execute("UPDATE emails SET update_timestamp = '2020-01-01'")

    opt_out(cli, "-", "--yes", text=f"Email;Date\n{contacts[0]};2023-01-05\n")

    changed = execute("SELECT array_agg(primary_email) FROM emails WHERE update_timestamp > '2020-01-02'")
    assert changed == [contacts[0]]
    assert api.get(f"/ctms?primary_email={contacts[0]}").json[0]["email"]["has_opted_out_of_email"] is True


def test_the_confirmation_shows_the_numbers(
    cli: CliRunner, contacts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True, raising=False)
    (tmp_path / "list.txt").write_text(f"{contacts[0]}\nnobody@example.com\n")

    declined = opt_out(cli, str(tmp_path / "list.txt"), status=1, text="n\n")

    assert "Opt out 1 address? (1 is unknown) [y/N]" in declined.stderr
