"""Fixtures of the background service's tests: those of what it works on."""

from __future__ import annotations

from tests.sync.conftest import ctms_plugins, make, other, worker

__all__ = ["ctms_plugins", "make", "other", "worker"]
