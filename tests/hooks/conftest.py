"""What tests of the plugin system share."""

from tests.hooks.distributions import site

__all__ = ["site"]
