"""Access to the current app, request and `g` without Flask's proxies.

A proxy resolves its object at each use, which takes longer than the use itself. Code that runs for every request
resolves the object once.
"""

from __future__ import annotations

from typing import Any

import flask
from flask import Flask, Request


def current_app() -> Flask:
    """Return the app. Raises `RuntimeError` outside an app's context."""
    return flask.current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


def current_request() -> Request:
    """Return the request. Raises `RuntimeError` outside one."""
    return flask.request._get_current_object()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


def current_g() -> Any:
    """Return the namespace of the app's context (`flask.g`). Raises `RuntimeError` outside one."""
    return flask.g._get_current_object()  # noqa: SLF001


def extension(name: str) -> Any:
    """Return the app's extension with this name. Raises `RuntimeError` outside an app's context."""
    return current_app().extensions[name]
