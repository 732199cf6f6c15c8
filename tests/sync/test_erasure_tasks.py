"""Deletion handlers erase, are polled, verify or refuse; every contact counts once, and its identities are deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from ctms.database import pool
from ctms.outbox.lanes import HANDLER, Lane
from ctms.plugins import Accepted, Done, Outcome, Pause, Refused, SlowDown, TryLater
from ctms.sync.erasure_tasks import ErasureWork
from ctms.sync.verdicts import Finished
from ctms.sync.work import Batch
from ctms.testing import ApiClient
from tests.sync.working import HANDLER_OTHER, OTHER, OnlyErases, Other, Worker, row, rows, time_passes

MakeContact = Callable[..., dict[str, Any]]
Delete = Callable[[int], list[str]]

COUNTED = "SELECT sum(pending)::int, sum(done)::int, sum(verified)::int, sum(parked)::int FROM erasure_handlers"
TASK = (
    "SELECT step, attempts, failures, extract(epoch FROM due_at - clock_timestamp())::float8, reason FROM erasure_tasks"
)

ONLY_ERASES: dict[str, Any] = {"implementation": OnlyErases(OTHER)}


@pytest.fixture
def delete(other: Other, api: ApiClient, make_contact: MakeContact) -> Delete:  # noqa: ARG001  reset before
    """Delete so many contacts, each in an erasure of its own; returns their ids."""

    def delete_contacts(number: int) -> list[str]:
        contacts = [make_contact()["email"] for _ in range(number)]
        for contact in contacts:
            assert api.delete(f"/ctms/{contact['primary_email']}").status_code == 200
        return [contact["email_id"] for contact in contacts]

    return delete_contacts


@pytest.fixture(autouse=True)
def counted_always(app: Flask) -> Iterator[None]:  # noqa: ARG001  inside its transaction
    """Check the numbers after each test: each contact is in one of the four states, and the tasks agree."""
    yield
    wrong = """
        SELECT FROM erasures e JOIN erasure_handlers h ON h.erasure_id = e.id
        WHERE h.pending + h.done + h.verified + h.parked <> e.contacts OR least(pending, done, verified, parked) < 0
        OR pending <> (SELECT count(*) FROM erasure_tasks t
            WHERE t.erasure_id = e.id AND t.handler = h.handler AND step <> 'verify' AND parked_at IS NULL)
        OR parked <> (SELECT count(*) FROM erasure_tasks t
            WHERE t.erasure_id = e.id AND t.handler = h.handler AND parked_at IS NOT NULL)"""
    assert rows(wrong) == []


def counted() -> tuple[int, int, int, int]:
    """Return how many are pending, done, verified and parked."""
    found: tuple[int, int, int, int] = row(COUNTED)
    return found


def test_erased_and_verified_contacts_have_no_task(other: Other, worker: Worker, delete: Delete) -> None:
    ids = delete(3)
    assert counted() == (3, 0, 0, 0)

    worker.erase()

    assert other.erased == [ids]
    assert other.verified == [ids]
    assert counted() == (0, 0, 3, 0)
    assert rows("SELECT FROM erasure_tasks") == []


def test_a_handler_gets_the_identities(other: Other, worker: Worker, api: ApiClient, make_contact: MakeContact) -> None:
    contact = make_contact(fxa={"fxa_id": "fxa-1", "primary_email": "fxa@example.com"})["email"]
    expected = api.get(f"/identity/{contact['email_id']}").json
    api.delete(f"/ctms/{contact['primary_email']}")

    worker.erase()

    assert other.identities == [expected]


def test_without_verify_it_is_done(other: Other, worker: Worker, delete: Delete) -> None:
    delete(2)

    worker.erase(**ONLY_ERASES)

    assert counted() == (0, 2, 0, 0)
    assert other.verified == []
    assert rows("SELECT FROM erasure_tasks") == []


def test_it_is_done_until_it_is_verified(other: Other, worker: Worker, delete: Delete) -> None:
    delete(1)

    worker.erase(verify_after=3600)

    assert counted() == (0, 1, 0, 0)
    assert other.verified == []
    assert row(TASK) == ("verify", 0, 0, pytest.approx(3600, abs=5), None)

    worker.erase_later()
    assert counted() == (0, 0, 1, 0)


def test_a_handler_that_cannot_verify_any_more_has_not_verified(other: Other, worker: Worker, delete: Delete) -> None:
    delete(2)
    worker.erase(verify_after=3600)

    worker.erase_later(**ONLY_ERASES)

    assert counted() == (0, 2, 0, 0)
    assert rows("SELECT FROM erasure_tasks") == [], "their identities go all the same"
    assert len(other.erased) == 1


def test_accepted_erasures_are_polled(other: Other, worker: Worker, delete: Delete) -> None:
    ids = delete(1)
    other.answer = lambda _: Accepted(3600)

    worker.erase()

    assert counted() == (1, 0, 0, 0)
    assert row(TASK) == ("accepted", 1, 0, pytest.approx(3600, abs=5), None)

    other.verify_answer = lambda _: Accepted(60)
    worker.erase_later()
    assert counted() == (1, 0, 0, 0)

    other.verify_answer = lambda _: Done()
    worker.erase_later()
    assert counted() == (0, 0, 1, 0)
    assert other.erased == [ids]
    assert len(other.verified) == 2


def test_accepted_erasures_are_repeated_without_verify(other: Other, worker: Worker, delete: Delete) -> None:
    delete(1)
    other.answer = lambda _: Accepted(3600)
    worker.erase(**ONLY_ERASES)

    other.answer = lambda _: Done()
    worker.erase_later(**ONLY_ERASES)

    assert len(other.erased) == 2
    assert counted() == (0, 1, 0, 0), "nobody has verified it"


@pytest.mark.parametrize("step", ["erase", "verify", "accepted"])
def test_refused_contacts_are_parked_with_the_reason(other: Other, worker: Worker, delete: Delete, step: str) -> None:
    delete(2)
    worker.push()
    if step == "erase":
        other.answer = lambda _: Refused("legal hold of jane@example.com")
    else:
        other.answer = lambda _: Accepted(60) if step == "accepted" else None
        other.verify_answer = lambda _: Refused("legal hold of jane@example.com")

    worker.erase()
    worker.erase_later()

    assert counted() == (0, 0, 0, 2)
    assert rows("SELECT DISTINCT reason FROM erasure_handlers") == ["legal hold of …"]
    assert rows("SELECT DISTINCT step, reason, parked_at IS NULL FROM erasure_tasks") == [
        ("erase", "legal hold of …", False)
    ]
    calls = len(other.erased)
    worker.erase_later()
    assert len(other.erased) == calls


def test_what_is_left_before_the_backend_has_deleted_is_looked_for_again(
    other: Other, worker: Worker, delete: Delete
) -> None:
    """It may be the backend's copy, which needs nobody to act."""
    delete(1)
    other.verify_answer = lambda _: Refused("something is left")

    worker.erase()

    assert counted() == (0, 1, 0, 0)
    assert row(TASK) == ("verify", 0, 0, pytest.approx(60, abs=5), "something is left")
    worker.push()
    worker.erase_later()
    assert counted() == (0, 0, 0, 1)


def test_each_contact_has_its_outcome(other: Other, worker: Worker, delete: Delete) -> None:
    done, later, refused, accepted, unsaid = delete(5)
    other.answer = lambda _: {done: Done(), later: TryLater(60, "busy"), refused: Refused("no"), accepted: Accepted(9)}

    worker.erase()

    assert counted() == (3, 0, 1, 1)
    reasons = dict(rows("SELECT identities ->> 'email_id', reason FROM erasure_tasks"))
    assert reasons == {later: "busy", refused: "no", accepted: None, unsaid: "not answered"}


@pytest.mark.parametrize("answer", [TryLater(), TryLater(60, "still there")], ids=repr)
def test_one_that_is_still_at_it_is_not_failing(other: Other, worker: Worker, delete: Delete, answer: TryLater) -> None:
    delete(1)
    other.verify_answer = lambda _: answer

    worker.erase_later(30)

    assert counted() == (0, 1, 0, 0)
    assert rows("SELECT FROM receivers WHERE failures > 0 OR open_until IS NOT NULL") == []
    assert row("SELECT attempts FROM erasure_tasks") == 30


@pytest.mark.parametrize("answer", [SlowDown(60), Pause("stop")], ids=repr)
def test_one_that_wants_a_rest_keeps_its_tasks(other: Other, worker: Worker, delete: Delete, answer: Any) -> None:
    delete(2)
    other.answer = lambda _: answer

    worker.erase(max_batch=1)

    assert len(other.erased) == 1
    assert counted() == (2, 0, 0, 0)
    assert rows("SELECT attempts FROM erasure_tasks") == [0, 0]


def test_a_bad_one_is_found_and_parked_and_the_others_are_done(other: Other, worker: Worker, delete: Delete) -> None:
    ids = delete(8)

    def fail(identities: Any) -> None:
        if any(one["email_id"] == ids[3] for one in identities):
            raise ValueError("jane@example.com")

    other.answer = fail
    worker.erase()
    assert counted() == (1, 0, 7, 0)

    worker.erase_later(4)
    assert counted() == (0, 0, 7, 1)
    assert row("SELECT reason FROM erasure_tasks") == "raised ValueError"


def test_a_network_that_fails_never_parks(other: Other, worker: Worker, delete: Delete) -> None:
    delete(2)

    def fail(_: Any) -> None:
        raise ConnectionResetError

    other.answer = fail
    worker.erase_later(30)
    assert counted() == (2, 0, 0, 0)

    other.answer = lambda _: None
    worker.erase_later()
    assert counted() == (0, 0, 2, 0)


def test_many_contacts_of_one_erasure(other: Other, worker: Worker, delete: Delete) -> None:
    delete(1)
    rows("UPDATE erasures SET contacts = 50")
    rows("UPDATE erasure_handlers SET pending = 50")
    rows("""
        INSERT INTO erasure_tasks
            (erasure_id, handler, identities, step, waiting_since, due_at, attempts, failures)
        SELECT erasure_id, handler, jsonb_set(identities, '{email_id}', to_jsonb(gen_random_uuid()::text)), step,
            waiting_since, due_at, 0, 0 FROM erasure_tasks, generate_series(2, 50)""")

    for lane in range(3):
        worker.erase(lane=lane, concurrency=3, max_batch=7)

    assert counted() == (0, 0, 50, 0)
    assert len({one for call in other.erased for one in call}) == 50
    assert max(map(len, other.erased)) == 7


@pytest.mark.parametrize("verdicts", [(Finished(), Finished())])
@pytest.mark.parametrize("options", [{}, ONLY_ERASES], ids=["verifies", "only erases"])
def test_a_task_that_two_workers_have_counts_once(
    other: Other, worker: Worker, delete: Delete, options: Mapping[str, Any], verdicts: Any
) -> None:
    delete(2)
    work = ErasureWork(Lane(HANDLER, "other", 0), replace(HANDLER_OTHER, **options))
    with pool.acquire() as connection:
        items = work.claim(connection, 10, probing=False)
    (batch,), _ = _prepared(work, items)

    for verdict in verdicts:
        with pool.acquire() as connection:
            work.settle(connection, batch, dict.fromkeys(batch.items, verdict))

    assert counted() == (0, 2, 0, 0)
    worker.erase_later(**options)
    assert counted() == ((0, 2, 0, 0) if options else (0, 0, 2, 0))
    assert other.erased == []


def _prepared(work: ErasureWork, items: Any) -> tuple[list[Batch], Any]:
    with pool.acquire() as connection:
        return work.prepare(connection, items)


def test_the_same_id_erased_twice_has_two_outcomes(
    other: Other, worker: Worker, api: ApiClient, make_contact: MakeContact
) -> None:
    """It may have had another address: one outcome for the id would count for both addresses."""
    email_id, addresses = str(uuid4()), [f"{name}@example.com" for name in "abca"]
    asked: list[list[str]] = []
    for address in addresses:
        make_contact(email={"email_id": email_id, "primary_email": address})
        api.delete(f"/ctms/{address}")

    def erase(identities: Any) -> dict[str, Outcome]:
        asked.append([one["primary_email"] for one in identities])
        return {
            one["email_id"]: Refused("no") if one["primary_email"] == "b@example.com" else Done() for one in identities
        }

    other.answer = erase
    worker.erase()

    assert asked == [[address] for address in addresses]
    assert counted() == (0, 0, 3, 1)


def test_the_records_are_locked_in_one_order(worker: Worker, delete: Delete, monkeypatch: pytest.MonkeyPatch) -> None:
    delete(5)
    locked: list[Any] = []
    acquire = pool.acquire

    @contextmanager
    def listen() -> Any:
        with acquire() as connection:

            class Listening:
                def execute(self, query: Any, values: Any = None) -> Any:
                    cursor = connection.execute(query, values)
                    if "FROM erasure_handlers WHERE" in query:
                        locked.append((query, cursor.rowcount))
                    return cursor

                def __getattr__(self, name: str) -> Any:
                    return getattr(connection, name)

            yield Listening()

    with monkeypatch.context() as patched:  # the fixture may end after the app's, and bring its patches back
        patched.setattr(pool, "acquire", listen)
        worker.erase()

    assert [rows for _, rows in locked] == [5, 5]
    assert all("ORDER BY erasure_id FOR NO KEY UPDATE" in query for query, _ in locked)


def test_new_contacts_with_the_address_are_pushed_again(
    other: Other, worker: Worker, api: ApiClient, make_contact: MakeContact
) -> None:
    gone, kept = make_contact()["email"], make_contact()["email"]
    address = gone["primary_email"]
    api.delete(f"/ctms/{address}")
    back = make_contact(email={"primary_email": address.upper()})["email"]
    worker.push()
    other.calls.clear()

    def erase_by_address(identities: Any) -> None:
        for one in identities:
            assert one["primary_email"] == address
            del other.copies[back["email_id"]]

    other.answer = erase_by_address
    worker.erase()
    other.answer = lambda _: None
    worker.push()

    assert other.calls == [[back["email_id"]]]
    assert set(other.copies) == {back["email_id"], kept["email_id"]}


def test_retried_by_hand_it_is_erased(other: Other, worker: Worker, delete: Delete) -> None:
    delete(1)
    other.answer = lambda _: Refused("no")
    worker.erase()

    rows("UPDATE erasure_tasks SET parked_at = NULL, failures = 0, due_at = clock_timestamp()")
    rows("UPDATE erasure_handlers SET parked = 0, pending = 1")
    other.answer = lambda _: None
    time_passes()
    worker.erase()

    assert counted() == (0, 0, 1, 0)
