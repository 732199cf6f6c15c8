"""Calling the app in tests: what plugin authors use, we use."""

from __future__ import annotations

from ctms.testing.http import Answer, ApiClient, assert_error

__all__ = ["Answer", "ApiClient", "assert_error"]
