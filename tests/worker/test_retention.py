"""The weekly job of the background service that applies the retention rules."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest
from click.testing import CliRunner
from flask import Flask

from ctms.cli import ctms
from ctms.database import pool
from ctms.retention import runs
from ctms.worker.metrics import WorkerMetrics
from ctms.worker.retention import run_if_due
from ctms.worker.service import BackgroundService, WorkerOptions
from tests.retention.rules import COUNTRY, configure, left, make, write
from tests.sync.working import rows

RULES = f"""
max_contacts = 2
[rules.old]
action = "erase"
when.mailing_country = "{COUNTRY}"
"""
GAUGES = ("ctms_retention_over_max_contacts", "ctms_retention_last_success_timestamp_seconds")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path, RULES)


@pytest.fixture
def app(app: Flask, file: Path, monkeypatch: pytest.MonkeyPatch) -> Flask:
    """The app of the test, with rules."""
    configure(app, monkeypatch, file)
    return app


def work(*, stops: bool = False) -> None:
    """Run the job."""
    stopping = Event()
    if stops:
        stopping.set()
    with pool.acquire() as connection:
        run_if_due(connection, stopping)


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [(record.levelname, record.getMessage()) for record in caplog.records]


@pytest.fixture(autouse=True)
def levels(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ctms.worker.retention")


class TestWithoutTheSetting:
    @pytest.fixture
    def app(self, app: Flask, monkeypatch: pytest.MonkeyPatch) -> Flask:
        configure(app, monkeypatch, None)
        return app

    def test_nothing_is_done(self, app: Flask) -> None:
        ids = make(1)

        work()

        assert left(ids) == set(ids)
        assert rows("SELECT count(*) FROM retention_runs") == [0]
        registry = BackgroundService(app, WorkerOptions(1)).metrics.registry
        assert [registry.get_sample_value(name) for name in GAUGES] == [None, None]


def test_a_worker_with_rules_has_the_metrics(app: Flask) -> None:
    registry = BackgroundService(app, WorkerOptions(1)).metrics.registry

    assert [registry.get_sample_value(name) for name in GAUGES] == [0, 0]


@pytest.mark.usefixtures("app")
def test_it_runs_once_a_week(caplog: pytest.LogCaptureFixture) -> None:
    first, second = make(1), []
    work()
    assert left(first) == set()
    assert rows("SELECT requested_by, origin FROM erasures") == [("worker", "retention:old")]

    second = make(1)
    work()
    assert left(second) == set(second)
    rows("UPDATE retention_runs SET started_at = started_at - interval '7 days 1 minute'")
    work()
    assert left(second) == set()
    assert logged(caplog) == [("INFO", "retention: 1 contact erased")] * 2


@pytest.mark.usefixtures("app")
def test_above_the_maximum_nothing_is_erased_and_the_metric_shows_it(caplog: pytest.LogCaptureFixture) -> None:
    ids = make(3)
    metrics = WorkerMetrics([], retention=True)

    def values() -> list[float]:
        with pool.acquire() as connection:
            metrics.update_waiting(connection)
        return [metrics.registry.get_sample_value(name) or 0.0 for name in GAUGES]

    assert values() == [0, 0]
    work()

    assert left(ids) == set(ids)
    assert values() == [3, 0]
    message = "retention: the rules match more contacts than the maximum of 2: nothing is erased"
    assert logged(caplog) == [("ERROR", message)]

    rows("UPDATE retention_runs SET started_at = started_at - interval '8 days'")
    rows("DELETE FROM emails WHERE email_id = %s", ids[0])
    work()
    over, success = values()
    assert (over, success > 1_700_000_000) == (0, True)
    assert left(ids) == set()


@pytest.mark.usefixtures("app")
def test_an_invalid_file_is_a_failure_that_is_repeated(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    ids = make(1)
    file.write_text("rules = 1")

    work()

    assert left(ids) == set(ids)
    ((level, message),) = logged(caplog)
    assert (level, message.partition(": ")[0]) == ("ERROR", "no retention rules were applied")
    assert rows("SELECT outcome, started_by FROM retention_runs") == [(runs.FAILED, "worker")]
    write(file.parent, RULES)
    work()
    assert left(ids) == set()


@pytest.mark.usefixtures("app")
def test_without_the_plugin_of_a_known_receiver_nothing_is_erased(caplog: pytest.LogCaptureFixture) -> None:
    """The other system would keep the data, and the erasure would be done at once."""
    ids = make(1)
    rows("INSERT INTO receivers (kind, name, failures) VALUES ('backend', 'braze', 0)")

    work()

    assert left(ids) == set(ids)
    assert rows("SELECT count(*) FROM erasures") == [0]
    ((level, message),) = logged(caplog)
    assert level == "ERROR"
    assert "no retention rules were applied: no enabled plugin provides the backend braze: changes" in message
    assert rows("SELECT outcome, started_by FROM retention_runs") == [(runs.FAILED, "worker")]
    rows("DELETE FROM receivers")
    work()
    assert left(ids) == set()


@pytest.mark.usefixtures("app")
def test_an_invalid_file_stops_the_start_of_the_worker(cli: CliRunner, file: Path) -> None:
    file.write_text("rules = 1")

    result = cli.invoke(ctms, ["worker", "--once"])

    assert result.exit_code == 1
    assert "rules: must be a table with one or more rules" in result.stderr


@pytest.fixture
def shared(migrated_app: Flask, file: Path) -> Iterator[Flask]:
    """An app with rules and real transactions, whose rows are deleted afterwards."""
    with pytest.MonkeyPatch.context() as patches, migrated_app.app_context():
        configure(migrated_app, patches, file)
        yield migrated_app
        with pool.acquire() as connection:
            connection.execute("TRUNCATE emails, erasures, retention_runs, contact_tombstones CASCADE")


def test_a_worker_applies_the_rules_as_housekeeping(shared: Flask) -> None:
    ids = make(2)

    for _ in range(2):
        BackgroundService(shared, WorkerOptions(1, once=True)).run()

    assert left(ids) == set()
    assert rows("SELECT started_by, outcome, erased FROM retention_runs") == [("worker", runs.DONE, 2)]


@pytest.mark.usefixtures("shared")
def test_a_worker_that_stops_leaves_the_rest_to_the_next(caplog: pytest.LogCaptureFixture) -> None:
    ids = make(2)

    work(stops=True)

    assert left(ids) == set(ids)
    assert rows("SELECT outcome FROM retention_runs") == [runs.INTERRUPTED]
    assert logged(caplog) == [("INFO", "the retention run is interrupted; the next worker continues")]
    work()
    assert left(ids) == set()
