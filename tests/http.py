"""Calling the app in tests, and the one assertion about errors."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse


class Answer:
    """What came back."""

    def __init__(self, response: TestResponse) -> None:
        self.status_code = response.status_code
        self.headers = response.headers
        self.content_type = response.content_type
        self.data = response.data
        self.text = response.text
        self.json: Any = response.get_json(silent=True)


class ApiClient:
    """A Flask test client that sends a token."""

    def __init__(self, client: FlaskClient, token: str | None) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **kwargs: Any) -> Answer:
        """Send a request; `json`, `data`, `query_string` as Flask's client takes them."""
        sent = {**self._headers, **(headers or {})}
        return Answer(self._client.open(path, method=method, headers=sent, **kwargs))

    def get(self, path: str, **kwargs: Any) -> Answer:
        return self.request("GET", path, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> Answer:
        return self.request("POST", path, **_body(json), **kwargs)

    def put(self, path: str, json: Any = None, **kwargs: Any) -> Answer:
        return self.request("PUT", path, **_body(json), **kwargs)

    def patch(self, path: str, json: Any = None, **kwargs: Any) -> Answer:
        return self.request("PATCH", path, **_body(json), **kwargs)

    def delete(self, path: str, **kwargs: Any) -> Answer:
        return self.request("DELETE", path, **kwargs)


def _body(json: Any) -> dict[str, Any]:
    return {} if json is None else {"json": json}


def assert_error(
    response: Answer,
    status: int,
    detail: str | None = None,
    *,
    at: list[list[str | int]] | None = None,
) -> dict[str, Any]:
    """Hold an answer to the one error shape; `at` are the places of a validation error. Returns the body."""
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
        assert sorted(map(str, at)) == sorted(places)
    return body
