"""Searches: the requests for their pages and for the number of contacts."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from ctms_client.generated import models
from ctms_client.operations import Body, Request, encode, json_of

_PATH = "/ctms/search"


class SearchCursor:
    """A place in the contacts that match a condition: the `after` of the next request, at first an empty text."""

    def __init__(self, condition: Body, fields: Sequence[str] | None, limit: int, position: str) -> None:
        self.position = position
        self._body = {"filter": json_of(condition), "limit": limit}
        if fields is not None:
            self._body["fields"] = list(fields)

    def request(self) -> Request[models.SearchPage]:
        """Return the request for the page."""
        body = {**self._body, "after": self.position} if self.position else self._body
        return Request("POST", _PATH, _parse, content=encode(body), repeatable=True)

    def advance(self, page: models.SearchPage) -> bool:
        """Move behind the page: after the last one, back to the beginning."""
        self.position = page.after or ""
        return page.after is not None


def count(condition: Body) -> Request[models.SearchCount]:
    """Return the request for the number of contacts that match a condition."""

    def parse(response: httpx.Response) -> models.SearchCount:
        return models.SearchCount.from_dict(response.json()["count"])

    body = {"filter": json_of(condition), "fields": ["email.email_id"], "limit": 1, "count": True}
    return Request("POST", _PATH, parse, content=encode(body), repeatable=True)


def _parse(response: httpx.Response) -> models.SearchPage:
    return models.SearchPage.from_dict(response.json())
