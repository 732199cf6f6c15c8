"""Fixtures of the background service's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from flask import Flask

from ctms.sync import circuit_breaker, verdicts
from ctms.testing import ApiClient
from tests.sync.working import OTHER, PLUGIN, Other, Worker, rows

MIN_COOL_DOWN_SECONDS = circuit_breaker._MIN_COOL_DOWN_SECONDS
COOL_DOWN_FACTOR = 10


@pytest.fixture
def ctms_plugins() -> Iterable[object]:
    return ["default_waitlist", PLUGIN]


@pytest.fixture(autouse=True)
def long_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Delay what is retried, and close the breaker, for so long that nothing is due again during a slow test."""
    monkeypatch.setattr(verdicts, "back_off", lambda attempts: 3600.0 + attempts)
    monkeypatch.setattr(circuit_breaker, "_MIN_COOL_DOWN_SECONDS", COOL_DOWN_FACTOR * MIN_COOL_DOWN_SECONDS)


@pytest.fixture
def other(app: Flask) -> Iterator[Other]:  # noqa: ARG001  inside the app's transaction
    OTHER.reset()
    yield OTHER
    OTHER.reset()


@pytest.fixture
def worker(app: Flask) -> Worker:  # noqa: ARG001  inside the app's transaction
    return Worker()


@pytest.fixture
def make(app: Flask) -> Callable[[int], list[str]]:  # noqa: ARG001  inside the app's transaction
    """Make so many contacts, past the API, that wait for the backend; returns their ids, the oldest first."""

    def make_contacts(number: int) -> list[str]:
        found = rows(
            """
            WITH made AS (
                INSERT INTO emails (email_id, primary_email)
                SELECT gen_random_uuid(), md5(random()::text || n) || '@example.com' FROM generate_series(1, %s) AS n
                RETURNING email_id)
            INSERT INTO outbox
                (backend, email_id, version, priority, waiting_since, due_at, attempts, failures)
            SELECT 'other', email_id, 1, 0, now() + row_number() OVER () * interval '1 microsecond',
                now() + row_number() OVER () * interval '1 microsecond', 0, 0
            FROM made RETURNING email_id""",
            number,
        )
        return [str(one) for one in found]

    return make_contacts


@pytest.fixture
def edit(api: ApiClient) -> Callable[[str, str], Any]:
    """Change a contact's first name; return its document."""

    def change(email_id: str, name: str) -> Any:
        answer = api.patch(f"/ctms/{email_id}", {"email": {"first_name": name}})
        assert answer.status_code == 200, answer.text
        return answer.json

    return change
