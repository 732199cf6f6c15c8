"""The circuit breaker: a backend that fails is not called during a cool-down, and loses nothing; then one is tried."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest

from ctms.database import pool
from ctms.outbox.lanes import Lane
from ctms.plugins import SlowDown
from ctms.sync.backends import BackendWork
from ctms.sync.circuit_breaker import Breaker
from tests.sync.conftest import COOL_DOWN_FACTOR
from tests.sync.working import Other, Worker, parked, row, rows, time_passes, waiting

Make = Callable[[int], list[str]]

COOL_DOWN = "SELECT extract(epoch FROM open_until - clock_timestamp())::float8 FROM receivers"


def down(_: Any) -> None:
    raise ConnectionRefusedError


def is_open() -> bool:
    """True when the backend is not called now."""
    return bool(row("SELECT coalesce(open_until > clock_timestamp(), false) FROM receivers"))


@pytest.mark.parametrize("error", [ConnectionRefusedError, ValueError])
def test_a_backend_that_is_down_is_called_a_few_times_and_loses_nothing(
    other: Other, worker: Worker, make: Make, error: type[Exception]
) -> None:
    made = make(200)

    def fail(_: Any) -> None:
        raise error

    other.answer = fail

    worker.push(max_batch=10)

    assert len(other.calls) < 15
    assert is_open()
    assert waiting() == made
    assert row("SELECT max(failures) FROM outbox") <= 4

    calls = len(other.calls)
    worker.push(max_batch=10)
    assert len(other.calls) == calls


def test_after_a_cool_down_one_contact_is_tried_that_was_tried_least(other: Other, worker: Worker, make: Make) -> None:
    made = make(30)
    other.answer = down
    worker.push(max_batch=10)
    fresh = row("SELECT email_id::text FROM outbox WHERE attempts = 0 ORDER BY due_at LIMIT 1")
    other.calls.clear()

    rows("UPDATE receivers SET open_until = NULL")
    worker.push(max_batch=10)

    assert other.calls == [[fresh]]
    assert is_open()

    other.answer = lambda _: None
    time_passes()
    other.calls.clear()
    worker.push(max_batch=10)

    assert len(other.calls[0]) == 1
    assert len(other.calls[1]) == 10, "it works: full batches again"
    assert waiting() == []
    assert set(other.copies) == set(made)
    assert row("SELECT failures, open_until FROM receivers") == (0, None)


def test_the_last_error_has_a_time(worker: Worker, other: Other, make: Make) -> None:
    at = "SELECT last_error, clock_timestamp() - last_error_at < interval '1 minute' FROM receivers"
    make(1)
    other.answer = down
    worker.push()
    assert row(at) == ("raised ConnectionRefusedError", True)

    rows("UPDATE receivers SET last_error_at = now() - interval '1 day'")
    other.answer = lambda _: SlowDown(60)
    worker.push_later()
    assert row(at) == ("raised ConnectionRefusedError", False), "no error was given"

    other.answer = lambda _: SlowDown(60, "HTTP 429")
    worker.push_later()
    assert row(at) == ("HTTP 429", True)


def test_cool_downs_get_longer_up_to_five_minutes(other: Other, worker: Worker, make: Make) -> None:
    make(1)
    other.answer = down
    found = []
    for _ in range(30):
        worker.push_later(max_batch=1)
        if is_open():
            found.append(row(COOL_DOWN))

    assert found[0] / COOL_DOWN_FACTOR < 3
    assert found[3] > found[0] * 2
    assert 220 < found[-1] <= 375


def test_calls_that_were_under_way_do_not_make_the_cool_down_longer(other: Other, worker: Worker, make: Make) -> None:
    make(40)
    other.answer = down
    worker.push(max_batch=1)
    failures, until = row("SELECT failures, open_until FROM receivers")
    assert is_open()

    with pool.acquire() as connection:
        assert Breaker(Lane("backend", "other", 3), 1).record_failure(connection, "raised ConnectionRefusedError")

    assert row("SELECT failures, open_until FROM receivers") == (failures, until)


def test_a_poisonous_contact_during_an_outage_is_not_parked_and_parked_afterwards(
    other: Other, worker: Worker, make: Make
) -> None:
    made = make(12)
    poison = made[5]

    def fail(contacts: Any) -> None:
        raise ValueError if any(one.email_id == poison for one in contacts) else ConnectionRefusedError

    other.answer = fail
    for _ in range(15):
        worker.push_later(max_batch=4)
    assert parked() == {}
    assert waiting() == made

    def work(contacts: Any) -> None:
        if any(one.email_id == poison for one in contacts):
            raise ValueError

    other.answer = work
    for _ in range(8):
        worker.push_later(max_batch=4)

    assert parked() == {poison: "raised ValueError"}
    assert waiting() == []


def test_two_faulty_contacts_open_the_breaker_until_a_valid_one_is_pushed(
    other: Other, worker: Worker, make: Make
) -> None:
    bad = make(2)

    def work(contacts: Any) -> None:
        if any(one.email_id in bad for one in contacts):
            raise ValueError

    other.answer = work
    worker.push_later(10, max_batch=1)
    assert is_open()

    (good,) = make(1)
    worker.push_later(8, max_batch=1)

    assert good in other.copies
    assert set(parked()) == set(bad)


def test_a_success_of_another_lane_does_not_end_a_rate_limit(other: Other, worker: Worker, make: Make) -> None:
    make(1)
    rows(
        "INSERT INTO receivers (kind, name, failures, open_until)"
        " VALUES ('backend', 'other', 1, clock_timestamp() - interval '1 second')"
    )

    def slow_down(_: Any) -> None:  # meanwhile, in another lane
        rows("UPDATE receivers SET open_until = clock_timestamp() + interval '1 minute'")

    other.answer = slow_down
    worker.process.calls.call = lambda _, function, *__: function()  # type: ignore[method-assign]
    worker.push()

    assert is_open()


def test_a_paused_backend_is_not_called(other: Other, worker: Worker, make: Make) -> None:
    make(1)
    rows("INSERT INTO receivers (kind, name, failures, paused_at) VALUES ('backend', 'other', 0, now())")

    worker.push()
    assert other.calls == []

    rows("UPDATE receivers SET paused_at = NULL")
    worker.push()
    assert len(other.calls) == 1


class TestRate:
    def waits(self, worker: Worker) -> list[float]:
        """Replace the worker's waits; return their durations."""
        found: list[float] = []

        def wait(seconds: float) -> bool:
            found.append(seconds)
            rows("UPDATE receivers SET next_call_at = next_call_at - make_interval(secs => %s)", seconds)
            return False

        worker.stopping.wait = wait  # type: ignore[method-assign,assignment]
        return found

    def turns(self, worker: Worker) -> list[float]:
        """Replace the worker's waits; return when each of its calls was due, in seconds of one clock."""
        waits = self.waits(worker)
        wait = worker.stopping.wait
        found: list[float] = []

        def note(seconds: float) -> bool:
            # Each wait so far moved the database's times back by its length.
            found.append(row("SELECT extract(epoch FROM next_call_at)::float8 FROM receivers") + sum(waits))
            return wait(seconds)

        worker.stopping.wait = note  # type: ignore[method-assign,assignment]
        return found

    def test_calls_are_so_far_apart(self, other: Other, worker: Worker, make: Make) -> None:
        make(4)
        turns = self.turns(worker)

        worker.push(max_batch=1, rate=1)

        assert len(other.calls) == len(turns) == 4
        assert all(later - earlier > 0.99 for earlier, later in pairwise(turns))

    def test_a_call_is_not_later_than_the_rate_demands(self, other: Other, worker: Worker, make: Make) -> None:
        make(4)
        waits = self.waits(worker)

        worker.push(max_batch=1, rate=1)

        assert len(other.calls) == 4
        assert waits[0] == 0
        assert all(seconds <= 1 for seconds in waits)

    def test_the_rate_is_that_of_all_lanes_and_workers(self, other: Other, worker: Worker, make: Make) -> None:
        make(1)
        first = self.turns(worker)
        worker.push(rate=0.8)
        make(1)
        another = Worker()
        second = self.turns(another)

        another.push(rate=0.8)

        assert len(other.calls) == 2
        assert second[0] - first[0] > 1.24

    def test_a_distant_turn_blocks_no_thread(self, other: Other, worker: Worker, make: Make) -> None:
        make(2)
        waits = self.waits(worker)

        worker.push(max_batch=1, rate=0.01)

        assert len(other.calls) == 1
        assert waits == [0]
        assert len(waiting()) == 1
        assert 90 < row("SELECT extract(epoch FROM next_call_at - clock_timestamp())::float8 FROM receivers") <= 100

    def test_without_a_rate_nothing_waits(self, other: Other, worker: Worker, make: Make) -> None:
        make(3)
        waits = self.waits(worker)

        worker.push(max_batch=1)

        assert len(other.calls) == 3
        assert waits == []


def test_a_fault_of_ours_does_not_call_the_other_system_without_end(
    other: Other, worker: Worker, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(1)

    def fail(*_: Any) -> None:
        raise LookupError

    monkeypatch.setattr(BackendWork, "settle", fail)
    for _ in range(15):
        with suppress(LookupError):
            worker.push()

    assert len(other.calls) < 15
    assert row("SELECT last_error FROM receivers") == "the service failed with LookupError"
    assert is_open()
