"""`flask ctms retention …`"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from click.testing import CliRunner
from flask import Flask

from ctms.cli import ctms
from ctms.cli.actor import current_actor
from ctms.cli.retention import REPORT
from ctms.settings import Settings
from tests.cli.running import run, run_json
from tests.retention.rules import COUNTRY, configure, left, make, write
from tests.sync.working import rows

RULES = f"""
max_contacts = 3
[hold]
lists = ["cases.txt"]
[rules.unconfirmed]
description = "Never confirmed"
action = "erase"
when = {{mailing_country = "{COUNTRY}", double_opt_in = false}}
[rules.old]
action = "anonymise"
when = {{mailing_country = "{COUNTRY}"}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path, RULES, cases="# none\n")


@pytest.fixture
def contacts() -> tuple[list[UUID], list[UUID]]:
    """Return contacts that the first rule matches, and some that the second does."""
    return make(2), make(1, double_opt_in=True)


def hold(file: Path, *lines: object) -> None:
    """Put contacts under a legal hold."""
    file.with_name("cases.txt").write_text("\n".join(map(str, lines)), encoding="utf-8")


@pytest.fixture(autouse=True)
def configured(app: Flask, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configure(app, monkeypatch, file)


class TestCheck:
    def test_rules_are_listed_in_their_order(self, cli: CliRunner) -> None:
        shown = run(cli, "retention", "check").stdout

        assert [line.split()[:2] for line in shown.splitlines()[1:3]] == [
            ["unconfirmed", "erase"],
            ["old", "anonymise"],
        ]
        assert "Never confirmed" in shown

    def test_another_file_is_checked(self, cli: CliRunner, tmp_path: Path) -> None:
        (tmp_path / "other").mkdir()
        text = '[rules.x]\naction = "erase"\nwhen.has_fxa = false\n'
        other = write(tmp_path / "other", f'hold.lists = ["l.txt"]\n{text}', l="jane@example.com")

        assert run_json(cli, "retention", "check", str(other)) == {
            "rules": [{"rule": "x", "action": "erase", "description": ""}],
            "held_ids": 0,
            "held_addresses": 1,
            "max_contacts": 1000,
        }

    def test_an_invalid_file_is_refused(self, cli: CliRunner, file: Path) -> None:
        file.write_text("max_contacts = 0")

        assert "rules: must be a table with one or more rules" in run(cli, "retention", "check", status=1).stderr


class TestDryRun:
    def test_it_counts_by_rule_and_changes_nothing(
        self, cli: CliRunner, file: Path, contacts: tuple[list[UUID], list[UUID]], tmp_path: Path
    ) -> None:
        (first, held), (second,) = contacts
        hold(file, held)
        report = tmp_path / "report.csv"

        counted = run_json(cli, "retention", "run", "--dry-run", "--report", str(report))

        assert counted == {
            "rules": [
                {"rule": "unconfirmed", "action": "erase", "found": 1, "held": 1},
                {"rule": "old", "action": "anonymise", "found": 1, "held": 0},
            ],
            "found": 2,
            "max_contacts": 3,
            "dry_run": True,
        }
        assert left([first, held, second]) == {first, held, second}
        assert rows("SELECT count(*) FROM retention_runs") == [0]
        with report.open() as lines:
            listed = list(csv.DictReader(lines))
        assert tuple(listed[0]) == REPORT
        assert {(row["email_id"], row["rule"], row["outcome"]) for row in listed} == {
            (str(first), "unconfirmed", "found"),
            (str(held), "unconfirmed", "held"),
            (str(second), "old", "found"),
        }

    def test_it_fails_above_the_maximum(self, cli: CliRunner, contacts: tuple[list[UUID], list[UUID]]) -> None:
        assert contacts
        result = cli.invoke(ctms, ["retention", "run", "--dry-run", "--max", "2"])

        assert result.exit_code == 3
        assert [line.split()[2] for line in result.stdout.splitlines()] == ["found", "2", "1"]
        assert result.stderr == "Error: the rules match 3 contacts, more than the maximum of 2\n"


class TestRun:
    def test_it_refuses_to_run_without_a_backend_that_the_database_knows(
        self, cli: CliRunner, contacts: tuple[list[UUID], list[UUID]]
    ) -> None:
        rows("INSERT INTO receivers (kind, name, failures) VALUES ('backend', 'braze', 0) RETURNING name")

        assert "no enabled plugin provides the backend braze" in run(cli, "retention", "run", status=1).stderr
        assert left(contacts[0]) == set(contacts[0])
        assert "Warning: no enabled plugin" in run(cli, "retention", "run", "--dry-run").stderr
        run(cli, "retention", "run", "--ignore-missing")
        assert left(contacts[0]) == set()

    def test_it_erases_and_anonymises(
        self, cli: CliRunner, contacts: tuple[list[UUID], list[UUID]], tmp_path: Path
    ) -> None:
        report = tmp_path / "report.jsonl"

        done = run_json(cli, "retention", "run", "--report", str(report))

        nothing = {"held": 0, "changed": 0, "failed": 0}
        assert done["rules"] == [
            {"rule": "unconfirmed", "action": "erase", "found": 2, "erased": 2, "anonymised": 0, **nothing},
            {"rule": "old", "action": "anonymise", "found": 1, "erased": 0, "anonymised": 1, **nothing},
        ]
        assert left([*contacts[0], *contacts[1]]) == set()
        assert rows("SELECT requested_by, origin FROM erasures ORDER BY origin") == [
            (current_actor(), "retention:old"),
            (current_actor(), "retention:unconfirmed"),
        ]
        outcomes = [json.loads(line)["outcome"] for line in report.read_text().splitlines()]
        assert sorted(outcomes) == ["anonymised", "erased", "erased"]

    @pytest.mark.parametrize("arguments", [["--max", "2"], []])
    def test_nothing_is_erased_above_the_maximum(
        self, cli: CliRunner, contacts: tuple[list[UUID], list[UUID]], arguments: list[str]
    ) -> None:
        more = make(1) if not arguments else []
        everybody = {*contacts[0], *contacts[1], *more}

        message = run(cli, "retention", "run", *arguments, status=3).stderr

        assert message.startswith("Error: the rules match more contacts than the maximum of ")
        assert "nothing is erased" in message
        assert left(everybody) == everybody

    def test_the_option_overrides_the_file(self, cli: CliRunner) -> None:
        ids = make(4)

        run(cli, "retention", "run", "--max", "4")

        assert left(ids) == set()

    def test_failed_contacts_fail_the_command(self, cli: CliRunner) -> None:
        (email_id,) = make()
        rows("CREATE TABLE notes (email_id uuid REFERENCES emails)")
        rows("INSERT INTO notes VALUES (%s)", email_id)

        result = cli.invoke(ctms, ["retention", "run"])

        assert result.exit_code == 3
        assert result.stderr == "Error: contacts that failed: 1; run it again to retry them\n"

    def test_an_unreadable_hold_stops_it(self, cli: CliRunner, file: Path) -> None:
        (email_id,) = make()
        hold(file, "not an address")

        assert "nothing is erased while a legal hold is unreadable" in run(cli, "retention", "run", status=1).stderr
        assert left([email_id]) == {email_id}


class TestWithoutTheSetting:
    @pytest.fixture(autouse=True)
    def configured(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
        configure(app, monkeypatch, None)

    @pytest.mark.parametrize("arguments", [["run"], ["run", "--dry-run"], ["check"]])
    def test_the_setting_is_named(self, cli: CliRunner, arguments: list[str]) -> None:
        assert "CTMS_RETENTION_FILE is not set" in run(cli, "retention", *arguments, status=1).stderr


def test_runs_are_listed_newest_first(cli: CliRunner, contacts: tuple[list[UUID], list[UUID]]) -> None:
    assert contacts
    cli.invoke(ctms, ["retention", "run", "--max", "1"])
    run(cli, "retention", "run")

    found: list[dict[str, Any]] = run_json(cli, "retention", "runs")

    assert [(one["outcome"], one["max_contacts"], one["erased"], one["anonymised"]) for one in found] == [
        ("done", 3, 2, 1),
        ("over the maximum", 1, 0, 0),
    ]
    assert run(cli, "retention", "runs", "--limit", "1").stdout.splitlines()[0].split()[0] == "started_at"


def test_numbers_of_anonymised_contacts_are_shown(cli: CliRunner, contacts: tuple[list[UUID], list[UUID]]) -> None:
    assert contacts
    run(cli, "retention", "run")

    (one,) = run_json(cli, "retention", "statistics")

    assert (one["rule"], one["kind"], one["created_year"], one["contacts"]) == ("old", "contacts", 2020, 1)
    assert len(run(cli, "retention", "statistics").stdout.splitlines()) == 2


def test_the_file_may_be_named_by_any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setenv("CTMS_RETENTION_FILE", "~/rules.toml")

    assert Settings.from_environment().retention_file == Path("/home/x/rules.toml")
