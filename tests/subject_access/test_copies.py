"""The background service reads backends' copies and deletes expired reports."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

import pytest
from flask import Flask

from ctms.database import pool
from ctms.outbox.changes import outbox
from ctms.outbox.lanes import TASK
from ctms.subject_access import copies
from ctms.worker.housekeeping import JOBS, run_jobs
from ctms.worker.jobs import defer_due_lanes
from ctms.worker.service import BackgroundService, WorkerOptions
from tests.contacts.rows import execute, insert, insert_contact
from tests.http import ApiClient
from tests.sync.receiving import RECEIVING


def drain() -> None:
    copies.drain(Event())


def is_due() -> bool:
    with pool.acquire() as connection:
        return copies.is_due(connection)


@pytest.fixture
def requested(api: ApiClient, make_contact: Callable[..., Any]) -> tuple[str, list[str]]:
    """Request the data of an address that three contacts have; return the request's path, and their ids."""
    first = make_contact()
    given, ids = first["email"]["primary_email"], [first["email"]["email_id"]]
    for _ in range(2):
        ids.append(insert_contact())
        insert("fxa", email_id=ids[-1], primary_email=given)
    answer = api.post("/access-requests", {"address": given})
    assert answer.status_code == 202
    return answer.headers["Location"], ids


def read(api: ApiClient, path: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return a record, and the copies of its contacts by id and backend."""
    found = api.get(path).json
    contacts = found["report"]["contacts"]
    return found, {one["email_id"]: {copy["backend"]: copy for copy in one["copies"]} for one in contacts}


def test_all_copies_are_read_in_batches(
    api: ApiClient, requested: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids = requested
    RECEIVING.mail.contacts[ids[0]] = {"email": {"first_name": "Jane"}}
    batches: list[Sequence[str]] = []
    fetch = RECEIVING.mail.fetch

    def noted(some: Sequence[str]) -> Any:
        batches.append(some)
        return fetch(some)

    monkeypatch.setattr(RECEIVING.mail, "fetch", noted)
    assert is_due()

    drain()

    assert not is_due()
    record, found = read(api, path)
    assert (record["status"], record["copies"], record["failed"]) == ("ready", 6, 0)
    assert {one: found[one]["mail"]["status"] for one in ids} == dict(
        zip(ids, ["found", *["missing"] * 2], strict=True)
    )
    assert found[ids[0]]["mail"]["data"] == {"email": {"first_name": "Jane"}}
    assert sorted(map(len, batches)) == [1, 2]
    assert sorted(one for batch in batches for one in batch) == sorted(ids)


def test_a_failing_backend_is_named(
    api: ApiClient, requested: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids = requested

    def fail(_: Any) -> Any:
        raise ConnectionError(ids[0])

    monkeypatch.setattr(RECEIVING.mail, "fetch", fail)

    drain()

    record, found = read(api, path)
    assert (record["status"], record["failed"]) == ("ready", 3)
    assert {one["mail"]["error"] for one in found.values()} == {"`fetch` of the backend mail raised ConnectionError"}
    assert {one["club"]["status"] for one in found.values()} == {"missing"}
    assert not is_due()


def test_a_contact_that_is_erased_meanwhile_leaves_nothing(
    api: ApiClient, requested: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, ids = requested

    def erase(some: Sequence[str]) -> Any:
        execute("DELETE FROM emails WHERE email_id = CAST(:id AS uuid)", id=ids[0])
        return {one: {"name": "Jane"} for one in some}

    monkeypatch.setattr(RECEIVING.mail, "fetch", erase)

    drain()

    record, found = read(api, path)
    assert record["status"] == "ready"
    assert found.keys() == set(ids[1:])
    assert execute("SELECT count(*) FROM access_request_copies WHERE email_id = CAST(:id AS uuid)", id=ids[0]) == 0


def test_a_stopping_service_leaves_the_rest(api: ApiClient, requested: tuple[str, list[str]]) -> None:
    stopping = Event()
    stopping.set()

    copies.drain(stopping)

    assert read(api, requested[0])[0]["status"] == "pending"
    assert is_due()


def test_copies_of_a_backend_of_other_workers_are_left_to_them(
    requested: tuple[str, list[str]],  # noqa: ARG001  what waits
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("mail", "club"):
        monkeypatch.delitem(outbox().backends, name)
    monkeypatch.setattr(outbox(), "names", ["blind"])

    assert not is_due()
    drain()

    assert execute("SELECT count(*) FROM access_request_copies WHERE content IS NULL") == 6


def test_expired_reports_are_deleted(api: ApiClient, requested: tuple[str, list[str]]) -> None:
    path, _ = requested
    drain()
    jobs = [job for job in JOBS if job.name == "expired access reports"]
    run_jobs(Event(), jobs)
    assert api.get(path).json["status"] == "ready"
    execute("UPDATE access_requests SET expires_at = clock_timestamp()")

    run_jobs(Event(), jobs)

    for table in ("access_request_contacts", "access_request_copies"):
        assert execute(f"SELECT count(*) FROM {table}") == 0
    assert execute("SELECT count(*) FROM access_requests WHERE result IS NULL") == 1
    assert api.get(path).json["status"] == "expired"


def test_the_worker_gets_a_job(app: Flask, requested: tuple[str, list[str]]) -> None:  # noqa: ARG001
    assert defer_due_lanes([copies.LANE])
    assert defer_due_lanes([copies.LANE])

    assert execute(
        "SELECT array_agg(lock || ' ' || queue_name) FROM procrastinate_jobs WHERE task_name = :t", t=TASK
    ) == ["access_request:copies:0 backends"]
    service = BackgroundService(app, WorkerOptions(1))
    service._drain(copies.LANE._asdict())
    assert not is_due()


def test_a_worker_for_erasures_only_has_no_lane_for_it(app: Flask) -> None:
    assert list(BackgroundService(app, WorkerOptions(1, ["erasures"]))._service_lanes) == []
    assert list(BackgroundService(app, WorkerOptions(1, ["backends"]))._service_lanes) == [copies.LANE]
