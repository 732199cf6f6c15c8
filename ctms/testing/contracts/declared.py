"""The declarations of an app's plugins."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from ctms.hooks.manager import Plugins


def declared(app: Flask, hook: str, name: str) -> Any:
    """Return the registration with `hook` under `name`; fail the test if there is none."""
    plugins: Plugins = app.extensions["ctms.plugins"]
    found = {registered.value.name: registered.value for registered in plugins.collect(hook)}
    if name not in found:
        loaded = ", ".join(plugin.name for plugin in plugins)
        pytest.fail(
            f"no plugin registers {name!r} with {hook}; the plugins {loaded} register {', '.join(found) or 'nothing'}",
            pytrace=False,
        )
    return found[name]
