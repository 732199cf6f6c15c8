"""HTTP clients for tests, and an assertion about errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse


class Answer:
    """A response: `status_code`, `headers`, `text`, `data` (bytes) and `json` (None if the body is not JSON)."""

    def __init__(self, response: TestResponse) -> None:
        self.status_code = response.status_code
        self.headers = response.headers
        self.content_type = response.content_type
        self.data = response.data
        self.text: str = response.data.decode(errors="replace")  # a file need not be text
        self.json: Any = response.get_json(silent=True)
        response.close()  # the file of a download


class ApiClient:
    """Calls the app as an API client, with its token if it has one."""

    def __init__(self, client: FlaskClient, token: str | None) -> None:
        self._client = client
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def request(self, method: str, path: str, *, headers: dict[str, str] | None = None, **kwargs: Any) -> Answer:
        """Send a request; `json`, `data`, `query_string` are those of Flask's test client."""
        sent = {**self._headers, **(headers or {})}
        return Answer(self._client.open(path, method=method, headers=sent, **kwargs))

    def get(self, path: str, **kwargs: Any) -> Answer:
        """Send a GET request."""
        return self.request("GET", path, **kwargs)

    def post(self, path: str, json: Any = None, **kwargs: Any) -> Answer:
        """Send a POST request with a JSON body."""
        return self.request("POST", path, **_body(json), **kwargs)

    def put(self, path: str, json: Any = None, **kwargs: Any) -> Answer:
        """Send a PUT request with a JSON body."""
        return self.request("PUT", path, **_body(json), **kwargs)

    def patch(self, path: str, json: Any = None, **kwargs: Any) -> Answer:
        """Send a PATCH request with a JSON body."""
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
    """Assert the common structure of an error, and return the body; `at` are the places of a validation error.

    A place is the value of `loc`: `["body", "waitlists", 0, "fields", "seats"]`. All must be named, in any order.
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
