"""`flask ctms backends forget`: a backend or deletion handler that is no longer used."""

from __future__ import annotations

from uuid import uuid4

import pytest
from click.testing import CliRunner

from ctms.cli import ctms
from ctms.sync import known_receivers
from tests.cli.running import run, run_json
from tests.http import ApiClient
from tests.sync.receiving import contacts, ctms_plugins, execute

__all__ = ["contacts", "ctms_plugins"]


@pytest.fixture
def unused(app: object, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: ARG001  inside its transaction
    """A backend of a removed plugin, with 25 pending changes, and a deletion handler of the same name."""
    monkeypatch.setattr(known_receivers, "BATCH", 10)
    for kind in ("backend", "deletion_handler"):
        execute("INSERT INTO receivers (kind, name, failures) VALUES (%(k)s, 'unused', 0)", k=kind)
    execute(
        "INSERT INTO outbox (backend, email_id, version, priority, waiting_since, due_at, attempts, failures)"
        " SELECT b, gen_random_uuid(), 1, 0, now(), now(), 0, 0"
        " FROM generate_series(1, 25), unnest('{unused,mail}'::text[]) AS b"
    )
    for backend in ("unused", "mail"):
        values = {"b": backend, "e": uuid4()}
        execute("INSERT INTO outbox_mirrored (backend, email_id) VALUES (%(b)s, %(e)s)", **values)
        execute(
            "INSERT INTO erasure_deletions (backend, email_id, merged_into, parked)"
            " VALUES (%(b)s, %(e)s, %(e)s, false)",
            **values,
        )


def remains(name: str) -> list[int]:
    """Return how many rows of a backend are in each table."""
    return [
        execute(f"SELECT count(*) FROM {table} WHERE backend = %(n)s", n=name)[0][0]
        for table in ("outbox", "outbox_mirrored", "erasure_deletions")
    ]


def names(cli: CliRunner) -> list[tuple[str, str]]:
    return [(one["kind"], one["name"]) for one in run_json(cli, "backends", "list") if one["name"] == "unused"]


@pytest.mark.usefixtures("unused")
def test_it_is_no_longer_known(cli: CliRunner) -> None:
    refused = cli.invoke(ctms, ["delete-bulk", "--email", "nobody@example.com", "--yes"])
    assert "the backend unused, the deletion handler unused" in refused.stderr

    done = run_json(cli, "backends", "forget", "unused", "--yes")

    assert done == {"kind": "backend", "name": "unused", "dropped": 25}
    assert remains("unused") == [0, 0, 0]
    assert remains("mail") == [25, 1, 1]
    assert names(cli) == [("deletion_handler", "unused")]
    assert "forgotten" in run(cli, "backends", "forget", "unused", "--deletion-handler", "--yes").stderr
    assert names(cli) == []
    run(cli, "delete-bulk", "--email", "nobody@example.com", "--yes")
    run(cli, "backends", "forget", "unused", "--yes", status=4)


def test_one_that_a_plugin_provides_is_not_forgotten(cli: CliRunner) -> None:
    refused = run(cli, "backends", "forget", "mail", "--yes", status=1)

    assert "a plugin provides the backend mail: remove the plugin first" in refused.stderr


@pytest.mark.usefixtures("unused")
@pytest.mark.parametrize("kind", ["backend", "deletion handler"])
def test_one_that_erasures_wait_for_is_not_forgotten(cli: CliRunner, api: ApiClient, kind: str) -> None:
    address = f"{uuid4()}@example.com"
    api.post("/ctms", {"email": {"primary_email": address}})
    erasure = api.delete(f"/ctms/{address}").headers["Erasure-Id"]
    options = () if kind == "backend" else ("--deletion-handler",)
    if kind == "backend":
        execute(
            "INSERT INTO erasure_backends (erasure_id, backend, pending, done, parked, started_at, changed_at)"
            " VALUES (%(e)s, 'unused', 1, 0, 0, now(), now())",
            e=erasure,
        )
    else:
        execute(
            "INSERT INTO erasure_handlers"
            " (erasure_id, handler, pending, done, verified, parked, started_at, changed_at)"
            " SELECT erasure_id, 'unused', pending, done, verified, parked, started_at, changed_at"
            " FROM erasure_handlers"
        )
        execute("UPDATE erasure_tasks SET handler = 'unused'")

    refused = run(cli, "backends", "forget", "unused", *options, "--yes", status=1)

    assert f"erasures wait for the {kind} unused" in refused.stderr
    run(cli, "erasures", "close", erasure, "unused", *options, "--yes")
    run(cli, "backends", "forget", "unused", *options, "--yes")
