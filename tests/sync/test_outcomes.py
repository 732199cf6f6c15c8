"""Verdicts for contacts after a backend's outcomes and exceptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import ANY

import pytest
import requests

from ctms.plugins import Accepted, Done, Pause, Refused, SlowDown, TryLater
from ctms.sync import verdicts
from ctms.sync.verdicts import back_off
from tests.sync.working import Other, Worker, parked, row, rows, time_passes, waiting

Make = Callable[[int], list[str]]

STATE = "SELECT attempts, failures, extract(epoch FROM due_at - clock_timestamp())::float8, reason FROM outbox"
RECEIVER = "SELECT failures, open_until, paused_why, last_error FROM receivers WHERE name = 'other'"


@pytest.mark.parametrize("answer", [None, Done(), {}.fromkeys("x")], ids=["none", "done", "one"])
def test_done(other: Other, worker: Worker, make: Make, answer: Any) -> None:
    made = make(3)
    other.answer = lambda contacts: dict.fromkeys([c.email_id for c in contacts]) if answer == {"x": None} else answer

    worker.push()

    assert other.calls == [made]
    assert waiting() == []
    assert worker.count("ctms_background_sync_total", status="done") == 3
    assert worker.count("ctms_background_requests_total", method="push", status="done") == 1


@pytest.mark.parametrize("attempts", [0, 1, 4, 11, 12, 50])
def test_the_wait_is_longer_each_time(attempts: int) -> None:
    wait = min(3600, 2**attempts)

    found = [back_off(attempts) for _ in range(100)]

    assert 0.75 * wait <= min(found) < max(found) <= 1.25 * wait


@pytest.mark.parametrize("attempts", [0, 50])
def test_try_later_waits(other: Other, worker: Worker, make: Make, attempts: int) -> None:
    make(1)
    rows("UPDATE outbox SET attempts = %s", attempts)
    other.answer = lambda _: TryLater(reason="busy")

    worker.push()

    tried, failures, seconds, reason = row(STATE)
    assert (tried, failures, reason) == (attempts + 1, 0, "busy")
    assert seconds == pytest.approx(verdicts.back_off(attempts), abs=5)
    assert worker.count("ctms_background_sync_total", status="retried") == 1


def test_try_later_respects_the_delay(other: Other, worker: Worker, make: Make) -> None:
    make(1)
    other.answer = lambda _: TryLater(after=90)

    worker.push()

    assert row(STATE) == (1, 0, pytest.approx(90, abs=5), None)


@pytest.mark.parametrize("after", [0, -5, float("inf")])
def test_a_time_that_cannot_be_kept_to_is_the_nearest_one_that_can(
    other: Other, worker: Worker, make: Make, after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shortest = 100 * verdicts._SHORTEST_ASKED_IN_SECONDS  # one second is too short for a slow test
    monkeypatch.setattr(verdicts, "_SHORTEST_ASKED_IN_SECONDS", shortest)
    make(1)
    other.answer = lambda _: TryLater(after=after)

    worker.push()

    assert len(other.calls) == 1, "it is not called without a break"
    assert row(STATE)[2] == pytest.approx(30 * 86400 if after > 0 else 100, abs=5)


def test_try_later_never_parks(other: Other, worker: Worker, make: Make) -> None:
    make(1)
    other.answer = lambda _: TryLater()

    worker.push_later(20)

    assert parked() == {}
    assert row("SELECT attempts FROM outbox") == 20


def test_slow_down_rests_the_backend_and_keeps_the_work(other: Other, worker: Worker, make: Make) -> None:
    made = make(3)
    other.answer = lambda _: SlowDown(40, "limit")

    worker.push(max_batch=1)
    worker.push(max_batch=1)

    assert other.calls == [made[:1]]
    assert waiting() == made
    assert row("SELECT max(attempts) FROM outbox") == 0, "it is not the contact's fault"
    rest = row("SELECT extract(epoch FROM open_until - clock_timestamp())::float8 FROM receivers")
    assert rest == pytest.approx(40, abs=5)

    other.answer = lambda _: None
    worker.push_later()

    assert waiting() == []


def test_slow_down_of_one_contact_is_for_all_and_the_others_are_done(other: Other, worker: Worker, make: Make) -> None:
    made = make(3)
    other.answer = lambda _: {made[0]: Done(), made[1]: SlowDown(40), made[2]: Done()}

    worker.push()

    assert waiting() == [made[1]]
    assert worker.count("ctms_background_requests_total", method="push", status="mixed") == 1


def test_pause_pauses_and_keeps_the_work(other: Other, worker: Worker, make: Make) -> None:
    made = make(3)
    other.answer = lambda _: Pause("gone jane@example.com")

    worker.push(max_batch=2)
    worker.push_later()

    assert len(other.calls) == 1
    assert waiting() == made
    assert row(RECEIVER)[2] == "gone …"


def test_refused_parks(other: Other, worker: Worker, make: Make) -> None:
    (email_id,) = make(1)
    other.answer = lambda _: Refused("no such\n  country <jane@example.com> 'x'\0")

    worker.push()
    worker.push_later()

    assert len(other.calls) == 1
    assert parked() == {email_id: "no such country … 'x'"}
    assert row("SELECT attempts FROM outbox") == 1
    assert row(RECEIVER)[0] == 0, "a refusal is an answer: the backend works"


@pytest.mark.parametrize("reason", ["", None, "x" * 500])
def test_a_refusal_always_has_a_short_reason(other: Other, worker: Worker, make: Make, reason: Any) -> None:
    (email_id,) = make(1)
    other.answer = lambda _: Refused(reason)

    worker.push()

    assert 0 < len(parked()[email_id]) <= 200


def test_an_edit_makes_a_parked_contact_pending(
    other: Other, worker: Worker, make: Make, edit: Callable[[str, str], Any]
) -> None:
    (email_id,) = make(1)
    other.answer = lambda _: Refused("no")
    worker.push()

    edit(email_id, "Jane")
    other.answer = lambda _: None
    worker.push()

    assert rows("SELECT FROM outbox") == []
    assert other.copies[email_id]["email"]["first_name"] == "Jane"


def test_accepted_contacts_are_pushed_again(other: Other, worker: Worker, make: Make) -> None:
    (email_id,) = make(1)
    other.answer = lambda _: Accepted(20)

    worker.push()

    assert waiting() == [email_id]
    assert row(STATE) == (1, 0, pytest.approx(20, abs=5), None)
    assert row("SELECT count(*) FROM receivers WHERE failures > 0") == 0


def test_each_contact_has_its_outcome(other: Other, worker: Worker, make: Make) -> None:
    done, none, later, refused, unsaid = make(5)
    other.answer = lambda _: {done: Done(), none: None, later: TryLater(60), refused: Refused("no"), "who": Done()}

    worker.push()

    assert set(waiting()) == {later, unsaid}
    assert parked() == {refused: "no"}
    assert row("SELECT reason FROM outbox WHERE email_id = %s", unsaid) == "not answered"


@pytest.mark.parametrize(
    "answer",
    ["done", 200, [Done()], True, Done, TryLater("soon"), TryLater(float("nan")), SlowDown(None), Accepted("60")],  # type: ignore[arg-type]
    ids=repr,
)
def test_a_result_that_is_no_outcome_is_a_failure(other: Other, worker: Worker, make: Make, answer: Any) -> None:
    (email_id,) = make(1)
    other.answer = lambda _: answer

    worker.push()
    assert row(STATE) == (1, 1, ANY, "raised TypeError")
    assert len(other.calls) == 1

    worker.push_later(4)
    assert parked() == {email_id: "raised TypeError"}


def raising(error: BaseException, *bad: str) -> Callable[[Any], Any]:
    """Return an answer that raises where one of these contacts is among those pushed; without any, always."""

    def answer(contacts: Any) -> None:
        if not bad or any(contact.email_id in bad for contact in contacts):
            raise error

    return answer


def test_a_bad_contact_is_found_by_halves_and_the_others_are_done_at_once(
    other: Other, worker: Worker, make: Make
) -> None:
    made = make(100)
    other.answer = raising(ValueError("jane@example.com"), made[37])

    worker.push()

    assert waiting() == [made[37]]
    assert set(other.copies) == set(made) - {made[37]}
    assert row(STATE) == (1, 1, ANY, "raised ValueError")
    assert len(other.calls) <= 15


@pytest.mark.parametrize("max_batch", [1, 2, 100])
@pytest.mark.parametrize("others", [True, False], ids=["among others", "alone"])
def test_it_is_parked_after_five_failures(
    other: Other, worker: Worker, make: Make, max_batch: int, others: bool
) -> None:
    made = make(9 if others else 1)
    other.answer = raising(ValueError(), made[-1])

    worker.push_later(4, max_batch=max_batch)
    assert waiting() == made[-1:]
    worker.push_later(max_batch=max_batch)

    assert parked() == {made[-1]: "raised ValueError"}
    assert [call for call in other.calls if made[-1] in call].count([made[-1]]) == 5


def test_a_contact_that_failed_before_is_tried_by_itself(other: Other, worker: Worker, make: Make) -> None:
    made = make(4)
    rows("UPDATE outbox SET failures = 1 WHERE email_id = ANY(%s::uuid[])", made[1:3])

    worker.push()

    assert other.calls == [[made[0], made[3]], [made[1]], [made[2]]]


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), GeneratorExit()], ids=repr)
def test_a_plugin_that_would_end_the_service_is_a_failure(
    other: Other, worker: Worker, make: Make, error: BaseException
) -> None:
    make(1)
    other.answer = raising(error)

    worker.push()

    assert row(STATE) == (1, 1, ANY, "raised RuntimeError")


@pytest.mark.parametrize("error", [ConnectionResetError(), requests.HTTPError("500"), TimeoutError()], ids=repr)
def test_an_error_of_the_network_never_parks(other: Other, worker: Worker, make: Make, error: OSError) -> None:
    (email_id,) = make(1)
    other.answer = raising(error)

    worker.push_later(30)

    assert parked() == {}
    assert waiting() == [email_id]
    assert row("SELECT attempts, failures FROM outbox") == (30, 0)


def test_a_contact_that_makes_the_network_fail_does_not_stop_others(other: Other, worker: Worker, make: Make) -> None:
    made = make(100)
    other.answer = raising(requests.HTTPError("400 Client Error"), made[50])

    worker.push()

    assert waiting() == [made[50]]
    assert set(other.copies) == set(made) - {made[50]}


def test_failures_are_told_without_messages(
    other: Other, worker: Worker, make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    make(2)
    other.answer = raising(ValueError("jane@example.com"))

    worker.push()

    assert "backend other raised ValueError with 2 contacts" in caplog.text
    assert "jane@example.com" not in " ".join(record.getMessage() for record in caplog.records)
    assert "example.com" not in " ".join(
        str(found) for found in rows("SELECT outbox, receivers FROM outbox, receivers")
    )


def test_try_later_for_all_counts_against_the_backend(other: Other, worker: Worker, make: Make) -> None:
    made = make(2)
    other.answer = lambda _: TryLater(reason="busy")
    worker.push()
    assert row(RECEIVER) == (1, None, None, "busy")

    time_passes()
    other.answer = lambda _: {made[0]: TryLater(), made[1]: Done()}
    worker.push()

    assert row(RECEIVER)[0] == 0
