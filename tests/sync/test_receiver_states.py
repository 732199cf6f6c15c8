"""The states of backends and deletion handlers, their report in `/__heartbeat__`, and when one counts as failing."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from ctms.database import pool
from ctms.outbox.lanes import BACKEND, Lane
from ctms.settings import Settings
from ctms.sync import receiver_states
from ctms.sync.circuit_breaker import Breaker, BreakerState
from ctms.sync.receiver_states import State
from ctms.telemetry import health
from tests.http import ApiClient
from tests.sync.receiving import ctms_plugins, execute, park

__all__ = ["ctms_plugins"]


@pytest.fixture
def heartbeat(anonymous: ApiClient, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Return the heartbeat's problems of the receivers, within the test's transaction."""
    monkeypatch.setattr(health, "quick_connection", pool.acquire)
    monkeypatch.setattr(Settings, "has_erasure_key", True)

    def ask() -> Any:
        answer = anonymous.get("/__heartbeat__")
        assert answer.status_code == 200
        problem = answer.json["details"].get("receivers", {"status": "ok", "message": None})
        assert answer.json["checks"]["receivers"] == problem["status"] == answer.json["status"]
        return problem["message"]

    return ask


def set_state(state: str, kind: str = "backend") -> None:
    """Have `mail` in a state."""
    execute(f"INSERT INTO receivers (kind, name, failures) VALUES ('{kind}', 'mail', 0)")
    execute(f"UPDATE receivers SET {state}")


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("paused_at = now(), paused_why = 'a secret', failures = 9", "backend mail is paused"),
        ("failures = 7", "backend mail failed 7 times in a row"),
        ("failures = 7, open_until = now() + interval '1 hour'", "backend mail failed 7 times in a row"),
        ("failures = 6", None),
        ("open_until = clock_timestamp() + interval '30 seconds'", None),  # as rate limits ask for, now and then
        ("open_until = '2999-01-01'", "backend mail rests until 2999-01-01 00:00:00 UTC"),
        ("name = 'gone', paused_at = now()", None),
    ],
)
def test_the_heartbeat_warns(heartbeat: Callable[[], Any], state: str, said: str | None) -> None:
    assert heartbeat() is None
    set_state(state)

    assert heartbeat() == said


def test_the_heartbeat_warns_of_a_deletion_handler(heartbeat: Callable[[], Any]) -> None:
    set_state("paused_at = now()", kind="deletion_handler")

    assert heartbeat() == "deletion handler mail is paused"


@pytest.mark.usefixtures("app")
def test_the_heartbeat_warns_of_parked_contacts(
    heartbeat: Callable[[], Any], make_contact: Callable[..., dict[str, Any]]
) -> None:
    email_id = make_contact()["email"]["email_id"]
    assert heartbeat() is None
    park(email_id, "full")
    park(email_id, "full", backend="club")
    set_state("paused_at = now()")
    _park_an_erasure()

    assert heartbeat() == (
        "backend club has parked contacts; backend mail is paused and has parked contacts;"
        " deletion handler mail has parked contacts"
    )


def test_the_heartbeat_warns_without_a_worker(
    heartbeat: Callable[[], Any], make_contact: Callable[..., dict[str, Any]]
) -> None:
    make_contact()
    execute("DELETE FROM procrastinate_workers")
    execute("DELETE FROM outbox WHERE backend <> 'mail'")
    assert heartbeat() is None  # it has just begun to wait

    execute("UPDATE outbox SET waiting_since = clock_timestamp() - interval '6 minutes'")
    assert heartbeat() == "backend mail is not served, since no background service runs"

    execute("INSERT INTO procrastinate_workers DEFAULT VALUES")
    assert heartbeat() is None


def test_the_heartbeat_warns_of_erasures_that_wait_for_a_backend_that_is_not_installed(
    heartbeat: Callable[[], Any], api: ApiClient, make_contact: Callable[..., dict[str, Any]]
) -> None:
    for _ in range(2):
        api.delete(f"/ctms/{make_contact()['email']['primary_email']}")
    assert heartbeat() is None
    for old, new in (("blind", "old"), ("club", "older")):
        execute(
            "INSERT INTO erasure_backends SELECT erasure_id, %(n)s, 1, 0, 0, NULL, now(), now() FROM erasure_backends"
            " WHERE backend = %(o)s",
            n=new,
            o=old,
        )
    execute("UPDATE erasure_backends SET pending = 0, done = 1 WHERE backend = 'older'")

    assert heartbeat() == "erasures wait for backend old, which is not installed"

    _park_an_erasure("old0")
    _park_an_erasure("old1")
    execute("UPDATE erasure_tasks SET parked_at = NULL WHERE handler = 'old1'")
    assert heartbeat() == "; ".join(
        f"erasures wait for {one}, which is not installed"
        for one in ("backend old", "deletion handler old0", "deletion handler old1")
    )


def test_the_heartbeat_is_not_down_when_it_cannot_tell(
    heartbeat: Callable[[], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_connection: object) -> list[str]:
        raise psycopg.errors.QueryCanceled

    monkeypatch.setattr(receiver_states, "problems_of_receivers", fail)

    assert heartbeat() == "how backends and deletion handlers are doing cannot be read"


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize("max_batch", [1, 2, 100, 10_000])
@pytest.mark.parametrize("alone", [1, 5, 9])
def test_one_counts_as_failing_when_its_breaker_opens(
    max_batch: int, alone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threshold is in one place, and follows how often a contact may fail before it is parked."""
    monkeypatch.setattr(receiver_states, "MAX_FAILURES_ALONE", alone)
    breaker = Breaker(Lane(BACKEND, "mail", 0), max_batch)

    with pool.acquire() as connection:
        assert breaker.state(connection) == BreakerState(is_open=False, is_half_open=False)
        calls = next(number for number in range(1, 100) if breaker.record_failure(connection, "raised OSError"))
        assert breaker.state(connection) == BreakerState(is_open=True, is_half_open=False)
        connection.execute("UPDATE receivers SET open_until = NULL")
        assert breaker.state(connection) == BreakerState(is_open=False, is_half_open=True)
        breaker.record_success(connection)
        assert breaker.state(connection) == BreakerState(is_open=False, is_half_open=False)
        breaker.pause(connection, None)
        assert breaker.state(connection).is_open

    failing = [number for number in range(100) if State(BACKEND, "mail", max_batch, failures=number).state == "failing"]
    assert failing[0] == calls == max_batch.bit_length() + alone


class TestWithoutReceivers:
    @pytest.fixture
    def ctms_plugins(self) -> list[object]:
        return ["default_waitlist"]

    def test_there_is_no_check_unless_erasures_wait(self, api: ApiClient, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(health, "quick_connection", pool.acquire)
        assert "receivers" not in api.get("/__heartbeat__").json["checks"]

        _park_an_erasure()

        answer = api.get("/__heartbeat__").json
        assert answer["checks"]["receivers"] == "warning"
        message = answer["details"]["receivers"]["message"]
        assert message == "erasures wait for deletion handler mail, which is not installed"


def _park_an_erasure(handler: str = "mail") -> None:
    execute(
        "INSERT INTO erasures (id, requested_at, requested_by, origin, forget, contacts, unknown)"
        " VALUES (%(e)s, now(), 'x', 'api', false, 1, 0)",
        e=(erasure := uuid.uuid4()),
    )
    execute(
        "INSERT INTO erasure_handlers (erasure_id, handler, pending, done, verified, parked, started_at, changed_at)"
        " VALUES (%(e)s, %(h)s, 0, 0, 0, 1, now(), now())",
        e=erasure,
        h=handler,
    )
    execute(
        "INSERT INTO erasure_tasks"
        " (erasure_id, handler, identities, step, waiting_since, due_at, attempts, failures, parked_at)"
        " VALUES (%(e)s, %(h)s, '{}', 'erase', now(), now(), 1, 1, now())",
        e=erasure,
        h=handler,
    )
