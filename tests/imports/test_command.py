"""`flask ctms import`."""

from __future__ import annotations

import csv
import io
import json
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from ctms.cli import ctms
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.suppression.fingerprints import Fingerprints, fingerprints
from ctms.suppression.suppressions import suppress
from ctms.testing.commands import CommandRunner
from tests.cli.running import run
from tests.export.conftest import _WAITLIST, documents
from tests.imports.listed import EVENTS, WEEKLY, counts, run_import, scalar, stored, without, write

EXPORTS = Path(__file__).parent.parent / "bulk" / "exports"
MAILCHIMP = """
email.primary_email = "Email Address"
email.first_name = "First Name"
email.last_name = "Last Name"
email.has_opted_out_of_email = {value = true}
email.unsubscribe_reason = "UNSUB_REASON"
[newsletters.friends]
subscribed = {column = "TAGS", values = {'"friend"' = true}}
evidence.ip = "CONFIRM_IP"
"""
ACOUSTIC = """
email.primary_email = "Email"
email.has_opted_out_of_email = {column = "Opted Out", values = {T = true, F = false}}
email.unsubscribe_reason = "Opt Out Details"
email.email_format = {column = "Email Type", values = {0 = "H", 1 = "T"}}
"""
LIST = "Email,Name,Weekly\n" + "".join(f"p{one}@example.com,Name {one},yes\n" for one in range(25))


@pytest.fixture
def contact_map(tmp_path: Path) -> Path:
    return write(tmp_path / "map.toml", WEEKLY)


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return write(tmp_path / "list.csv", LIST)


def test_an_export_of_mailchimp(cli: CommandRunner, connection: Connection, tmp_path: Path) -> None:
    given = write(tmp_path / "map.toml", MAILCHIMP)

    result = run_import(cli, EXPORTS / "mailchimp-unsubscribed.csv", "--map", given, "--mode", "create", "--json")

    ada = stored(connection)["ada@example.com"]
    assert counts(result) == {"rows": counts(result)["created"], "created": len(stored(connection))}
    assert (ada["email"]["first_name"], ada["email"]["last_name"]) == ("Ada", "Byron")
    assert ada["email"]["has_opted_out_of_email"] is True
    assert ada["email"]["unsubscribe_reason"] == "NORMAL: I no longer want to receive these emails"
    assert [one["name"] for one in ada["newsletters"]] == ["friends"]
    assert scalar(connection, "SELECT evidence FROM subscription_events WHERE name = 'friends'") == {"ip": "192.0.2.7"}
    assert scalar(connection, "SELECT count(*) FROM subscription_events WHERE actor LIKE 'operator:%'") >= 2


def test_an_export_of_acoustic(cli: CommandRunner, connection: Connection, tmp_path: Path) -> None:
    given = write(tmp_path / "map.toml", ACOUSTIC)

    run_import(cli, EXPORTS / "acoustic.csv", "--map", given, "--mode", "upsert")

    ada = stored(connection)["ada@example.com"]["email"]
    assert (ada["has_opted_out_of_email"], ada["email_format"]) == (True, "H")
    assert ada["unsubscribe_reason"] == "Opt out via one click opt out"


@pytest.mark.usefixtures("people")
@pytest.mark.parametrize("format_", ["ndjson", "csv", "parquet"])
@pytest.mark.parametrize("mode", ["create", "upsert"])
def test_what_was_exported_is_imported(
    cli: CommandRunner, connection: Connection, tmp_path: Path, format_: str, mode: str
) -> None:
    # What no request may send is refused by an import, too, and an empty text is an empty cell of CSV.
    connection.execute("UPDATE emails SET first_name = NULL WHERE first_name = ''")
    connection.execute("UPDATE newsletters SET unsub_reason = NULL WHERE unsub_reason = ''")
    connection.execute("UPDATE amo SET display_name = NULL WHERE display_name = ''")
    connection.execute("DELETE FROM waitlists")
    for name, fields in (("vpn", '{"geo": "ca", "platform": "ios"}'), ("own", '{"a": [1, {"b": null}], "ü": "\\n"}')):
        connection.execute(_WAITLIST, (name, fields, name))
    run(cli, "export", "--output", str(tmp_path / "out"), "--format", format_, "--part-size", "100")
    before = documents(connection)
    connection.execute("DELETE FROM emails")

    result = run_import(cli, tmp_path / "out", "--mode", mode, "--json", "--processes", "2", "--batch-size", "50")

    assert counts(result) == {"rows": len(before), "created": len(before)}
    assert without(documents(connection)) == without(before)
    again = run_import(cli, tmp_path / "out", "--mode", mode, "--json")
    assert counts(again) == {"rows": len(before), "unchanged": len(before)}


@pytest.mark.parametrize("processes", [1, 3])
def test_modes(cli: CommandRunner, connection: Connection, contact_map: Path, listed: Path, processes: int) -> None:
    options = ("--map", contact_map, "--json", "--batch-size", "5", "--processes", str(processes))
    assert counts(run_import(cli, listed, "--mode", "update", *options)) == {"rows": 25, "not_found": 25}
    assert counts(run_import(cli, listed, "--mode", "upsert", *options)) == {"rows": 25, "created": 25}
    assert counts(run_import(cli, listed, "--mode", "create", *options)) == {"rows": 25, "unchanged": 25}
    listed.write_text(LIST.replace("Name 7,yes", "Seven,no") + "new@example.com,New,\n" + "P1@EXAMPLE.com,Last,\n" * 9)

    assert counts(run_import(cli, listed, "--mode", "upsert", *options)) == {
        "rows": 35,
        "created": 1,
        "updated": 2,
        "unchanged": 32,
    }
    found = stored(connection)
    assert found["p7@example.com"]["email"]["first_name"] == "Seven"
    assert [one["subscribed"] for one in found["p7@example.com"]["newsletters"]] == [False]
    assert found["new@example.com"]["newsletters"] == []
    assert found["p1@example.com"]["email"]["first_name"] == "Last"


def test_rows_of_one_contact_take_effect_in_their_order(
    cli: CommandRunner, connection: Connection, contact_map: Path, tmp_path: Path
) -> None:
    lines = [f"p{one % 7}@example.com,Name {one},yes\n" for one in range(200)]
    path = write(tmp_path / "many.csv", "Email,Name,Weekly\n" + "".join(lines))

    run_import(cli, path, "--map", contact_map, "--mode", "upsert", "--batch-size", "3", "--processes", "3")

    assert {name: one["email"]["first_name"] for name, one in stored(connection).items()} == {
        f"p{one % 7}@example.com": f"Name {one}" for one in range(193, 200)
    }


def test_a_preview_shows_contacts_as_they_would_become(
    cli: CommandRunner, connection: Connection, contact_map: Path, listed: Path
) -> None:
    listed.write_text(LIST.replace("p1@example.com", "not an address"))
    run_import(cli, write(listed.with_name("one.csv"), "Email,Name,Weekly\np2@example.com,Old,no\n"),
               "--map", contact_map, "--mode", "create")  # fmt: skip
    before = documents(connection)

    shown = json.loads(run_import(cli, listed, "--map", contact_map, "--mode", "upsert", "--preview").stdout)

    assert documents(connection) == before
    assert [one["row"] for one in shown] == list(range(1, 11))
    assert [one["outcome"] for one in shown[:4]] == ["created", "invalid", "updated", "created"]
    assert shown[0]["contact"]["email"]["first_name"] == "Name 0"
    assert shown[1]["contact"] is None
    assert shown[1]["place"] == "email.primary_email"
    assert shown[2]["contact"]["email"]["first_name"] == "Name 2"
    assert [one["subscribed"] for one in shown[2]["contact"]["newsletters"]] == [False]


def test_a_dry_run_counts_and_changes_nothing(
    cli: CommandRunner, connection: Connection, contact_map: Path, listed: Path
) -> None:
    report = listed.with_name("r.csv")
    options = ("--map", contact_map, "--mode", "upsert", "--report", report)
    events = scalar(connection, EVENTS)

    result = run_import(cli, listed, *options, "--dry-run", "--json", "--processes", "2", "--batch-size", "5")

    assert counts(result) == {"rows": 25, "created": 25}
    assert documents(connection) == {}
    assert scalar(connection, EVENTS) == events
    assert {row["outcome"] for row in csv.DictReader(io.StringIO(report.read_text()))} == {"would be created"}
    assert run_import(cli, listed, *options, "--resume", "--json").exit_code == 0
    assert len(documents(connection)) == 25


BAD = """Email,Name,Weekly
secret-1,A,
a@example.com,A,secret-2
,secret-3,
b@example.com,B,yes,secret-4
c@example.com,C,yes
"""


@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
@pytest.mark.parametrize("processes", [1, 2])
def test_bad_rows_are_reported_and_can_be_repeated(
    cli: CommandRunner, connection: Connection, contact_map: Path, suffix: str, processes: int
) -> None:
    path, report = write(contact_map.with_name("bad.csv"), BAD), contact_map.with_name(f"report.{suffix}")
    options = ("--map", contact_map, "--mode", "upsert", "--report", report, "--json")

    result = run_import(cli, path, *options, "--batch-size", "2", "--processes", str(processes), status=3)

    assert counts(result) == {"rows": 5, "created": 1, "invalid": 4}
    assert sorted(result.stderr.splitlines()[:-1]) == [
        "row 1: email.primary_email: Input should be a valid e-mail address",
        "row 2: newsletters.0.subscribed: Input should be a valid boolean",
        "row 3: email.primary_email: Field required",
        "row 4: The row has more columns than the first line",
    ]
    assert result.stderr.splitlines()[-1] == "Error: rows with the outcome invalid: 4"
    assert "secret" not in result.stderr + report.read_text()
    assert list(stored(connection)) == ["c@example.com"]

    path.write_text(BAD.replace("secret-1", "d@example.com").replace("secret-2", "no"))
    again = run_import(cli, path, *options, "--resume", status=3)

    assert counts(again) == {"rows": 4, "created": 2, "invalid": 2, "skipped": 1}
    assert len(report.read_text().splitlines()) == 9 + (suffix == "csv")


@pytest.mark.parametrize("processes", [1, 2])
def test_a_malformed_quote_ends_the_import(
    cli: CommandRunner, connection: Connection, contact_map: Path, processes: int
) -> None:
    text = 'Email,Weekly,Name\na@example.com\nb@example.com\nc@example.com,,"not "doubled" within\nd@example.com\nit"\n'
    path = write(contact_map.with_name("bad.csv"), text)
    options = ("--map", contact_map, "--mode", "upsert", "--batch-size", "1", "--processes", str(processes))

    result = run_import(cli, path, *options, status=3)

    assert "Error: line 4: a quote does not end" in result.stderr
    assert "example" not in result.stderr
    assert "d@example.com" not in stored(connection)
    path.write_text(text.replace('"doubled"', '""doubled""'))
    run_import(cli, path, *options)
    assert sorted(stored(connection)) == ["a@example.com", "b@example.com", "c@example.com"]


def everything(connection: Connection) -> Any:
    """Return all contacts, with times, and all events."""
    events = connection.execute("SELECT to_json(e)::text FROM subscription_events e ORDER BY event_id").fetchall()
    return documents(connection), events


def test_an_old_list_changes_no_consent(
    cli: CommandRunner, connection: Connection, contact_map: Path, listed: Path
) -> None:
    text = (
        WEEKLY + "email.has_opted_out_of_email = {value = false}\nnewsletters.daily = {subscribed = {value = true}}\n"
    )
    contact_map.write_text(text)
    options = ("--map", contact_map, "--mode", "upsert", "--json")
    run_import(cli, listed, *options)
    connection.execute("UPDATE newsletters SET subscribed = false WHERE name = 'weekly'")
    connection.execute("DELETE FROM newsletters WHERE name = 'daily'")
    connection.execute("UPDATE emails SET has_opted_out_of_email = true, unsubscribe_reason = 'spam'")
    before = everything(connection)

    for _ in range(2):
        assert counts(run_import(cli, listed, *options)) == {"rows": 25, "unchanged": 25}
        assert everything(connection) == before

    again = run_import(cli, listed, *options, "--consent-source", "Fair of 2026")
    assert counts(again) == {"rows": 25, "updated": 25}
    found = stored(connection).values()
    assert {one["email"]["has_opted_out_of_email"] for one in found} == {False}
    assert {entry["subscribed"] for one in found for entry in one["newsletters"]} == {True}
    proven = "SELECT count(*) FROM subscription_events WHERE evidence->>'consent_source' = 'Fair of 2026'"
    assert scalar(connection, proven) == 50
    assert counts(run_import(cli, listed, *options, "--consent-source", "Fair of 2026")) == {
        "rows": 25,
        "unchanged": 25,
    }
    assert scalar(connection, proven) == 50


@pytest.fixture
def key(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the app a key for suppressions."""
    monkeypatch.setitem(app.extensions, "ctms.fingerprints", Fingerprints(lambda: "a key for tests only"))


@pytest.mark.usefixtures("key")
def test_suppressed_addresses_are_not_stored(
    cli: CommandRunner, connection: Connection, contact_map: Path, listed: Path
) -> None:
    with pool.writing() as writing:
        suppress(writing, fingerprints().all_of("p3@example.com"), "command")
    try:
        result = run_import(cli, listed, "--map", contact_map, "--mode", "upsert", "--json")
    finally:
        connection.execute("DELETE FROM suppressions")

    assert counts(result) == {"rows": 25, "created": 24, "suppressed": 1}
    assert "p3@example.com" not in stored(connection)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nothing.csv"], "nothing.csv cannot be read: No such file"),
        (["nothing"], "the format of nothing is not known by its name: pass --format"),
        (["-"], "standard input has no name: pass --format"),
        (["list.csv"], "these are not the columns of an export: pass a map with --map"),
        (["list.csv", "--map", "other.toml"], "the file lacks columns of the map: Mail"),
        (["list.csv", "--map", "nothing.toml"], "nothing.toml cannot be read"),
        (["list.csv", "--map", "list.csv"], "list.csv is not TOML"),
        (["list.csv", "--map", "wrong.toml"], "wrong.toml: unknown: emails"),
        (["list.csv", "--map", "map.toml", "--resume"], "--resume needs --report"),
        (["list.csv", "--map", "map.toml", "--report", "r.txt"], "must end in .csv or .jsonl"),
        (["list.csv", "--map", "map.toml", "--resume", "--report", "r.csv", "--dry-run"], "exclude each other"),
        (["list.csv", "--map", "map.toml", "--resume", "--report", "list.csv"], "is not the report of an import"),
        (["list.csv", "--map", "map.toml", "--consent-source", " "], "1 to 256 characters"),
    ],
)
@pytest.mark.usefixtures("contact_map")
def test_wrong_usage(cli: CommandRunner, listed: Path, arguments: list[str], problem: str) -> None:
    write(listed.with_name("wrong.toml"), "emails.a = 'b'")
    write(listed.with_name("other.toml"), "email.primary_email = 'Mail'")

    with chdir(listed.parent):
        result = run_import(cli, *arguments, "--mode", "upsert", status=2)

    assert problem in " ".join(result.stderr.split())
    assert listed.read_text() == LIST


def test_standard_input(cli: CommandRunner, connection: Connection) -> None:
    document = json.dumps({"email": {"primary_email": "a@example.com"}})
    arguments = ["import", "-", "--format", "ndjson", "--mode", "create"]

    assert cli.invoke(ctms, arguments, input=document).exit_code == 0
    assert list(stored(connection)) == ["a@example.com"]
