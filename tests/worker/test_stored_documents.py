"""The job of the worker that stores documents and checks a sample."""

from __future__ import annotations

import dataclasses
import logging
from threading import Event

import pytest
from flask import Flask
from prometheus_client import generate_latest

from ctms.contacts import document_store
from ctms.database import pool
from ctms.worker import stored_documents
from ctms.worker.metrics import WorkerMetrics
from tests.contacts.rows import execute, insert_only


@pytest.fixture(autouse=True)
def contacts(app: Flask) -> None:  # noqa: ARG001  inside its transaction
    insert_only("Jane", "Joe")


def run(metrics: WorkerMetrics | None = None, stopping: Event | None = None) -> WorkerMetrics:
    """Run the job and return its metrics."""
    metrics = metrics or WorkerMetrics(())
    with pool.acquire() as connection:
        stored_documents.run(connection, stopping or Event(), metrics.count_checked_documents)
    return metrics


def stored() -> int:
    """Return the number of stored documents."""
    return int(execute("SELECT count(*) FROM contact_documents"))


def checked(metrics: WorkerMetrics, result: str) -> bytes:
    """Return the sample of the metric."""
    name = f'ctms_stored_documents_checked_total{{result="{result}"}} '.encode()
    (line,) = [line for line in generate_latest(metrics.registry).splitlines() if line.startswith(name)]
    return line.removeprefix(name)


def test_it_fills_and_checks() -> None:
    metrics = run()

    assert stored() == 2
    assert (checked(metrics, "equal"), checked(metrics, "different")) == (b"2.0", b"0.0")


def test_a_document_that_differs_is_reported_and_replaced(caplog: pytest.LogCaptureFixture) -> None:
    run()
    execute("UPDATE contact_documents SET document = replace(document, 'Jane', 'Mary')")

    with caplog.at_level(logging.ERROR):
        metrics = run()
    assert (checked(metrics, "equal"), checked(metrics, "different")) == (b"1.0", b"1.0")
    assert caplog.messages[-1:] == ["1 of 2 stored documents differ from rendered ones, and will be replaced"]

    run(metrics)
    assert (checked(metrics, "equal"), checked(metrics, "different")) == (b"3.0", b"1.0")
    assert execute("SELECT count(*) FROM contact_documents WHERE document LIKE '%Mary%'") == 0


def test_it_stops_between_batches_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document_store, "BATCH", 1)
    stopping = Event()
    stopping.set()

    metrics = run(stopping=stopping)
    assert stored() == 1
    assert checked(metrics, "equal") == b"0.0"

    monkeypatch.setattr(stored_documents, "MAX_SECONDS", 0)
    run()
    assert stored() == 2


def test_it_empties_the_store_that_is_off(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    run()
    settings = dataclasses.replace(app.extensions["ctms.settings"], stored_documents=False)
    monkeypatch.setitem(app.extensions, "ctms.settings", settings)
    execute("UPDATE emails SET last_name = 'x'")

    run()

    assert stored() == 0
    assert execute("SELECT count(*) FROM outdated_documents") == 0
    monkeypatch.undo()
    run()
    assert stored() == 2
