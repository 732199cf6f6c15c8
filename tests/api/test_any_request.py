"""Whatever is sent, the answer is one that the document names: requests made up by schemathesis, good ones and bad."""

from __future__ import annotations

from typing import Any

import hypothesis
import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from ctms.clients.tokens import tokens
from tests.api.described import METHODS, described
from tests.contacts.factories import full
from tests.http import ApiClient

EXAMPLES = 20
# Each costs a check of a secret, which is slow on purpose.
EXAMPLES_OF_TOKENS = 5
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OPERATIONS = (
    "find_contacts",
    "create_contact",
    "read_contact",
    "put_contact",
    "patch_contact",
    "delete_contact",
    "list_updates",
    "find_identities",
    "read_identity",
    "erase_contacts",
    "read_erasure",
    "create_token",
)

# Not every text that looks like an address or a URL is one.
_LABEL = st.text("abcdefghijklmnopqrstuvwxyzäöü0123456789", min_size=1, max_size=20)
schemathesis.openapi.format("idn-email", st.builds("{}@{}.example.com".format, _LABEL, _LABEL))
schemathesis.openapi.format("uri", st.builds("https://{}.example.com/{}".format, _LABEL, st.text(max_size=20)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_a_good_request_is_answered_as_documented(app: Flask, api: ApiClient, client_id: str, name: str) -> None:
    def fits(case: Any) -> None:
        """Let the request be about a contact that there is."""
        if "email_id" in case.path_parameters:
            group = api.post("/ctms", full()).json["email"]
            member = "primary_email" if name == "delete_contact" else "email_id"
            case.path_parameters = {"email_id": group[member]}
            if name == "put_contact":
                case.body["email"]["email_id"] = group["email_id"]
        if name == "read_erasure":
            location = api.post("/erasures", {"emails": ["nobody@example.com"]}).headers["Location"]
            case.path_parameters = {"erasure_id": location.rpartition("/")[2]}

    statuses = send(app, client_id, name, GenerationMode.POSITIVE, fits)

    if name != "create_token":  # nobody's secret can be guessed
        assert any(status < 300 for status in statuses), statuses


@pytest.mark.parametrize("name", [name for name in OPERATIONS if name != "delete_contact"])
def test_a_bad_request_is_refused_as_documented(app: Flask, client_id: str, name: str) -> None:
    statuses = send(app, client_id, name, GenerationMode.NEGATIVE)

    assert any(400 <= status < 500 for status in statuses), statuses


def send(app: Flask, client_id: str, name: str, mode: GenerationMode, fits: Any = None) -> list[int]:
    """Send requests for an operation, each as `fits` changes it, and check the answers; returns their statuses."""
    operation = schemathesis.openapi.from_wsgi("/openapi.json", app).find_operation_by_id(name)
    token = tokens().issue(client_id)
    statuses: list[int] = []

    @hypothesis.seed(1)
    @hypothesis.settings(
        max_examples=EXAMPLES_OF_TOKENS if name == "create_token" else EXAMPLES,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def run(case: Any) -> None:
        if fits is not None:
            fits(case)
        response = case.call(headers={"Authorization": f"Bearer {token}"})
        statuses.append(response.status_code)
        assert response.status_code < 500
        case.validate_response(response, checks=CHECKS)

    run()
    return statuses


def test_every_operation_that_reads_something_is_tried(app: Flask) -> None:
    document = described(app)
    reading = {
        operation["operationId"]
        for item in document.document["paths"].values()
        for method, operation in item.items()
        if method in METHODS and ("requestBody" in operation or "422" in operation["responses"])
    }
    assert reading <= set(OPERATIONS)
    assert set(OPERATIONS) - reading == {"delete_contact"}  # it reads its path only
