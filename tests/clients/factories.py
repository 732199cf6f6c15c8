"""API clients for tests: those that plugin authors test with."""

from __future__ import annotations

from ctms.testing.clients import QUICK_HASHER, SECRET, create_client

__all__ = ["QUICK_HASHER", "SECRET", "create_client"]
