"""An export, followed from its manifest by `/updates?deleted=true`, becomes what the database has."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.clients.tokens import tokens
from ctms.database.pool import Connection, libpq_url
from ctms.export.run import run_export
from ctms.export.snapshot import Snapshot
from ctms.export.targets import PartsTarget
from ctms.settings import Settings
from ctms.testing.clients import create_client
from ctms.testing.http import ApiClient
from tests.contacts.factories import full, minimal
from tests.export.conftest import by_id, documents, fill, lines, options
from tests.history.mirror import Mirror

WRITERS = 4
WRITES = 20
"""Writes before the first export, and between two."""


@pytest.fixture
def api(app: Flask, connection: Connection) -> Iterator[ApiClient]:
    """A client of the app, whose changes are committed."""
    client_id = create_client("id_export", roles=["admin"])
    yield ApiClient(app.test_client(), tokens().issue(client_id))
    connection.execute("DELETE FROM api_client WHERE client_id = %s", (client_id,))


def follower(api: ApiClient, folder: Path) -> Mirror:
    """Return a follower that begins with an export."""

    def get(path: str, query: Mapping[str, Any] | None) -> Any:
        answer = api.get(path, query_string=query)
        assert answer.status_code == 200, answer.text
        return answer.json

    manifest = json.loads((folder / "manifest.json").read_text())
    return Mirror(get, manifest["updates"]["start"], limit=50, copies=by_id(lines(folder)))


def export(folder: Path) -> None:
    chosen = options(compression="zstd")
    run_export(chosen, PartsTarget(folder, chosen.format, 50))


def write_randomly(app: Flask, number: int, ids: list[str], stopping: threading.Event, writes: list[int]) -> None:
    """Create, change and delete contacts until `stopping` is set; count in `writes`."""
    with app.app_context():
        token = tokens().issue("id_export")
    chance = random.Random(number)  # noqa: S311
    api = ApiClient(app.test_client(), token)
    mine = list(ids)
    while not stopping.is_set():
        writes[number] += 1
        match chance.randrange(4):
            case 0:
                mine.append(api.post("/ctms", full()).json["email"]["email_id"])
            case 1 if mine:
                api.patch(f"/ctms/{chance.choice(mine)}", {"newsletters": [{"name": f"n{chance.randrange(9)}"}]})
            case 2 if mine:
                api.patch(f"/ctms/{chance.choice(mine)}", {"email": {"first_name": str(chance.random())}})
            case 3 if mine:
                gone = mine.pop(chance.randrange(len(mine)))
                found = api.get(f"/ctms/{gone}").json
                api.delete(f"/ctms/{found['email']['primary_email']}")


def wait_for(writes: list[int], number: int) -> None:
    """Wait until there were this many writes."""
    give_up = time.monotonic() + 60
    while sum(writes) < number:
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_during_random_writes(app: Flask, api: ApiClient, connection: Connection, tmp_path: Path) -> None:
    fill(connection)
    known = sorted(documents(connection))
    stopping = threading.Event()
    writes = [0] * WRITERS
    writers = [
        threading.Thread(target=write_randomly, args=(app, number, known[number::WRITERS], stopping, writes))
        for number in range(WRITERS)
    ]
    for one in writers:
        one.start()
    try:
        for number in range(3):
            wait_for(writes, (number + 1) * WRITES)
            export(tmp_path / str(number))
        wait_for(writes, sum(writes) + WRITES)
    finally:
        stopping.set()
        for one in writers:
            one.join()

    expected = documents(connection)
    for number in range(3):
        mirror = follower(api, tmp_path / str(number))
        assert mirror.copies != expected
        mirror.walk()
        assert mirror.copies == expected


@pytest.mark.parametrize("deletes", [False, True], ids=["changed", "deleted"])
def test_a_change_that_commits_after_the_snapshot(
    api: ApiClient, connection: Connection, export_settings: Settings, tmp_path: Path, deletes: bool
) -> None:
    contact = api.post("/ctms", minimal(first_name="Before")).json
    email_id = contact["email"]["email_id"]

    with psycopg.connect(libpq_url(str(export_settings.db_url))) as slow:
        # Its time is earlier than the snapshot, which does not have it.
        if deletes:
            slow.execute("DELETE FROM emails WHERE email_id = %s", (email_id,))
        else:
            slow.execute(
                "UPDATE emails SET first_name = 'After', update_timestamp = now() WHERE email_id = %s", (email_id,)
            )
        export(tmp_path / "out")
        slow.commit()

    mirror = follower(api, tmp_path / "out")
    assert mirror.copies[email_id]["email"]["first_name"] == "Before"
    mirror.walk()
    assert mirror.copies == documents(connection)
    assert (email_id in mirror.copies) is not deletes


@pytest.mark.usefixtures("app")
def test_all_connections_see_one_snapshot(
    connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(connection)
    before = documents(connection)
    begin = Snapshot.begin

    def begin_later(self: Snapshot) -> Connection:
        # Between the first connection and the others, and before each copies anything.
        connection.execute("DELETE FROM emails WHERE email_id IN (SELECT email_id FROM emails LIMIT 20)")
        connection.execute("INSERT INTO emails (primary_email) VALUES (gen_random_uuid()::text)")
        return begin(self)

    monkeypatch.setattr(Snapshot, "begin", begin_later)

    export(tmp_path / "out")

    assert by_id(lines(tmp_path / "out")) == before
