"""Fixtures for tests of bundled backends and deletion handlers: another system, over real HTTP."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ctms.testing import StubServer


@pytest.fixture
def stub_server() -> Iterator[StubServer]:
    """Run a server that records requests and fails on demand."""
    with StubServer() as running:
        yield running
