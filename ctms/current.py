"""The current app, request and `g` themselves, in place of Flask's proxies for them.

A proxy looks up what it stands for at each use, and that takes longer than the use itself: what runs for every request
asks once.
"""

from __future__ import annotations

from typing import Any

import flask
from flask import Flask, Request
from flask.ctx import _AppCtxGlobals


def current_app() -> Flask:
    """Return the app. Raises `RuntimeError` outside an app's context."""
    return flask.current_app._get_current_object()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


def current_request() -> Request:
    """Return the request. Raises `RuntimeError` outside one."""
    return flask.request._get_current_object()  # type: ignore[attr-defined, no-any-return]  # noqa: SLF001


def current_g() -> _AppCtxGlobals:
    """Return what holds the notes of the app's context. Raises `RuntimeError` outside one."""
    return flask.g._get_current_object()  # type: ignore[no-any-return]  # noqa: SLF001


def extension(name: str) -> Any:
    """Return what the app keeps under the name. Raises `RuntimeError` outside an app's context."""
    return current_app().extensions[name]
