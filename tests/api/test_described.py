"""Responses that do not match the OpenAPI document are noticed."""

from __future__ import annotations

import pytest
from flask import Flask

from tests.api.described import Described, described
from tests.contacts.factories import full
from tests.http import Answer, ApiClient


@pytest.fixture
def document(app: Flask) -> Described:
    return described(app)


class TestChecks:
    """The checks of responses can fail."""

    @pytest.fixture
    def contact(self, api: ApiClient) -> Answer:
        return api.post("/ctms", full())

    def test_a_member_that_is_missing(self, document: Described, contact: Answer) -> None:
        del contact.json["fxa"]["lang"]
        with pytest.raises(AssertionError, match="'lang' is a required property"):
            document.check("create_contact", contact)

    def test_a_member_that_is_not_documented(self, document: Described, contact: Answer) -> None:
        contact.json["waitlists"][0]["surprise"] = 1
        with pytest.raises(AssertionError, match="surprise"):
            document.check("create_contact", contact)

    def test_a_value_of_another_kind(self, document: Described, contact: Answer) -> None:
        contact.json["email"]["create_timestamp"] = "yesterday"
        with pytest.raises(AssertionError, match="is not a 'date-time'"):
            document.check("create_contact", contact)

    def test_a_header_that_is_missing(self, document: Described, contact: Answer) -> None:
        contact.headers.remove("ETag")
        with pytest.raises(AssertionError, match="lacks the header ETag"):
            document.check("create_contact", contact)

    def test_a_status_that_is_not_documented(self, document: Described, contact: Answer) -> None:
        contact.status_code = 418
        with pytest.raises(AssertionError, match="does not document 418"):
            document.check("create_contact", contact)
