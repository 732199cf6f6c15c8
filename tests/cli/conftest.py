"""What tests of commands share."""

from __future__ import annotations

import pytest

from ctms.clients import secrets
from tests.clients.factories import QUICK_HASHER


@pytest.fixture(autouse=True)
def quick_hasher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets that commands make are hashed quickly."""
    monkeypatch.setattr(secrets, "_hasher", QUICK_HASHER)
