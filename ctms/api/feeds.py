"""The responses of feeds: a page as JSON, with the link to the next one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from flask import Response, request

from ctms.api.responses import json_response
from ctms.compression import compress
from ctms.history.feeds import Id, Position
from ctms.settings import app_settings

Member = str | int | datetime | None


def page_response(
    path: str,
    span: Mapping[str, Member],
    after: Position[Id] | None,
    arrays: Mapping[str, str],
    **filters: bool | None,
) -> Response:
    """Return the response for a page that ends at the position `after`, None for the last page; compressed on request.

    `span` are the members of the page that are also parameters of its link, `filters` further parameters, and `arrays`
    members that are JSON already.
    """
    cursor = after.to_cursor() if after else None
    link = _next_link(path, cursor, {**span, **filters})
    members = {**span, "after": cursor, "next": link}
    rendered = {name: json.dumps(value, default=datetime.isoformat) for name, value in members.items()}
    page = "{" + ",".join(f'"{name}":{value}' for name, value in {**rendered, **arrays}.items()) + "}"
    return compress(json_response(page))


def _next_link(path: str, after: str | None, parameters: Mapping[str, Member | bool]) -> str | None:
    """Return the URL of the page after the cursor `after`, None for the last page. Omit parameters that are None."""
    if after is None:
        return None
    given = {name: _text(value) for name, value in {**parameters, "after": after}.items() if value is not None}
    origin = app_settings().server_prefix or request.host_url.rstrip("/")
    return f"{origin}{path}?{urlencode(given)}"


def _text(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    return value.isoformat() if isinstance(value, datetime) else value
