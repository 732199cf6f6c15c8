"""Fixtures of the plugin system's tests."""

from tests.hooks.distributions import site

__all__ = ["site"]
