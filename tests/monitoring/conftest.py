"""Fixtures: the exported metrics."""

from __future__ import annotations

import pytest
from flask import Flask

from ctms.telemetry.metrics import ApiMetrics
from ctms.worker.metrics import WorkerMetrics
from tests.http import ApiClient
from tests.monitoring.exported import Exported


@pytest.fixture(scope="session")
def exported(migrated_app: Flask) -> Exported:
    """The metrics of the API and of the background service."""
    found = Exported()
    found.add_text(ApiClient(migrated_app.test_client(), None).get("/metrics").text)
    found.add_registry(ApiMetrics(migrated_app.extensions["ctms.pool"]).registry)
    found.add_registry(WorkerMetrics([], retention=True).registry)
    return found
