"""Calling the app in tests, and the one assertion about errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse


class Answer:
    """What came back: `status_code`, `headers`, `text`, `data` (bytes) and `json` (None where the body is none)."""

    def __init__(self, response: TestResponse) -> None:
        self.status_code = response.status_code
        self.headers = response.headers
        self.content_type = response.content_type
        self.data = response.data
        self.text = response.text
        self.json: Any = response.get_json(silent=True)


class ApiClient:
    """Calls the app as an API client does, with its token if it has one."""

    def __init__(self, client: FlaskClient, token: str | None) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **kwargs: Any) -> Answer:
        """Send a request; `json`, `data`, `query_string` as Flask's client takes them."""
        sent = {**self._headers, **(headers or {})}
        return Answer(self._client.open(path, method=method, headers=sent, **kwargs))

    def get(self, path: str, **kwargs: Any) -> Answer:
        """Send a GET request."""
        return self.request("GET", path, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> Answer:
        """Send a POST request, its body JSON."""
        return self.request("POST", path, **_body(json), **kwargs)

    def put(self, path: str, json: Any = None, **kwargs: Any) -> Answer:
        """Send a PUT request, its body JSON."""
        return self.request("PUT", path, **_body(json), **kwargs)

    def patch(self, path: str, json: Any = None, **kwargs: Any) -> Answer:
        """Send a PATCH request, its body JSON."""
        return self.request("PATCH", path, **_body(json), **kwargs)

    def delete(self, path: str, **kwargs: Any) -> Answer:
        """Send a DELETE request."""
        return self.request("DELETE", path, **kwargs)


def _body(json: Any) -> dict[str, Any]:
    return {} if json is None else {"json": json}


def assert_error(
    response: Answer,
    status: int,
    detail: str | None = None,
    *,
    at: Sequence[Sequence[str | int]] | None = None,
) -> dict[str, Any]:
    """Hold an answer to the one error shape; `at` are the places of a validation error. Returns the body.

    A place is what `loc` says: `["body", "waitlists", 0, "fields", "seats"]`. All must be named, in any order.
    """
    assert response.status_code == status, response.text
    assert response.content_type == "application/json"
    body: dict[str, Any] = response.json
    if isinstance(body["detail"], list):
        assert all(set(problem) == {"loc", "msg", "type"} for problem in body["detail"])
    else:
        assert isinstance(body["detail"], str)
    if detail is not None:
        assert body["detail"] == detail
    if at is not None:
        places = [str(problem["loc"]) for problem in body["detail"]]  # type: ignore[index]
        assert sorted(str(list(place)) for place in at) == sorted(places)
    return body
