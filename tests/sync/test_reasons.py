"""The reason why a deletion handler has not finished an erasure: it is cleared when the handler is done."""

from __future__ import annotations

from typing import Any

import pytest

from ctms.plugins import Done, Refused, TryLater
from tests.sync.test_erasure_tasks import ONLY_ERASES, Delete, counted_always, delete
from tests.sync.working import Other, Worker, row, rows

__all__ = ["counted_always", "delete"]


@pytest.mark.parametrize("options", [{}, {"verify_after": 60}, ONLY_ERASES], ids=["verifies", "later", "only erases"])
def test_the_reason_is_cleared_when_the_handler_is_done(
    other: Other, worker: Worker, delete: Delete, options: dict[str, Any]
) -> None:
    first, second = delete(2)
    other.answer = lambda _: {first: TryLater(60, "busy"), second: Refused("no")}
    worker.erase(**options)
    assert rows("SELECT DISTINCT reason IS NULL FROM erasure_handlers") == [False]

    other.answer = lambda identities: Done() if identities[0]["email_id"] == first else Refused("no")
    worker.erase_later(**options)
    reasons = dict(rows("SELECT parked, reason FROM erasure_handlers"))
    assert reasons == {0: None, 1: "no"}, "the other erasure still has a reason"

    rows("UPDATE erasure_tasks SET parked_at = NULL WHERE parked_at IS NOT NULL")
    rows("UPDATE erasure_handlers SET pending = parked, parked = 0")
    other.answer = lambda _: Done()
    worker.erase_later(**options)

    assert rows("SELECT DISTINCT reason FROM erasure_handlers") == [None]
    assert rows("SELECT reason FROM erasure_tasks WHERE reason IS NOT NULL") == []


def test_a_reason_why_it_is_not_verified_stays_until_it_is(other: Other, worker: Worker, delete: Delete) -> None:
    delete(1)
    other.verify_answer = lambda _: TryLater(60, "still there")
    worker.erase()
    assert rows("SELECT reason FROM erasure_handlers") == ["still there"]

    other.verify_answer = lambda _: Done()
    worker.erase_later()

    assert rows("SELECT verified, reason FROM erasure_handlers") == [(1, None)]


def test_a_reason_is_cleared_with_the_last_verification(other: Other, worker: Worker, delete: Delete) -> None:
    delete(1)
    other.verify_answer = lambda _: TryLater(60, "still there")
    worker.erase()

    worker.erase_later(**ONLY_ERASES)

    assert rows("SELECT done, reason FROM erasure_handlers") == [(1, None)]


def test_a_verification_that_fails_is_the_last_error_and_opens_the_breaker(
    other: Other, worker: Worker, delete: Delete
) -> None:
    delete(1)
    other.verify_answer = lambda _: TryLater(reason="HTTP 500")
    worker.erase()
    assert rows("SELECT kind, failures, last_error FROM receivers") == [("deletion_handler", 1, "HTTP 500")]

    worker.erase_later(30)

    assert row("SELECT open_until IS NOT NULL FROM receivers")
    assert row("SELECT done FROM erasure_handlers") == 1
    other.verify_answer = lambda _: None
    rows("UPDATE receivers SET open_until = NULL")
    worker.erase_later()
    assert row("SELECT verified FROM erasure_handlers") == 1
