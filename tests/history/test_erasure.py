"""No event of a person is left after an erasure, in whatever way the contact is erased."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from ctms.cli import ctms
from tests.contacts.factories import full
from tests.contacts.rows import execute
from tests.http import ApiClient

TABLES = """
    SELECT array_agg(oid::regclass::text) FROM pg_class
    WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"""


def tables_with(mark: str) -> list[str]:
    """Return the tables with a row that holds the text, as a dump would show it."""
    names: Any = execute(TABLES)
    rows = "SELECT count(*) FROM {} t WHERE t::text LIKE :like"
    return [name for name in names if execute(rows.format(name), like=f"%{mark}%")]


def _delete(api: ApiClient, _cli: CliRunner, address: str) -> None:
    assert api.delete(f"/ctms/{address}").status_code == 200


def _erase(api: ApiClient, _cli: CliRunner, address: str) -> None:
    assert api.post("/erasures", {"emails": [address]}).status_code == 202


def _delete_in_bulk(_api: ApiClient, cli: CliRunner, address: str) -> None:
    assert cli.invoke(ctms, ["delete-bulk", "--email", address, "--yes"]).exit_code == 0


def _delete_by_sql(_api: ApiClient, _cli: CliRunner, address: str) -> None:
    execute("DELETE FROM emails WHERE primary_email = :address", address=address)


@pytest.mark.parametrize("erase", [_delete, _erase, _delete_in_bulk, _delete_by_sql])
def test_no_event_is_left(api: ApiClient, cli: CliRunner, erase: Callable[[ApiClient, CliRunner, str], None]) -> None:
    mark = uuid.uuid4().hex
    contact = full()
    contact["email"]["unsubscribe_reason"] = f"reason {mark}"
    for entry in (*contact["newsletters"], *contact["waitlists"]):
        entry |= {"source": f"https://{mark}.example.com/", "unsub_reason": mark, "evidence": {"form": mark}}
    email = api.post("/ctms", contact).json["email"]
    api.patch(f"/ctms/{email['email_id']}", {"newsletters": "UNSUBSCRIBE", "waitlists": "UNSUBSCRIBE"})
    assert "subscription_events" in tables_with(mark)

    erase(api, cli, email["primary_email"])

    assert tables_with(mark) == []
    left = {"contact_tombstones", "deletion_feed"}
    assert {name for name in tables_with(email["email_id"]) if not name.startswith(("outbox", "erasure"))} <= left
