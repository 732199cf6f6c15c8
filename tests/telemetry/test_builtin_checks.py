"""The built-in health checks: a database that hangs, is unavailable, or has another schema."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from ctms.app import create_app
from ctms.database import engine, migrations
from ctms.settings import Settings
from ctms.telemetry import health
from tests.conftest import LIMIT_OF_CHECKS, PATIENCE_OF_CHECKS, empty_database
from tests.counted import count_connections
from tests.http import Answer, ApiClient

ERASURE_KEY = "k" * 32
UNREACHABLE = {
    "database": {"status": "error", "message": f"the database does not answer within {PATIENCE_OF_CHECKS} s"},
    "migrations": {"status": "error", "message": "the schema's revision cannot be read"},
}


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A server that accepts connections and never answers, and the limit that operators have."""
    for module in (engine, health):
        monkeypatch.setattr(module, "CHECK_TIMEOUT_IN_SECONDS", LIMIT_OF_CHECKS)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def ask(settings: Settings, path: str, **changes: Any) -> Answer:
    changes = {"erasure_key": ERASURE_KEY, **changes}
    return Answer(create_app(replace(settings, **changes), []).test_client().get(path))


def url(server: socket.socket) -> str:
    return f"postgresql+psycopg://nobody@127.0.0.1:{server.getsockname()[1]}/nothing"


def test_a_hanging_database_times_out_after_two_seconds(settings: Settings, silent: socket.socket) -> None:
    client = create_app(replace(settings, erasure_key=ERASURE_KEY, db_url=url(silent)), []).test_client()
    before = time.monotonic()
    answer = Answer(client.get("/__heartbeat__"))

    assert 1.9 < time.monotonic() - before < 60  # on a busy machine, too
    assert answer.status_code == 500
    assert answer.json["status"] == "error"
    assert answer.json["checks"] == {"database": "error", "migrations": "error"}
    assert answer.json["details"]["database"]["message"] == "the database does not answer within 2 s"


def test_a_hanging_check_is_not_restarted(
    settings: Settings, silent: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = count_connections(monkeypatch, health, "quick_connection")
    client = create_app(replace(settings, db_url=url(silent)), []).test_client()
    monkeypatch.setattr(health, "CHECK_TIMEOUT_IN_SECONDS", 0.01)

    assert [client.get("/__heartbeat__").status_code for _ in range(10)] == [500] * 10
    assert len(asked) == 1


@pytest.mark.parametrize("path", ["/__lbheartbeat__", "/__version__"])
def test_other_endpoints_do_not_connect(settings: Settings, silent: socket.socket, path: str) -> None:
    answer = ask(settings, path, db_url=url(silent))

    assert answer.status_code == 200
    with pytest.raises(BlockingIOError):  # no connection
        silent.accept()


def test_an_unavailable_database(settings: Settings) -> None:
    answer = ask(settings, "/__heartbeat__", db_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing")

    assert answer.status_code == 500
    assert answer.json["details"] == UNREACHABLE


def test_a_database_without_a_schema(settings: Settings, postgres: str, worker_id: str) -> None:
    answer = ask(settings, "/__heartbeat__", db_url=empty_database(postgres, f"bare_{worker_id}"))

    assert answer.status_code == 500
    assert answer.json["checks"] == {"database": "ok", "migrations": "error"}
    assert answer.json["details"] == {"migrations": UNREACHABLE["migrations"]}


def test_a_schema_of_another_version(settings: Settings, postgres: str, worker_id: str) -> None:
    """An older schema is an error, and so is a newer one that is not known to be compatible."""
    url = empty_database(postgres, f"revised_{worker_id}")
    app = create_app(replace(settings, db_url=url, erasure_key=ERASURE_KEY), [])
    client = ApiClient(app.test_client(), None)
    with app.app_context():
        migrations.upgrade()
        current = client.get("/__heartbeat__").json
        with engine.quick_connection() as connection:
            connection.execute("UPDATE alembic_version SET version_num = '2b00e4069aea'")
            older = client.get("/__heartbeat__")
            connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
            newer = client.get("/__heartbeat__")
            connection.execute("DELETE FROM alembic_version")
            none = client.get("/__heartbeat__")
    engine.release_database(app)

    assert current == {"status": "ok", "checks": {"database": "ok", "migrations": "ok"}, "details": {}}
    assert older.status_code == newer.status_code == none.status_code == 500
    assert "flask db upgrade" in older.json["details"]["migrations"]["message"]
    assert "flask db upgrade" in none.json["details"]["migrations"]["message"]
    assert "start the newer version" in newer.json["details"]["migrations"]["message"]


def test_a_missing_erasure_key_is_a_warning(settings: Settings, migrated_app: Flask) -> None:
    answer = ask(settings, "/__heartbeat__", erasure_key=None, db_url=engine.database_url(migrated_app)())

    assert answer.status_code == 200
    assert answer.json["status"] == "warning"
    assert answer.json["checks"] == {"database": "ok", "migrations": "ok", "erasure_key": "warning"}
    assert answer.json["details"]["erasure_key"]["message"].startswith("CTMS_ERASURE_KEY is not set: ")
