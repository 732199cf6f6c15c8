"""What these tests share: the served instance and its database, side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import requests

from ctms.embedded import EmbeddedServer
from ctms.pool import libpq_url
from tests.hooks.distributions import site
from tests.serving import Served

__all__ = ["site"]

Connect = Callable[[], psycopg.Connection]

TIMEOUT_IN_SECONDS = 600
"""So long may a test take that starts processes: many times what it takes, on a machine that is busy and slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests here their time; the others keep that of all."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.timeout(TIMEOUT_IN_SECONDS))


@pytest.fixture(scope="session")
def token(served: Served) -> str:
    """A token of the served instance's admin: one for all, since secrets take long to check, on purpose."""
    return served.token()


@pytest.fixture
def session(token: str) -> Iterator[requests.Session]:
    """Calls the served instance with that token."""
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"
        yield session


@pytest.fixture
def database(served: Served) -> Iterator[Connect]:
    """Opens connections to the database of the served instance, closed at the end."""
    server = EmbeddedServer.acquire(served.folder)
    opened: list[psycopg.Connection] = []

    def connect() -> psycopg.Connection:
        opened.append(psycopg.connect(libpq_url(server.url)))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.close()
    server.release()
