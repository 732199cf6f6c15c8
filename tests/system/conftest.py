"""Fixtures: the served instance and its database, in parallel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
import requests

from tests.hooks.distributions import site
from tests.serving import Served

__all__ = ["site"]

Connect = Callable[[], psycopg.Connection]

TIMEOUT_IN_SECONDS = 900
"""Timeout of a test that starts processes: many times its usual duration, for a slow and busy machine."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Set the timeout of these tests; others keep the default."""
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
    url = served.database_url()
    with ExitStack() as opened:
        yield lambda: opened.enter_context(closing(psycopg.connect(url)))
