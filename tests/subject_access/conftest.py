"""Backends for the tests: one that can be read, one that cannot."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sync.receiving import RECEIVING


@pytest.fixture
def ctms_plugins() -> Iterator[list[object]]:
    """Return the plugin with the backends `mail`, `club`, and `blind`, which has no `fetch`."""
    yield ["default_waitlist", RECEIVING]
    RECEIVING.forget()
