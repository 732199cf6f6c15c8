"""HTTP clients for tests, the same as for plugin authors."""

from __future__ import annotations

from ctms.testing.http import Answer, ApiClient, assert_error

__all__ = ["Answer", "ApiClient", "assert_error"]
