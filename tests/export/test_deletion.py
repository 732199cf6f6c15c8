"""Exports over the API that are deleted, and how many a client may have."""

from __future__ import annotations

import logging
import uuid
from pathlib import Path
from threading import Event
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy.exc import TimeoutError as PoolTimeout

from ctms.clients.tokens import tokens
from ctms.database.pool import Connection
from ctms.export import jobs
from ctms.export.run import run_export
from ctms.testing.clients import create_client
from ctms.testing.http import ApiClient, assert_error
from tests.export.conftest import HERE, request


@pytest.mark.usefixtures("people")
class TestDeletion:
    def test_files_are_deleted_and_the_record_stays(
        self, api: ApiClient, anybody: ApiClient, connection: Connection, folder: Path
    ) -> None:
        path = request(api)
        jobs.drain(Event())
        before = api.get(path).json
        (folder / "of-others").mkdir()

        deleted = api.delete(path)

        assert (deleted.status_code, deleted.data) == (204, b"")
        assert [one.name for one in folder.iterdir()] == ["of-others"]
        after = api.get(path).json
        assert (after["status"], after["files"], after["manifest"], after["updates"]) == ("expired", None, None, None)
        kept = ("id", "requested_at", "requested_by", "finished_at", "contacts")
        assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
        assert anybody.get(before["manifest"].removeprefix(HERE)).status_code == 404
        assert connection.execute("SELECT request, manifest FROM exports").fetchone() == (None, None)
        assert api.delete(path).status_code == 204
        assert api.get(path).json == after

    def test_one_that_waits_is_not_run(self, api: ApiClient, folder: Path) -> None:
        path = request(api)

        assert api.delete(path).status_code == 204

        jobs.drain(Event())
        assert api.get(path).json["status"] == "expired"
        assert not folder.exists()

    @pytest.mark.parametrize("when", ["before", "after"])
    def test_one_that_runs_is_stopped(
        self,
        api: ApiClient,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        when: str,
    ) -> None:
        path = request(api)

        def delete_meanwhile(*arguments: Any) -> Any:
            found = run_export(*arguments) if when == "after" else None
            assert api.get(path).json["status"] == "running"
            assert api.delete(path).status_code == 204
            return found or run_export(*arguments)

        monkeypatch.setattr("ctms.export.jobs.run_export", delete_meanwhile)
        with caplog.at_level(logging.INFO):
            jobs.drain(Event())

        assert api.get(path).json["status"] == "expired"
        assert list(folder.iterdir()) == []
        assert f"export {path.rpartition('/')[2]} was deleted while it ran" in caplog.messages

    @pytest.mark.parametrize("error", [psycopg.OperationalError, PoolTimeout])
    def test_one_that_runs_goes_on_while_the_database_is_away(
        self, api: ApiClient, folder: Path, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
    ) -> None:
        path = request(api)
        asked: list[Any] = []

        def fail(*arguments: Any) -> Any:
            asked.append(arguments)
            raise error

        monkeypatch.setattr("ctms.export.requests.is_unfinished", fail)
        jobs.drain(Event())

        assert asked
        assert api.get(path).json["status"] == "ready"
        assert len(list(folder.iterdir())) == 1

    def test_one_that_fails_after_that_is_not_failed(
        self, api: ApiClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, folder: Path
    ) -> None:
        path = request(api)

        def delete_and_fail(*_: Any) -> Any:
            assert api.delete(path).status_code == 204
            raise FileNotFoundError(2, "No such file or directory")  # housekeeping has deleted the directory

        monkeypatch.setattr("ctms.export.jobs.run_export", delete_and_fail)
        jobs.drain(Event())

        record = api.get(path).json
        assert (record["status"], record["problem"]) == ("expired", None)
        assert [one for one in caplog.records if one.levelno >= logging.ERROR] == []
        assert list(folder.iterdir()) == []

    def test_a_failed_one_stays_failed(self, api: ApiClient, folder: Path) -> None:
        folder.touch()
        path = request(api)
        jobs.drain(Event())
        before = api.get(path).json

        assert api.delete(path).status_code == 204
        assert api.get(path).json == before

    @pytest.mark.usefixtures("folder")
    def test_unknown_ones(self, api: ApiClient, anybody: ApiClient) -> None:
        path = request(api)

        assert_error(api.delete(f"/exports/{uuid.uuid4()}"), 404, "Unknown export")
        assert api.delete("/exports/1").status_code == 422
        assert anybody.delete(path).status_code == 401
        assert api.get(path).json["status"] == "pending"


@pytest.mark.usefixtures("folder")
def test_a_client_has_a_limited_number(
    app: Flask, api: ApiClient, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctms.export.requests.MAX_PER_CLIENT", 3)
    other = ApiClient(app.test_client(), tokens().issue(create_client("id_other_exporter", roles=["admin"])))
    first, second, third = (request(api) for _ in range(3))
    refused = (
        "The client has 3 exports that wait, run or have files: delete one with `DELETE /exports/{export_id}`, or wait"
        " until one expires"
    )

    try:
        assert_error(api.post("/exports", {}), 409, refused)
        request(other)
    finally:
        connection.execute("DELETE FROM api_client WHERE client_id = 'id_other_exporter'")
    assert api.delete(first).status_code == 204
    request(api)
    assert api.post("/exports", {}).status_code == 409
    connection.execute(
        "UPDATE exports SET finished_at = now(), expires_at = now() WHERE id = %s", (second.rpartition("/")[2],)
    )
    request(api)
    connection.execute(
        "UPDATE exports SET finished_at = now(), expires_at = now(), problem = 'x' WHERE id = %s",
        (third.rpartition("/")[2],),
    )
    request(api)
    assert api.post("/exports", {}).status_code == 409
