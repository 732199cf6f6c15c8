"""Fixtures of the commands' tests."""

from __future__ import annotations

import pytest

from ctms.clients import secrets
from tests.clients.factories import QUICK_HASHER


@pytest.fixture(autouse=True)
def quick_hasher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make hashing of secrets fast."""
    monkeypatch.setattr(secrets, "_hasher", QUICK_HASHER)
