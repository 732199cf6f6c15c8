"""An erasure is done only when the backends have deleted the contact, whatever happens to it in the meantime."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask

from ctms.database import pool
from ctms.outbox.changes import RESYNC, outbox
from ctms.outbox.lanes import BACKEND, Lane
from ctms.plugins import Accepted, Refused, SlowDown, TryLater
from ctms.sync import parked as parking
from ctms.sync.backends import BackendWork
from ctms.sync.verdicts import Finished
from ctms.testing import ApiClient
from tests.sync.working import BACKEND_OTHER, Other, Worker, parked, row, rows, time_passes, waiting

MakeContact = Callable[..., dict[str, Any]]

HUBS: dict[str, Any] = {"newsletters": ["hubs"]}


@pytest.fixture(autouse=True)
def counted_always(app: Flask) -> Iterator[None]:  # noqa: ARG001  inside its transaction
    """After each test the numbers agree: each contact is in one of three states, and the rows agree."""
    yield
    wrong = """
        SELECT FROM erasures e JOIN erasure_backends b ON b.erasure_id = e.id
        WHERE b.pending + b.done + b.parked <> e.contacts OR least(pending, done, parked) < 0
        OR pending <> (SELECT count(*) FROM erasure_deletions d
            WHERE d.erasure_id = e.id AND d.backend = b.backend AND NOT d.parked)
        OR parked <> (SELECT count(*) FROM erasure_deletions d
            WHERE d.erasure_id = e.id AND d.backend = b.backend AND d.parked)"""
    assert rows(wrong) == []
    lost = """
        SELECT FROM erasure_deletions d
        WHERE NOT EXISTS (SELECT FROM outbox o WHERE o.backend = d.backend AND o.email_id = d.email_id)"""
    assert rows(lost) == []


@pytest.fixture
def email(other: Other, make_contact: MakeContact) -> dict[str, Any]:  # noqa: ARG001  reset before
    """A contact that the backend does not know yet."""
    found: dict[str, Any] = make_contact(newsletters=[{"name": "hubs"}])["email"]
    return found


class Erasures:
    """Deletes contacts and reads the records."""

    def __init__(self, api: ApiClient) -> None:
        self.api = api

    def delete(self, email: dict[str, Any]) -> str:
        """Delete a contact; returns the id of the erasure."""
        answer = self.api.delete(f"/ctms/{email['primary_email']}")
        assert answer.status_code == 200, answer.text
        return answer.headers["Erasure-Id"]

    def put(self, email: dict[str, Any], name: str = "Back") -> None:
        """Create the contact again, with the same id."""
        body = {"email": {**email, "first_name": name}, "newsletters": [{"name": "hubs"}]}
        assert self.api.put(f"/ctms/{email['email_id']}", body).status_code == 201

    def state(self, erasure: str) -> tuple[int, int, int]:
        """Return how many are pending, done and parked at the backend."""
        found: tuple[int, int, int] = row(
            "SELECT pending, done, parked FROM erasure_backends WHERE erasure_id = %s AND backend = 'other'", erasure
        )
        return found

    def record(self, erasure: str) -> dict[str, Any]:
        """Return the record."""
        found: dict[str, Any] = self.api.get(f"/erasures/{erasure}").json
        return found


@pytest.fixture
def erasures(api: ApiClient) -> Erasures:
    return Erasures(api)


def test_it_is_done_when_the_backend_has_deleted(
    other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
) -> None:
    worker.push()
    erasure = erasures.delete(email)
    worker.erase()

    record = erasures.record(erasure)
    assert record["status"] == "pending"
    (backend,) = record["backends"]
    assert backend["started_at"] == backend["changed_at"]
    del backend["started_at"], backend["changed_at"]
    assert backend == {"name": "other", "installed": True, "pending": 1, "done": 0, "parked": 0, "reason": None}
    assert [str(one) for one in rows("SELECT email_id FROM erasure_deletions")] == [email["email_id"]]

    worker.push()

    record = erasures.record(erasure)
    assert (record["status"], record["backends"][0]["done"]) == ("done", 1)
    assert record["backends"][0]["changed_at"] > record["backends"][0]["started_at"]
    assert other.gone == [email["email_id"]]
    assert rows("SELECT FROM erasure_deletions") == [], "whom it was about is not kept"


def test_an_edit_that_is_pushed_while_the_contact_is_deleted_is_not_its_deletion(
    other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
) -> None:
    deleted: list[str] = []

    def delete_meanwhile(_: Any) -> None:
        if not deleted:
            deleted.append(erasures.delete(email))
            worker.stopping.set()

    other.answer = delete_meanwhile
    worker.push()
    assert erasures.state(deleted[0]) == (1, 0, 0)
    assert list(other.copies) == [email["email_id"]]

    worker.stopping.clear()
    worker.push()
    assert erasures.state(deleted[0]) == (0, 1, 0)
    assert other.copies == {}


class TestBack:
    """A contact with the same id exists again before the backend has received the deletion."""

    def test_the_old_one_is_deleted_there_first(
        self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
    ) -> None:
        worker.push()
        erasure = erasures.delete(email)
        erasures.put(email)
        assert erasures.state(erasure) == (1, 0, 0)

        worker.push()

        assert other.calls == [[email["email_id"]]] * 3
        assert other.gone == [email["email_id"]]
        assert len(set(other.keys)) == 3
        assert other.copies[email["email_id"]]["email"]["first_name"] == "Back"
        assert erasures.state(erasure) == (0, 1, 0)
        assert waiting() == []

    def test_not_even_a_killed_worker_leaves_the_new_one_out(
        self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
    ) -> None:
        worker.push()
        erasure = erasures.delete(email)
        erasures.put(email)
        work = BackendWork(Lane(BACKEND, "other", 0), BACKEND_OTHER)
        with pool.acquire() as connection:
            items = work.claim(connection, 10, probing=False)
            (batch,), _ = work.prepare(connection, items)
        work.call(batch)  # and then it is killed

        worker.push()

        assert other.gone == [email["email_id"]] * 2
        assert other.keys[1] == other.keys[2], "the same states have the same key"
        assert list(other.copies) == [email["email_id"]]
        assert erasures.state(erasure) == (0, 1, 0)

    def test_a_failed_deletion_does_not_count_against_the_new_contact(
        self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
    ) -> None:
        worker.push()
        erasures.delete(email)
        erasures.put(email)
        other.answer = lambda _: TryLater(1, "busy")
        worker.push()
        other.answer = lambda _: worker.stopping.set()
        worker.push_later()

        assert row("SELECT attempts, failures, reason FROM outbox") == (0, 0, None)

    def test_a_second_deletion_settles_both_erasures(
        self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
    ) -> None:
        worker.push()
        first = erasures.delete(email)
        erasures.put(email)
        second = erasures.delete(email)

        worker.push()

        assert other.gone == [email["email_id"]]
        assert erasures.state(first) == erasures.state(second) == (0, 1, 0)

    def test_a_deletion_during_the_push_needs_another_push(
        self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
    ) -> None:
        worker.push()
        first = erasures.delete(email)
        second: list[str] = []

        def again(_: Any) -> None:
            if not second:
                erasures.put(email)
                second.append(erasures.delete(email))
                worker.stopping.set()

        other.answer = again
        worker.push()
        assert erasures.state(first) == (0, 1, 0)
        assert erasures.state(second[0]) == (1, 0, 0)

        worker.stopping.clear()
        worker.push()
        assert erasures.state(second[0]) == (0, 1, 0)
        assert other.gone == [email["email_id"]] * 2

    def test_a_resync_closes_nothing(
        self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
    ) -> None:
        worker.push()
        erasure = erasures.delete(email)
        erasures.put(email)
        with pool.writing() as connection:
            outbox().changed(connection, [email["email_id"]], priority=RESYNC)

        worker.push(max_batch=1)

        assert other.gone == [email["email_id"]]
        assert erasures.state(erasure) == (0, 1, 0)
        assert list(other.copies) == [email["email_id"]]


class TestSelection:
    def test_one_that_the_backend_is_not_known_to_have_is_deleted_there_too(
        self, other: Other, worker: Worker, erasures: Erasures, make_contact: MakeContact
    ) -> None:
        email = make_contact(newsletters=[])["email"]
        erasure = erasures.delete(email)
        worker.push(**HUBS)

        assert other.gone == [email["email_id"]]
        assert erasures.state(erasure) == (0, 1, 0)

    def test_one_that_it_is_not_known_to_have_and_that_is_back_is_pushed_twice(
        self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
    ) -> None:
        erasure = erasures.delete(email)
        erasures.put(email)

        worker.push(**HUBS)

        assert other.gone == [email["email_id"]]
        assert list(other.copies) == [email["email_id"]]
        assert erasures.state(erasure) == (0, 1, 0)

    @pytest.mark.parametrize("wanted", [True, False])
    def test_one_that_it_has_is_deleted_there(
        self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any], *, wanted: bool
    ) -> None:
        worker.push(**HUBS)
        erasure = erasures.delete(email)
        erasures.put(email)
        if not wanted:
            erasures.api.patch(f"/ctms/{email['email_id']}", {"newsletters": "UNSUBSCRIBE"})

        worker.push(**HUBS)

        assert other.gone == [email["email_id"]]
        assert list(other.copies) == ([email["email_id"]] if wanted else [])
        assert erasures.state(erasure) == (0, 1, 0)
        assert len(rows("SELECT FROM outbox_mirrored")) == wanted

    def test_a_call_that_ends_late_may_have_brought_it_back(
        self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
    ) -> None:
        work = BackendWork(Lane(BACKEND, "other", 0), replace(BACKEND_OTHER, **HUBS))
        with pool.acquire() as connection:
            (batch,), _ = work.prepare(connection, work.claim(connection, 10, probing=False))
        erasure = erasures.delete(email)
        worker.push(**HUBS)
        assert erasures.state(erasure) == (0, 1, 0)

        work.call(batch)
        with pool.acquire() as connection:
            work.handle_late_end(connection, batch)
        worker.push(**HUBS)

        assert other.copies == {}
        assert other.gone == [email["email_id"]] * 2


@pytest.mark.parametrize("answer", [TryLater(60, "busy"), SlowDown(60, "busy"), Accepted(60)])
def test_a_delayed_deletion_is_pending(
    other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any], answer: Any
) -> None:
    worker.push()
    erasure = erasures.delete(email)
    other.answer = lambda _: answer

    worker.push()

    assert erasures.state(erasure) == (1, 0, 0)
    assert erasures.record(erasure)["backends"][0]["reason"] == (None if isinstance(answer, Accepted) else "busy")


class TestParked:
    @pytest.fixture
    def erasure(self, other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]) -> str:
        worker.push()
        found = erasures.delete(email)
        other.answer = lambda _: Refused("legal hold of jane@example.com")
        worker.push()
        other.answer = lambda _: None
        return found

    def test_it_shows_with_its_reason(self, erasures: Erasures, erasure: str) -> None:
        (backend,) = erasures.record(erasure)["backends"]
        assert (erasures.record(erasure)["status"], backend["reason"]) == ("parked", "legal hold of …")

    def test_retried_with_the_backend_it_is_done(self, worker: Worker, erasures: Erasures, erasure: str) -> None:
        with pool.acquire() as connection:
            assert sum(parking.retry(connection, "other")) == 1
        assert erasures.state(erasure) == (1, 0, 0)

        worker.push()
        assert (erasures.state(erasure), erasures.record(erasure)["backends"][0]["reason"]) == ((0, 1, 0), None)

    def test_back_it_is_pushed_as_gone_first(
        self, other: Other, worker: Worker, erasures: Erasures, erasure: str, email: dict[str, Any]
    ) -> None:
        erasures.put(email)
        worker.push()

        assert other.gone == [email["email_id"]]
        assert erasures.state(erasure) == (0, 1, 0)
        assert parked() == {}

    def test_back_and_put_off_it_is_pending(
        self, other: Other, worker: Worker, erasures: Erasures, erasure: str, email: dict[str, Any]
    ) -> None:
        erasures.put(email)
        other.answer = lambda _: TryLater(60)
        worker.push()

        assert erasures.state(erasure) == (1, 0, 0)

    def test_refused_for_a_state_that_is_old_it_is_pending(
        self, other: Other, worker: Worker, erasures: Erasures, erasure: str, email: dict[str, Any]
    ) -> None:
        erasures.put(email)

        def edit_meanwhile(_: Any) -> Refused:
            erasures.put(email, "Again")
            worker.stopping.set()
            return Refused("no")

        other.answer = edit_meanwhile
        worker.push()

        assert erasures.state(erasure) == (1, 0, 0)
        assert waiting() == [email["email_id"]]


def test_two_workers_count_a_deletion_once(
    other: Other, worker: Worker, erasures: Erasures, email: dict[str, Any]
) -> None:
    worker.push()
    erasure = erasures.delete(email)
    work = BackendWork(Lane(BACKEND, "other", 0), BACKEND_OTHER)
    with pool.acquire() as connection:
        (batch,), _ = work.prepare(connection, work.claim(connection, 10, probing=False))

    for _ in range(2):
        with pool.acquire() as connection:
            work.settle(connection, batch, dict.fromkeys(batch.items, Finished()))

    assert erasures.state(erasure) == (0, 1, 0)
    worker.push()
    assert other.gone == [email["email_id"]], "nobody knows which call came last"


def test_many_of_one_erasure_in_several_lanes(
    other: Other, worker: Worker, api: ApiClient, make_contact: MakeContact, erasures: Erasures
) -> None:
    contacts = [make_contact()["email"] for _ in range(12)]
    for lane in range(3):
        worker.push(lane=lane, concurrency=3)
    other.answer = lambda pushed: {
        one.email_id: Refused("no") if one.email_id == contacts[0]["email_id"] else None for one in pushed
    }
    erasure = api.post("/erasures", {"emails": [one["primary_email"] for one in contacts]}).json["id"]

    for lane in range(3):
        worker.push(lane=lane, concurrency=3, max_batch=2)
        time_passes()

    assert erasures.state(erasure) == (0, 11, 1)
