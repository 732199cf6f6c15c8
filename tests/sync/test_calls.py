"""A call that takes too long times out, and the lane is blocked until it has ended."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Any

import pytest

from ctms.outbox.lanes import BACKEND, Lane
from ctms.sync.calls import Calls
from tests.sync.working import Other, Worker, row, rows, time_passes, waiting

LANE = Lane(BACKEND, "other", 0)
SOON = 0.05


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread."""
    for _ in range(2000):
        if condition():
            return
        Event().wait(0.005)
    raise AssertionError("it does not come")


def test_an_answer_and_an_error_come_through() -> None:
    def fail() -> None:
        raise ValueError("x")

    assert Calls().call(LANE, lambda: 3, 60) == 3
    with pytest.raises(ValueError, match="x"):
        Calls().call(LANE, fail, 60)


def test_a_time_out_of_the_plugins_own_is_its_error() -> None:
    def fail() -> None:
        raise TimeoutError("mine")

    calls = Calls()
    with pytest.raises(TimeoutError, match="mine"):
        calls.call(LANE, fail, 60)
    assert not calls.is_stuck(LANE)


def test_a_lane_is_stuck_until_the_call_has_ended_and_that_was_told() -> None:
    calls, release, told = Calls(), Event(), Event()

    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        calls.call(LANE, release.wait, SOON, told.set)

    assert calls.is_stuck(LANE)
    assert not calls.is_stuck(LANE._replace(number=1))
    assert not told.is_set()

    release.set()
    until(lambda: not calls.is_stuck(LANE))
    assert told.is_set()


def test_a_call_that_is_given_up_is_tried_later(other: Other, worker: Worker, make: Callable[[int], list[str]]) -> None:
    made = make(3)
    release = Event()
    other.answer = lambda _: release.wait() and None

    worker.push(timeout=0.1)

    assert waiting() == made
    assert rows("SELECT attempts, failures, reason FROM outbox") == [(1, 0, "raised TimeoutError")] * 3
    assert row("SELECT failures FROM receivers") == 1
    assert worker.count("ctms_background_requests_total", method="push", status="timeout") == 1

    worker.push_later(timeout=0.1)
    assert len(other.calls) == 1, "no second call while the first still runs"

    before: Any = rows("SELECT version FROM outbox")
    release.set()
    until(lambda: not worker.process.calls.is_stuck(LANE))
    assert all(after > version for after, version in zip(rows("SELECT version FROM outbox"), before, strict=True)), (
        "who else pushes them now does not have the last word"
    )
    worker.push_later()
    assert len(other.calls) == 2
    assert waiting() == []


def test_contacts_pushed_by_others_in_the_meantime_are_pushed_again(
    other: Other, worker: Worker, make: Callable[[int], list[str]]
) -> None:
    made = make(2)
    release = Event()
    other.answer = lambda _: release.wait() and None
    worker.push(timeout=0.1)
    another = Worker()
    other.answer = lambda _: None
    time_passes()
    another.push()
    assert waiting() == []

    release.set()
    until(lambda: not worker.process.calls.is_stuck(LANE))

    assert set(waiting()) == set(made)
    assert rows("SELECT attempts, failures, reason FROM outbox") == [(0, 0, None)] * 2
    assert row("SELECT DISTINCT due_at <= clock_timestamp() FROM outbox")
