"""Searches as iterators, and counts."""

from __future__ import annotations

from itertools import islice
from typing import Any
from uuid import uuid4

import pytest
from ctms_client import InvalidRequestError, models

from ctms.testing.stub_server import Reply
from tests.generated_clients.installable.conftest import StubService


@pytest.fixture
def newsletter(ctms: Any) -> str:
    """A newsletter with five subscribers and one former subscriber."""
    name = f"news-{uuid4().hex[:12]}"
    for number in range(6):
        body = {
            "email": {"primary_email": f"{uuid4().hex[:20]}@example.com", "first_name": f"Ada {number}"},
            "newsletters": [{"name": name, "subscribed": number < 5}],
        }
        ctms.contacts.create(body)
    return name


def test_all_pages_are_read(ctms: Any, newsletter: str) -> None:
    found = list(ctms.search({"newsletters": newsletter}, limit=2))

    assert {contact.email.first_name for contact in found} == {f"Ada {number}" for number in range(5)}
    assert {newsletter.name for contact in found for newsletter in contact.newsletters} == {newsletter}


def test_a_model_and_sparse_contacts(ctms: Any, newsletter: str) -> None:
    where = models.Condition(newsletters=models.ConditionNewsletter(name=newsletter))

    found = list(ctms.search(where, fields=["email.first_name"]))

    assert len(found) == 5
    assert {frozenset(contact.to_dict()["email"]) for contact in found} == {frozenset({"email_id", "first_name"})}


def test_a_search_continues(ctms: Any, newsletter: str) -> None:
    where = {"newsletters": newsletter}
    complete = [contact.email.email_id for contact in ctms.search(where)]
    search = ctms.search(where, limit=2)
    first = [contact.email.email_id for contact in islice(search, 3)]

    rest = [contact.email.email_id for contact in ctms.search(where, position=search.position)]

    assert first == complete[:3]
    assert set(rest) >= set(complete[3:])  # at most a page again
    assert ctms.search(where).position == ""
    assert [contact.email.email_id for contact in search][-1] == complete[-1]
    assert search.position == ""


def test_a_count(ctms: Any, newsletter: str) -> None:
    found = ctms.count({"newsletters": newsletter})

    assert (found.value, found.exact) == (5, True)


def test_an_invalid_condition(ctms: Any) -> None:
    with pytest.raises(InvalidRequestError, match=r"body\.filter"):
        list(ctms.search({"colour": "blue"}))


@pytest.mark.usefixtures("delays")
def test_a_search_is_repeated(client: Any, stub: StubService) -> None:
    page = {"limit": 1, "items": []}
    stub.replies = [
        Reply(502),
        Reply(200, body={**page, "after": "x"}),
        Reply(sends=b""),
        Reply(200, body={**page, "after": None}),
    ]

    assert list(client.search({"has_fxa": True}, limit=1)) == []

    where = {"filter": {"has_fxa": True}, "limit": 1}
    assert [one.json for one in stub.requests] == [where, where, {**where, "after": "x"}, {**where, "after": "x"}]
