"""Contacts wait once for a backend, however often they change: since the oldest change, with the highest priority."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID, uuid4

import pytest
from flask import Flask

from ctms.database import pool
from ctms.hooks.manager import app_plugins
from ctms.outbox.changes import LIVE, RESYNC, Outbox, outbox
from tests.sync.working import row, rows

Changed = Callable[..., None]

WAITING = "SELECT version, priority, waiting_since, due_at, attempts, failures, parked_at, reason FROM outbox"
TRIED = "UPDATE outbox SET attempts = 3, failures = 2, reason = 'busy', due_at = clock_timestamp() + interval '1 hour'"


@pytest.fixture
def email_id() -> UUID:
    return uuid4()


@pytest.fixture
def changed(app: Flask) -> Changed:  # noqa: ARG001  inside the app's transaction
    def change(*email_ids: UUID, **how: Any) -> None:
        with pool.writing() as connection:
            outbox().changed(connection, email_ids, **how)

    return change


def test_a_contact_waits_once(changed: Changed, email_id: UUID) -> None:
    changed(email_id)
    version, *_, since, due, _, _, _, _ = row(WAITING)

    changed(email_id)

    again = row(WAITING)
    assert again[0] > version
    assert again[2:4] == (since, due), "a contact that is edited again keeps its place"


def test_an_edit_makes_a_delayed_contact_due(changed: Changed, email_id: UUID) -> None:
    changed(email_id)
    since = row("SELECT waiting_since FROM outbox")
    rows(TRIED)

    changed(email_id)

    assert row("SELECT due_at <= clock_timestamp() FROM outbox")
    assert row("SELECT waiting_since, attempts, failures, reason FROM outbox") == (since, 0, 0, None)


def test_an_edited_parked_contact_is_pending_since_now(changed: Changed, email_id: UUID) -> None:
    changed(email_id)
    since = row("SELECT waiting_since FROM outbox")
    rows("UPDATE outbox SET parked_at = clock_timestamp(), reason = 'refused', attempts = 5, failures = 5")

    changed(email_id)

    found = row(
        "SELECT parked_at, reason, attempts, failures, waiting_since > %s, due_at > %s FROM outbox", since, since
    )
    assert found == (None, None, 0, 0, True, True)


@pytest.mark.parametrize(
    ("first", "second", "stays"), [(LIVE, RESYNC, LIVE), (RESYNC, LIVE, LIVE), (RESYNC, RESYNC, RESYNC)]
)
def test_an_edit_raises_the_priority(changed: Changed, email_id: UUID, first: int, second: int, stays: int) -> None:
    changed(email_id, priority=first)
    changed(email_id, priority=second)

    assert row("SELECT priority FROM outbox") == stays


def test_a_recreated_contact_has_another_version(changed: Changed, email_id: UUID) -> None:
    changed(email_id)
    before = row("SELECT version FROM outbox")
    rows("DELETE FROM outbox")

    changed(email_id)

    assert row("SELECT version FROM outbox") > before


def test_a_change_is_for_the_backends_that_are_named(changed: Changed, email_id: UUID) -> None:
    changed(email_id, backends=[])

    assert rows(WAITING) == []


def test_many_contacts_change_at_once(changed: Changed) -> None:
    changed(*(uuid4() for _ in range(500)))

    assert row("SELECT count(*) FROM outbox") == 500


class TestWithoutABackend:
    @pytest.fixture
    def ctms_plugins(self) -> Iterable[object]:
        return ["default_waitlist"]

    def test_a_change_costs_no_statement(self, app: Flask) -> None:
        class Untouched:
            """A connection that must not be used."""

        assert list(app_plugins().collect("ctms_backends")) == []
        outbox().changed(Untouched(), [uuid4()])  # type: ignore[arg-type]


def test_no_contact_costs_no_statement(app: Flask) -> None:
    assert isinstance(app.extensions["ctms.outbox"], Outbox)
    outbox().changed(object(), [])  # type: ignore[arg-type]
