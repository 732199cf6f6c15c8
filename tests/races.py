"""What tests of concurrent requests share: an app with real transactions, clients for threads, waiting for locks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from threading import Barrier
from typing import Any, TypeVar

import psycopg
import pytest
from flask import Flask

from ctms.clients import registry
from ctms.clients.tokens import tokens
from ctms.database.engine import db
from ctms.database.pool import libpq_url
from ctms.suppression.fingerprints import Fingerprints
from ctms.testing.apps import Apps
from tests.http import ApiClient

Result = TypeVar("Result")

PATIENCE = 60
"""Seconds until a test fails that waits for others."""

CLIENT = "id_of_races"
_TABLES = "emails, erasures, suppressions, outbox, subscription_events, contact_tombstones, access_requests"


@contextmanager
def committing_app(apps: Apps, plugins: Sequence[EntryPoint]) -> Iterator[Flask]:
    """Return an app with real transactions and an API client, whose rows are deleted afterwards."""
    app = apps.get(plugins)
    with app.app_context(), db.session.begin():
        registry.create_client(CLIENT, "races@example.com", ["admin"])
    with pytest.MonkeyPatch.context() as patches:
        patches.setitem(app.extensions, "ctms.fingerprints", Fingerprints(lambda: "a key for tests only"))
        yield app
    with app.app_context(), db.session.begin():
        registry.delete_client(CLIENT)
        db.session.connection().exec_driver_sql(f"TRUNCATE {_TABLES} CASCADE")


def clients(app: Flask) -> Callable[[], ApiClient]:
    """Return a factory of clients of `committing_app`: a client is for one thread."""
    with app.app_context():
        token = tokens().issue(CLIENT)
    return lambda: ApiClient(app.test_client(), token)


def at_once(calls: Sequence[Callable[[], Result]]) -> list[Result]:
    """Start all calls at the same time, and return their results in order."""
    ready = Barrier(len(calls))

    def one(call: Callable[[], Result]) -> Result:
        ready.wait(timeout=PATIENCE)
        return call()

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(one, calls))


@contextmanager
def transaction(url: str) -> Iterator[Any]:
    """Return a slow concurrent transaction."""
    with psycopg.connect(libpq_url(url)) as connection:
        yield connection
