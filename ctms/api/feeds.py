"""Pages of feeds: their JSON and the links to the next page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import request

from ctms.settings import app_settings

Member = str | int | datetime | None


def next_link(path: str, after: str | None, parameters: Mapping[str, Member | bool]) -> str | None:
    """Return the URL of the page after the cursor `after`, None for the last page. Omit parameters that are None."""
    if after is None:
        return None
    given = {name: _text(value) for name, value in {**parameters, "after": after}.items() if value is not None}
    origin = app_settings().server_prefix or request.host_url.rstrip("/")
    return f"{origin}{path}?{urlencode(given)}"


def page_json(members: Mapping[str, Member], **arrays: str) -> str:
    """Return a page as JSON: its `members`, then its `arrays`, which are JSON already."""
    rendered = {
        name: json.dumps(_text(value) if isinstance(value, datetime) else value) for name, value in members.items()
    }
    return "{" + ",".join(f'"{name}":{value}' for name, value in {**rendered, **arrays}.items()) + "}"


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else value
