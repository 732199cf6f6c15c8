"""The deletion handlers of the app: systems that must delete a person's data when the service does."""

from __future__ import annotations

from ctms.hooks.manager import app_plugins


def handler_names() -> list[str]:
    """Return the names of the registered deletion handlers, sorted."""
    return sorted(one.value.name for one in app_plugins().collect("ctms_deletion_handlers"))
