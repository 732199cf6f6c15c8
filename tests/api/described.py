"""Checks of responses against the OpenAPI document that the app serves."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from flask import Flask
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from tests.http import Answer

METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch", "trace"})
_URI = "urn:ctms:openapi"


class Described:
    """The document, and checks of responses against it.

    Checks are strict in both ways: a response may not have members that the document does not name.
    """

    def __init__(self, text: str) -> None:
        self.document: dict[str, Any] = json.loads(text)
        strict = json.loads(text)
        for schema in strict["components"]["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)
        resource = Resource.from_contents(strict, default_specification=DRAFT202012)
        self._strict = strict
        self._registry: Registry[Any] = Registry().with_resource(_URI, resource)
        self.operations = {
            operation["operationId"]: (method, path, operation)
            for path, item in self.document["paths"].items()
            for method, operation in item.items()
            if method in METHODS
        }

    @property
    def schemas(self) -> dict[str, Any]:
        """The schemas of the document, by name."""
        found: dict[str, Any] = self.document["components"]["schemas"]
        return found

    def answers(self) -> set[tuple[str, int]]:
        """Return every operation with every documented status."""
        return {
            (name, int(status))
            for name, (_, _, operation) in self.operations.items()
            for status in operation["responses"]
        }

    def resolve(self, described: dict[str, Any]) -> dict[str, Any]:
        """Return the target of a reference, or the schema itself."""
        while "$ref" in described:
            found: Any = self._strict
            for name in described["$ref"].removeprefix("#/").split("/"):
                found = found[name]
            described = found
        return described

    def problems(self, schema: dict[str, Any], value: Any) -> list[str]:
        """Return the places and reasons where `value` violates `schema`, which may refer to the document's schemas."""
        absolute = _absolute(schema)
        validator = Draft202012Validator(
            absolute, registry=self._registry, format_checker=Draft202012Validator.FORMAT_CHECKER
        )
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]

    def check(self, name: str, answer: Answer) -> None:
        """Assert that the response matches the operation `name`: the status, the headers, the type and the body."""
        responses = self.operations[name][2]["responses"]
        assert str(answer.status_code) in responses, f"{name} does not document {answer.status_code}: {answer.text}"
        response = self.resolve(responses[str(answer.status_code)])
        for header, reference in response.get("headers", {}).items():
            wanted = self.resolve(reference)
            assert header in answer.headers or not wanted.get("required"), f"{name} lacks the header {header}"
            if header in answer.headers:
                problems = self.problems(wanted["schema"], answer.headers[header])
                assert not problems, f"{name}, the header {header}: {problems}"
        content = response.get("content")
        if content is None:
            assert answer.data == b"", f"{name} documents no body for {answer.status_code}"
            return
        media_type = re.split(r"\s*;", answer.content_type or "")[0]
        assert media_type in content, f"{name} does not document {media_type}"
        body = answer.json if media_type == "application/json" else answer.text
        problems = self.problems(content[media_type]["schema"], body)
        assert not problems, f"{name}, the body of {answer.status_code}: {problems}"


def described(app: Flask) -> Described:
    """Read the document as clients do."""
    return _described(app.test_client().get("/openapi.json").text)


@lru_cache(maxsize=4)
def _described(text: str) -> Described:
    return Described(text)


def _absolute(schema: Any) -> Any:
    """Return `schema` with absolute references into the document."""
    if isinstance(schema, dict):
        return {key: f"{_URI}{value}" if key == "$ref" else _absolute(value) for key, value in schema.items()}
    return [_absolute(item) for item in schema] if isinstance(schema, list) else schema
