"""Exports over the API: requested, run by the background service, downloaded by signed links, deleted in time."""

from __future__ import annotations

import hashlib
import json
import logging
import uuid
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

import jwt
import pytest
from flask import Flask

from ctms.clients.tokens import tokens
from ctms.database.pool import Connection
from ctms.export import jobs
from ctms.export.requests import MAX_ATTEMPTS
from ctms.export.run import run_export
from ctms.outbox.lanes import TASK
from ctms.testing.http import ApiClient, assert_error
from ctms.worker.housekeeping import JOBS, run_jobs
from ctms.worker.jobs import defer_due_lanes
from ctms.worker.service import BackgroundService, WorkerOptions
from tests.export.conftest import HERE, by_id, documents, lines, request


def expire(connection: Connection) -> None:
    connection.execute("UPDATE exports SET expires_at = clock_timestamp()")


@pytest.mark.usefixtures("people")
def test_from_the_request_to_the_download(
    api: ApiClient, anybody: ApiClient, connection: Connection, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = request(api, filter={"mailing_country": "ca"})

    with caplog.at_level(logging.INFO):
        jobs.drain(Event())

    assert f"export {path.rpartition('/')[2]} is ready" in caplog.messages

    found = api.get(path)
    assert found.headers["Cache-Control"] == "no-store"
    assert (found.json["status"], found.json["requested_by"]) == ("ready", "client:id_exporter")
    seconds = (datetime.fromisoformat(found.json["expires_at"]) - datetime.now(UTC)).total_seconds()
    assert 23 * 3600 < seconds <= 24 * 3600
    expected = documents(connection, "mailing_country = 'ca'")
    assert by_id(lines(folder / path.rpartition("/")[2])) == expected
    assert found.json["contacts"] == sum(one["contacts"] for one in found.json["files"]) == len(expected)
    for one in found.json["files"]:
        got = anybody.get(one["url"].removeprefix(HERE))
        assert (got.status_code, got.headers["Cache-Control"]) == (200, "no-store")
        assert hashlib.sha256(got.data).hexdigest() == one["sha256"]
        rest = anybody.get(one["url"].removeprefix(HERE), headers={"Range": "bytes=10-"})
        assert (rest.status_code, rest.data) == (206, got.data[10:])
    manifest = json.loads(anybody.get(found.json["manifest"].removeprefix(HERE)).data)
    assert manifest["updates"] == found.json["updates"]
    assert manifest["filter"] == {"mailing_country": "ca"}


@pytest.mark.usefixtures("people")
def test_a_link_is_valid_for_its_file_and_its_time_only(
    api: ApiClient, anybody: ApiClient, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = request(api)
    jobs.drain(Event())
    link = api.get(path).json["files"][0]["url"].removeprefix(HERE)
    file, _, signature = link.partition("?")
    manifest = f"{path}/files/manifest.json"
    expired = tokens().sign_link(file, -1)
    refused = [
        f"{manifest}?{signature}",
        f"{file}?signature={expired}",
        f"{file}?signature={tokens().issue('id_exporter')}",
        f"{file}?signature={signature[10:-8]}",
        f"/exports/{uuid.uuid4()}/files/manifest.json?{signature}",
    ]

    for one in refused:
        answer = anybody.get(one)
        assert_error(answer, 403, "The link is invalid or has expired: request the export again")
    assert anybody.get(file).status_code == 422
    assert_error(
        api.get("/ctms?email_id=1", headers={"Authorization": f"Bearer {signature.partition('=')[2]}"}),
        401,
        "Could not validate credentials",
    )
    outside = f"{path}/files/secret"
    (folder / path.rpartition("/")[2] / "secret").touch()
    answer = anybody.get(f"{outside}?signature={tokens().sign_link(outside, 60)}")
    assert_error(answer, 404, "The file is no longer stored")
    monkeypatch.setattr(tokens(), "_keys", ("another key of thirty-two bytes or more", *tokens()._keys))
    assert anybody.get(link).status_code == 200  # the key is rotated
    monkeypatch.setattr(tokens(), "_keys", ("another key of thirty-two bytes or more",))
    assert anybody.get(link).status_code == 403


@pytest.mark.usefixtures("people")
def test_expired_files_are_deleted(api: ApiClient, anybody: ApiClient, connection: Connection, folder: Path) -> None:
    path = request(api, fields=["email.email_id"])
    jobs.drain(Event())
    kept = request(api)
    jobs.drain(Event())
    (folder / "of-others").mkdir()
    (folder / str(uuid.uuid4())).mkdir()
    (job,) = [job for job in JOBS if job.name == "expired exports"]
    link = api.get(path).json["files"][0]["url"].removeprefix(HERE)
    connection.execute("UPDATE exports SET expires_at = clock_timestamp() WHERE id = %s", (path.rpartition("/")[2],))

    record = api.get(path).json
    run_jobs(Event(), [job])

    assert (record["status"], record["files"], record["manifest"]) == ("expired", None, None)
    assert sorted(one.name for one in folder.iterdir()) == sorted([kept.rpartition("/")[2], "of-others"])
    assert api.get(path).json == record
    assert anybody.get(link).status_code == 404
    left = connection.execute(
        "SELECT request, manifest FROM exports WHERE id = %s", (path.rpartition("/")[2],)
    ).fetchone()
    assert left == (None, None)


@pytest.mark.usefixtures("people", "folder")
def test_a_link_does_not_outlive_the_export(api: ApiClient, connection: Connection) -> None:
    path = request(api)
    jobs.drain(Event())
    connection.execute("UPDATE exports SET expires_at = clock_timestamp() + interval '90 seconds'")

    link = api.get(path).json["manifest"]

    claims = jwt.decode(link.partition("signature=")[2], options={"verify_signature": False})
    assert 0 < claims["exp"] - datetime.now(UTC).timestamp() <= 90


@pytest.mark.usefixtures("people")
class TestFailures:
    def test_a_directory_that_cannot_be_written(
        self, api: ApiClient, folder: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        folder.touch()
        path = request(api)

        jobs.drain(Event())

        record = api.get(path).json
        assert (record["status"], record["files"]) == ("failed", None)
        assert "cannot be used: " in record["problem"]
        assert f"export {record['id']} failed: {record['problem']}" in caplog.messages

    def test_a_worker_that_stops_leaves_it_to_the_next(
        self, api: ApiClient, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = request(api)
        stopping = Event()

        def stop(*arguments: Any) -> Any:
            stopping.set()
            return run_export(*arguments)

        with monkeypatch.context() as patches:
            patches.setattr("ctms.export.jobs.run_export", stop)
            jobs.drain(stopping)

        assert api.get(path).json["status"] == "pending"
        assert [one for one in folder.rglob("*") if one.is_file()] == []
        jobs.drain(Event())
        assert api.get(path).json["status"] == "ready"

    def test_a_killed_worker_is_followed_by_others_three_times_at_most(
        self, api: ApiClient, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = request(api)

        def die(*_: Any) -> Any:
            (folder / path.rpartition("/")[2] / "contacts-00001.ndjson.zst.partial").touch()
            raise KeyboardInterrupt  # nothing is recorded

        with monkeypatch.context() as patches:
            patches.setattr("ctms.export.jobs.run_export", die)
            for _ in range(MAX_ATTEMPTS):
                with pytest.raises(KeyboardInterrupt):
                    jobs.drain(Event())
                assert api.get(path).json["status"] == "running"
            jobs.drain(Event())

        record = api.get(path).json
        assert (record["status"], record["problem"]) == (
            "failed",
            "the background service ended 3 times while it ran the export",
        )


def test_it_must_be_configured(app: Flask, api: ApiClient) -> None:
    assert_error(api.post("/exports", {}), 501, "Exports are not configured: set CTMS_EXPORT_DIR")
    assert jobs.LANE not in BackgroundService(app, WorkerOptions(1))._service_lanes


@pytest.mark.parametrize(
    ("body", "place", "problem"),
    [
        ({"filter": {"country": "ca"}}, ["filter", "country"], "there is no such test"),
        ({"filter": {"or": [{"mailing_country": 1}]}}, ["filter", "or", 0, "mailing_country"], "must be"),
        ({"filter": {}}, ["filter"], "is empty"),
        ({"filter": []}, ["filter"], "must be"),
        ({"fields": ["emails"]}, ["fields", 0], "Input should be one of 'amo', 'email', "),
        ({"fields": ["email", "email.name"]}, ["fields", 1], "Input should be one of "),
        ({"fields": []}, ["fields"], "name one or more fields"),
        ({"format": "xml"}, ["format"], "Input should be one of"),
        ({"formats": "csv"}, ["formats"], "Unknown field"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_invalid_requests(
    api: ApiClient, connection: Connection, body: Any, place: list[str | int], problem: str
) -> None:
    answer = api.post("/exports", body)

    assert answer.status_code == 422
    (found,) = answer.json["detail"]
    assert found["loc"] == ["body", *place]
    assert found["msg"].startswith(problem)
    assert connection.execute("SELECT count(*) FROM exports").fetchone() == (0,)


def test_the_worker_gets_a_job(app: Flask, api: ApiClient, connection: Connection, folder: Path) -> None:
    assert not defer_due_lanes([jobs.LANE])
    path = request(api)

    assert defer_due_lanes([jobs.LANE])
    assert defer_due_lanes([jobs.LANE])

    found = connection.execute(
        "DELETE FROM procrastinate_jobs WHERE task_name = %s RETURNING lock, queue_name", (TASK,)
    ).fetchall()
    assert found == [("export:exports:0", "exports")]
    assert jobs.LANE not in BackgroundService(app, WorkerOptions(1, ["backends"]))._service_lanes
    BackgroundService(app, WorkerOptions(1, ["exports"]))._drain(jobs.LANE._asdict())
    assert api.get(path).json["status"] == "ready"
    assert not defer_due_lanes([jobs.LANE])
    assert json.loads((folder / path.rpartition("/")[2] / "manifest.json").read_text())["contacts"] == 0
