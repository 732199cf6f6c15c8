"""Fixtures of the outbox's tests."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.sync.working import PLUGIN


@pytest.fixture
def ctms_plugins() -> Iterable[object]:
    return ["default_waitlist", PLUGIN]
