"""Fixtures of the background service's tests, shared with those of `tests/sync`."""

from __future__ import annotations

from tests.sync.conftest import ctms_plugins, make, other, worker

__all__ = ["ctms_plugins", "make", "other", "worker"]
