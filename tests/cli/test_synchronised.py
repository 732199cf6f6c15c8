"""Backends that never received the contacts from before them are named until a resync of all contacts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.cli import ctms
from ctms.database import pool
from ctms.sync import synchronised
from tests.cli.running import run, run_json
from tests.sync.receiving import contacts, ctms_plugins, deliver, execute, ids, park

__all__ = ["contacts", "ctms_plugins"]

Make = Callable[..., dict[str, Any]]

REMARK = (
    "the backend {0} was never synchronised: run `flask ctms backends resync {0} --all`"
    " to push the contacts from before it"
)


def never(cli: CliRunner) -> list[str]:
    """Return the backends in the remarks, and compare them with the list."""
    found = [one["name"] for one in run_json(cli, "backends", "list") if one["never_synchronised"]]
    assert run(cli, "backends", "list").stderr.splitlines() == [REMARK.format(name) for name in found]
    return found


@pytest.mark.usefixtures("app")
def test_without_contacts_nothing_is_missing(cli: CliRunner) -> None:
    execute("DELETE FROM emails")

    assert never(cli) == []


def test_with_contacts_that_all_wait_nothing_is_missing(cli: CliRunner, make_contact: Make) -> None:
    execute("DELETE FROM emails")
    first, second = ids([make_contact(), make_contact()])
    assert never(cli) == []

    execute("DELETE FROM outbox WHERE backend = 'mail' AND email_id = %(e)s", e=first)
    park(second, "no")
    assert never(cli) == ["mail"]


@pytest.mark.usefixtures("contacts")
def test_it_warns_until_a_resync_of_all(cli: CliRunner) -> None:
    assert never(cli) == ["blind", "club", "mail"]

    run(cli, "backends", "resync", "mail", "--newsletter", "news")
    run(cli, "backends", "resync", "mail", "--since", "2h")
    deliver()
    assert "mail" in never(cli)

    run(cli, "backends", "resync", "mail", "--all", "--yes")
    deliver()
    assert never(cli) == ["blind", "club"]
    assert [one["name"] for one in run_json(cli, "backends", "list") if one["synchronised_at"]] == ["mail"]


@pytest.mark.usefixtures("contacts")
def test_not_by_a_resync_that_was_stopped(cli: CliRunner, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: Any) -> Any:
        yield 1
        raise KeyboardInterrupt

    monkeypatch.setattr("ctms.sync.resync.resync", stop)
    assert cli.invoke(ctms, ["backends", "resync", "mail", "--all", "--yes"]).exit_code == 3

    assert "mail" in never(cli)


def test_a_worker_records_that_nothing_was_missing(cli: CliRunner, make_contact: Make) -> None:
    execute("DELETE FROM emails")
    make_contact()
    with pool.acquire() as connection:
        synchronised.record_complete(connection, ["mail"])

    deliver()

    assert never(cli) == ["blind", "club"]
