"""An erasure that is requested again is not done before the first one, and includes what merges have deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from ctms.database import pool
from ctms.erasure import records
from ctms.erasure.records import DONE, PARKED, PENDING, VERIFYING
from ctms.outbox.deletions import GONE
from ctms.plugins import Refused, TryLater
from ctms.telemetry import database_gauges
from ctms.testing import ApiClient
from tests.api.test_history import create
from tests.api.test_merges import merged
from tests.contacts.factories import full
from tests.plans import plan_of
from tests.sync.working import Other, Worker, row, time_passes

MakeContact = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.usefixtures("erasure_key", "nothing_erased")

ADDRESS, SPELT = "ines@münchen.example.com", "INES@xn--mnchen-3ya.example.com"


def erase(api: ApiClient, *addresses: str) -> str:
    """Erase; returns the id of the record."""
    answer = api.post("/erasures", {"emails": list(addresses)})
    assert answer.status_code == 202, answer.text
    return str(answer.json["id"])


def status(api: ApiClient, erasure: str) -> tuple[str, list[str]]:
    """Return the status, and the erasures that it follows."""
    found = api.get(f"/erasures/{erasure}").json
    return found["status"], found["follows"]


def unfinished() -> set[str]:
    """Return the ids that `erasures list --unfinished` shows."""
    with pool.acquire() as connection:
        return {one["id"] for one in records.newest(connection, 10, unfinished=True)}


def open_erasures() -> float:
    """Return the value of the metric."""
    return float(row(database_gauges._OPEN_ERASURES)[0])


def test_it_has_the_status_of_the_first_until_that_is_done(
    api: ApiClient, other: Other, worker: Worker, make_contact: MakeContact
) -> None:
    make_contact(email={"primary_email": ADDRESS})
    worker.push()
    first, other.answer = erase(api, ADDRESS), lambda _: Refused("no")
    second = erase(api, SPELT)
    assert status(api, second) == (PENDING, [first])
    assert unfinished() == {first, second}
    worker.push()
    worker.erase()
    assert status(api, second) == (PARKED, [first])
    third = erase(api, ADDRESS, "nobody@example.com")
    assert status(api, third) == (PARKED, [first])

    other.answer, other.verify_answer = lambda _: None, lambda _: TryLater()
    with pool.acquire() as connection:
        again = records.retry(connection, third)  # type: ignore[arg-type]  # the database reads it
    assert again == ({"other": 1}, {"other": 1})
    assert status(api, third) == (PENDING, [first])
    worker.push()
    worker.erase()
    assert status(api, third) == (VERIFYING, [first])
    assert unfinished() == {first, second, third}
    assert open_erasures() == 1, "the others only follow it"
    other.verify_answer = lambda _: None
    time_passes()
    worker.erase()

    assert [status(api, one)[0] for one in (first, second, third)] == [DONE] * 3
    assert unfinished() == set()
    assert open_erasures() == 0
    assert status(api, erase(api, ADDRESS)) == (DONE, [])


def test_a_contact_created_again_follows_the_erasure_of_the_former(
    api: ApiClient, other: Other, worker: Worker, make_contact: MakeContact
) -> None:
    make_contact(email={"primary_email": ADDRESS})
    worker.push()
    other.answer = lambda _: Refused("no")
    first = erase(api, ADDRESS)
    worker.push()
    worker.erase()
    make_contact(email={"primary_email": SPELT})
    other.answer = lambda _: None

    answer = api.delete(f"/ctms/{SPELT}")
    worker.push()
    worker.erase()
    time_passes()
    worker.erase()

    assert status(api, answer.headers["Erasure-Id"]) == (PARKED, [first])


def test_an_erasure_by_the_address_of_the_account_follows(api: ApiClient, make_contact: MakeContact) -> None:
    make_contact(email={"primary_email": ADDRESS}, fxa={"fxa_id": "1", "primary_email": "account@example.com"})
    first = erase(api, ADDRESS)

    again = api.post("/erasures", {"identities": [{"fxa_primary_email": "Account@example.com"}]})

    assert (again.json["contacts"], again.json["unknown"]) == (0, 0)
    assert status(api, again.json["id"]) == (PENDING, [first])


def test_erasures_of_other_addresses_are_not_followed(api: ApiClient, make_contact: MakeContact) -> None:
    one, another = (make_contact()["email"]["primary_email"] for _ in range(2))
    erase(api, one)

    assert status(api, erase(api, another))[1] == []


def test_what_a_merge_has_deleted_belongs_to_the_erasure(api: ApiClient, other: Other, worker: Worker) -> None:
    target, middle, source = (
        create(api),
        create(api, **full(waitlists=[])),
        create(api, email={"primary_email": ADDRESS}),
    )
    worker.push()
    other.answer = lambda contacts: {
        one.email_id: Refused("no") for one in contacts if getattr(one, "document", one) is None
    }
    merged(api, middle, source)
    merged(api, target, middle)
    worker.push()
    address = api.get(target).json["email"]["primary_email"]

    erasure = erase(api, address)

    assert row("SELECT pending, done, parked FROM erasure_backends WHERE erasure_id = %s", erasure) == (3, 0, 0)
    assert status(api, erase(api, ADDRESS)) == (PENDING, [erasure])
    worker.push()
    assert row("SELECT pending, done, parked FROM erasure_backends WHERE erasure_id = %s", erasure)[2] > 0
    other.answer = lambda _: None
    with pool.acquire() as connection:
        records.retry(connection, erasure)  # type: ignore[arg-type]
    worker.push()

    assert row("SELECT pending, done, parked FROM erasure_backends WHERE erasure_id = %s", erasure) == (0, 3, 0)
    assert other.copies == {}


@pytest.mark.parametrize("refuses", [False, True])
@pytest.mark.parametrize("chain", [False, True])
def test_what_a_merge_has_deleted_is_deleted_even_if_its_id_is_used_again(
    api: ApiClient, other: Other, worker: Worker, chain: bool, refuses: bool
) -> None:
    target, middle, source = create(api), create(api), create(api, email={"primary_email": ADDRESS})
    source_id = source.rpartition("/")[2]
    worker.push()
    if refuses:
        other.answer = lambda _: Refused("no")
    merged(api, middle if chain else target, source)
    if chain:
        merged(api, target, middle)
    if refuses:
        worker.push()
    again = {"email": {"email_id": source_id, "primary_email": "other@example.com"}}
    assert api.put(source, again).status_code == 201

    erasure = erase(api, api.get(target).json["email"]["primary_email"], ADDRESS)
    assert status(api, erasure) == (PENDING, [])
    other.answer = lambda _: None
    with pool.acquire() as connection:
        records.retry(connection, erasure)  # type: ignore[arg-type]
    worker.push()
    worker.erase()
    time_passes()
    worker.erase()

    assert other.gone.count(source_id) == 1
    assert status(api, erasure) == (DONE, [])
    worker.push()
    assert other.copies[source_id]["email"]["primary_email"] == "other@example.com"


def test_what_waits_in_a_chain_of_merges_belongs_to_the_last_target(
    api: ApiClient, other: Other, worker: Worker
) -> None:
    """Even if the id of the contact between the two is used again, which deletes its tombstone."""
    target, middle, source = create(api), create(api), create(api)
    source_id, middle_id = (path.rpartition("/")[2] for path in (source, middle))
    worker.push()
    other.answer = lambda contacts: {
        one.email_id: Refused("no") if one.email_id == source_id else None for one in contacts
    }
    merged(api, middle, source)
    merged(api, target, middle)
    worker.push()
    for path in (source, middle):
        again = {"email": {"email_id": path.rpartition("/")[2], "primary_email": f"{uuid4()}@example.com"}}
        assert api.put(path, again).status_code == 201
    worker.push()
    assert other.gone == [middle_id]

    erasure = erase(api, api.get(target).json["email"]["primary_email"])
    worker.push()
    assert row("SELECT parked FROM erasure_backends WHERE erasure_id = %s", erasure) == 1


def test_what_a_merge_has_deleted_is_deleted_before_its_id_is_pushed_again(
    api: ApiClient, other: Other, worker: Worker
) -> None:
    """Without an erasure, too: a system that merges attributes would keep those of the former contact."""
    target, source = create(api), create(api)
    source_id = source.rpartition("/")[2]
    worker.push()
    merged(api, target, source)
    again = {"email": {"email_id": source_id, "primary_email": "other@example.com"}}
    assert api.put(source, again).status_code == 201

    worker.push()

    assert other.gone == [source_id]
    assert other.copies[source_id]["email"]["primary_email"] == "other@example.com"


def test_what_the_backend_has_deleted_after_a_merge_is_not_deleted_again(
    api: ApiClient, other: Other, worker: Worker
) -> None:
    target, source = create(api), create(api, **full(waitlists=[]))
    worker.push()
    merged(api, target, source)
    worker.push()

    erasure = erase(api, api.get(target).json["email"]["primary_email"])
    worker.push()

    assert row("SELECT pending, done, parked FROM erasure_backends WHERE erasure_id = %s", erasure) == (0, 1, 0)
    assert other.gone.count(source.rpartition("/")[2]) == 1


def test_merged_contacts_are_found_by_the_index(app: Flask) -> None:  # noqa: ARG001  inside its transaction
    with pool.acquire() as connection:
        connection.execute(
            "INSERT INTO contact_tombstones (email_id, deleted_at, merged_into)"
            " SELECT gen_random_uuid(), now(), CASE WHEN n % 10 = 0 THEN gen_random_uuid() END"
            " FROM generate_series(1, 3000) AS n"
        )
        connection.execute(
            "INSERT INTO erasure_deletions (backend, email_id, merged_into, parked)"
            " SELECT 'other', gen_random_uuid(), CASE WHEN n % 10 = 0 THEN gen_random_uuid() END, false"
            " FROM generate_series(1, 3000) AS n"
        )
        connection.execute("ANALYZE contact_tombstones, erasure_deletions")
        values = {"backends": ["other"], "email_ids": [uuid4() for _ in range(100)]}

        plan = plan_of(connection, f"SELECT * FROM {GONE} AS g (c)", values)

    assert "idx_contact_tombstones_merged_into" in plan
    assert "idx_erasure_deletions_merged_into" in plan
    assert "Seq Scan on contact_tombstones" not in plan
    assert "Seq Scan on erasure_deletions" not in plan


def test_unfinished_erasures_are_found_by_indexes(app: Flask) -> None:  # noqa: ARG001  inside its transaction
    with pool.acquire() as connection:
        connection.execute(
            "INSERT INTO erasures (id, requested_at, requested_by, origin, forget, contacts, unknown, follows)"
            " SELECT gen_random_uuid(), now(), 'x', 'api', false, 1, 0,"
            " CASE WHEN n % 10 = 0 THEN ARRAY[gen_random_uuid()] END FROM generate_series(1, 3000) AS n"
        )
        connection.execute(
            "INSERT INTO erasure_backends (erasure_id, backend, pending, done, parked, started_at, changed_at)"
            " SELECT id, 'other', (row_number() OVER () < 10)::int, 0, 0, now(), now() FROM erasures"
        )
        connection.execute("ANALYZE erasures, erasure_backends")

        plan = plan_of(connection, records._OPEN, ([], [], 100))

    assert "idx_erasures_follows" in plan
    assert "Seq Scan on erasures" not in plan


def test_it_follows_the_erasure_of_an_address_that_the_contact_lost_in_a_merge(
    api: ApiClient, other: Other, worker: Worker
) -> None:
    first = create(api, email={"primary_email": ADDRESS})
    assert first
    worker.push()
    other.answer = lambda _: Refused("no")
    earlier = erase(api, ADDRESS)
    worker.push()
    worker.erase()
    other.answer = lambda _: None
    target, source = create(api), create(api, email={"primary_email": SPELT})
    merged(api, target, source)

    erasure = erase(api, api.get(target).json["email"]["primary_email"])

    assert status(api, erasure)[1] == [earlier]
