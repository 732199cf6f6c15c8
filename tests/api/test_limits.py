"""Requests that are too large, too deep or malformed get a clear error at low cost."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from ctms.api import MAX_BODY_IN_BYTES
from tests.contacts.factories import full, minimal
from tests.http import ApiClient, assert_error

WRITES = [("POST", "/ctms"), ("PUT", "/ctms/x"), ("PATCH", "/ctms/x")]


@pytest.mark.parametrize(("method", "path"), WRITES)
class TestBodies:
    def send(self, api: ApiClient, method: str, path: str, body: bytes | str) -> Any:
        return api.request(method, path, data=body, content_type="application/json")

    def test_too_large(self, api: ApiClient, method: str, path: str) -> None:
        body = b'{"a": "' + b"x" * MAX_BODY_IN_BYTES + b'"}'

        assert_error(self.send(api, method, path, body), 413, "Request Entity Too Large")

    @pytest.mark.parametrize("levels", [60, 1000, 100_000])
    @pytest.mark.parametrize("opening", ["[", '{"a":'])
    def test_too_deep(self, api: ApiClient, method: str, path: str, levels: int, opening: str) -> None:
        closing = "]" if opening == "[" else "}"
        deep = opening * levels + "1" + closing * levels
        body = f'{{"email": {{"primary_email": "a@example.com"}}, "waitlists": [{{"name": "w", "fields": {deep}}}]}}'

        assert_error(self.send(api, method, path, body), 422)

    def test_too_many(self, api: ApiClient, method: str, path: str) -> None:
        body = json.dumps({**minimal(), "newsletters": [{"name": f"n{number}"} for number in range(10_000)]})

        answer = assert_error(self.send(api, method, path, body), 422)

        assert len(answer["detail"]) < 5

    def test_too_many_problems(self, api: ApiClient, method: str, path: str) -> None:
        """A response is never much larger than the request."""
        fields = {f"field {number}": number for number in range(20_000)}
        body = json.dumps({**minimal(), "waitlists": [{"name": "vpn", "fields": fields}]})

        answer = self.send(api, method, path, body)

        assert_error(answer, 422)
        assert len(answer.data) < 20_000


def test_deep_json_in_unknown_members_is_harmless(api: ApiClient) -> None:
    deep: Any = 1
    for _ in range(400):
        deep = [deep]

    assert api.post("/ctms", {**full(), "unknown": deep}).status_code == 201


def test_a_token_request_has_a_limit_too(anonymous: ApiClient) -> None:
    for data in ({"client_id": "x" * 2_000_000}, {f"field{number}": "x" for number in range(5000)}):
        answer = anonymous.request("POST", "/token", data=data)
        assert answer.status_code in {400, 413, 422}, answer.text
        assert len(answer.data) < 1000


@pytest.mark.parametrize(
    ("path", "content_type"), [("/token", "application/x-www-form-urlencoded"), ("/ctms", "application/json")]
)
def test_a_body_in_chunks_has_a_limit_too(api: ApiClient, path: str, content_type: str) -> None:
    """The length is not known in advance, and a truncated body is not accepted as complete."""
    answer = api.request(
        "POST",
        path,
        input_stream=io.BytesIO(b"client_id=x&" * MAX_BODY_IN_BYTES),
        content_type=content_type,
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )

    assert_error(answer, 413, "Request Entity Too Large")
