"""The summary that `flask ctms worker --once` prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ctms.plugins import Accepted, Done, Refused, SlowDown, TryLater
from ctms.worker.summary import Summary
from tests.sync.working import Other, Worker

Make = Callable[[int], list[str]]


@pytest.fixture
def summary(worker: Worker) -> Summary:
    """The summary of the worker."""
    worker.process.summary = Summary()
    return worker.process.summary


def test_nothing_was_done(worker: Worker, summary: Summary) -> None:
    worker.push()

    assert list(summary.lines()) == []
    assert summary.failed == 0


def test_contacts_are_counted_by_verdict(other: Other, worker: Worker, make: Make, summary: Summary) -> None:
    late, refused, *_ = make(5)
    other.answer = lambda contacts: {
        one.email_id: {late: TryLater(60), refused: Refused("no")}.get(one.email_id, Done()) for one in contacts
    }
    worker.push()
    assert list(summary.lines()) == [
        "backend other: 3 contacts delivered, 1 contact to be tried again, 1 contact parked"
    ]
    assert summary.failed == 2

    other.answer = lambda _: None
    worker.push_later()

    assert list(summary.lines()) == ["backend other: 4 contacts delivered, 1 contact parked"]
    assert summary.failed == 1


def test_a_repeatedly_failing_contact_is_counted_once(
    other: Other, worker: Worker, make: Make, summary: Summary
) -> None:
    make(1)
    other.answer = lambda _: TryLater(1)

    worker.push_later(3)

    assert list(summary.lines()) == ["backend other: 1 contact to be tried again"]


def test_unwanted_contacts_are_skipped(worker: Worker, make: Make, summary: Summary) -> None:
    make(2)

    worker.push(newsletters=["club"])

    assert list(summary.lines()) == ["backend other: 2 contacts skipped"]


def test_erasures_are_counted_by_step(
    other: Other, worker: Worker, summary: Summary, api: Any, make_contact: Callable[..., Any]
) -> None:
    for _ in range(2):
        api.delete(f"/ctms/{make_contact()['email']['primary_email']}")
    other.answer = lambda _: Accepted(60)
    worker.erase()
    assert list(summary.lines()) == ["deletion handler other: 2 contacts accepted"]
    assert summary.failed == 0

    other.verify_answer = lambda identities: Done() if len(identities) == 1 else TryLater(60)
    worker.erase_later(max_batch=1)
    assert list(summary.lines()) == ["deletion handler other: 2 contacts verified"]


@pytest.fixture
def erased(api: Any, make_contact: Callable[..., Any]) -> None:
    """Erase a contact."""
    api.delete(f"/ctms/{make_contact()['email']['primary_email']}")


@pytest.mark.usefixtures("erased")
def test_erasures_are_listed_before_verifications(worker: Worker, summary: Summary, other: Other) -> None:
    other.verify_answer = lambda _: TryLater(60)

    worker.erase()

    assert list(summary.lines()) == ["deletion handler other: 1 contact erased, 1 contact still to be verified"]
    assert summary.failed == 0


@pytest.mark.parametrize("outcome", [TryLater(reason="HTTP 500"), SlowDown(60), TimeoutError()], ids=repr)
@pytest.mark.usefixtures("erased")
def test_a_verification_that_fails_is_to_be_tried_again(
    worker: Worker, summary: Summary, other: Other, outcome: object
) -> None:
    def answer(_: object) -> object:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    other.verify_answer = answer

    worker.erase()

    assert list(summary.lines()) == ["deletion handler other: 1 contact erased, 1 contact to be tried again"]
    assert summary.failed == 1
