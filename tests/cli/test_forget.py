"""`flask ctms backends forget`: a backend or deletion handler that is no longer used."""

from __future__ import annotations

from uuid import uuid4

import pytest
from click.testing import CliRunner

from ctms.cli import ctms
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.errors import OperatorError
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
def test_a_misspelt_name_lists_those_that_only_the_database_knows(cli: CliRunner) -> None:
    refused = run(cli, "backends", "forget", "unsued", "--yes", status=4)

    assert refused.stderr.startswith("Error: there is no backend unsued; the backends are ")
    assert "unused" in refused.stderr


@pytest.mark.usefixtures("unused")
def test_it_is_no_longer_known(cli: CliRunner) -> None:
    refused = cli.invoke(ctms, ["delete-bulk", "--email", "nobody@example.com", "--yes"])
    assert "the backend unused, the deletion handler unused" in refused.stderr

    done = run_json(cli, "backends", "forget", "unused", "--yes")

    assert done == {"kind": "backend", "name": "unused", "dropped": 25, "closed": 0}
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
@pytest.mark.parametrize("closed", ["each", "all"])
def test_one_that_erasures_wait_for_is_not_forgotten(cli: CliRunner, api: ApiClient, kind: str, closed: str) -> None:
    address = f"{uuid4()}@example.com"
    api.post("/ctms", {"email": {"primary_email": address}})
    erasure = api.delete(f"/ctms/{address}").headers["Erasure-Id"]
    options = () if kind == "backend" else ("--deletion-handler",)
    refused = run(cli, "backends", "forget", "unused", *options, "--yes", status=1)

    assert f"erasures wait for the {kind} unused" in refused.stderr
    if closed == "each":
        run(cli, "erasures", "close", erasure, "unused", *options, "--yes")
        run(cli, "backends", "forget", "unused", *options, "--yes")
    else:
        done = run_json(cli, "backends", "forget", "unused", *options, "--close-erasures", "--yes")
        assert done["closed"] == 1
    record = run_json(cli, "erasures", "show", erasure)
    (part,) = [one for one in record["backends" if kind == "backend" else "handlers"] if one["name"] == "unused"]
    assert (part["pending"], part["parked"], part["done"]) == (0, 0, 1)
    assert part["reason"].startswith("closed by ")


@pytest.mark.usefixtures("unused")
def test_what_an_erasure_waits_for_meanwhile_is_kept(api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may begin while the operator is asked, or the rows are deleted."""
    address = f"{uuid4()}@example.com"
    email_id = api.post("/ctms", {"email": {"primary_email": address}}).json["email"]["email_id"]
    answers = iter([False, True])
    check = known_receivers.check_not_awaited

    def begin_meanwhile(connection: Connection, kind: str, name: str) -> None:
        if next(answers):
            check(connection, kind, name)
        else:
            assert api.delete(f"/ctms/{address}").status_code == 200

    monkeypatch.setattr(known_receivers, "check_not_awaited", begin_meanwhile)
    with pool.acquire() as connection, pytest.raises(OperatorError, match="erasures wait for the backend unused"):
        known_receivers.forget(connection, "backend", "unused")

    assert [str(one) for (one,) in execute("SELECT email_id FROM outbox WHERE backend = 'unused'")] == [email_id]
    assert execute("SELECT count(*) FROM receivers WHERE kind = 'backend' AND name = 'unused'")[0][0] == 1
