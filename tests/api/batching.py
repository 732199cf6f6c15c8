"""Batches for tests: items, requests, and their results."""

from __future__ import annotations

import uuid
from typing import Any

from tests.contacts.factories import full
from tests.http import Answer, ApiClient

Item = dict[str, Any]


def send(api: ApiClient, *items: Any, atomic: bool = False, key: str | None = None) -> Answer:
    """Send a batch."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.post(f"/ctms/batch{'?atomic=true' if atomic else ''}", {"items": list(items)}, headers=headers)


def results(api: ApiClient, *items: Any, **more: Any) -> list[dict[str, Any]]:
    """Send a batch, and return the results of its items."""
    answer = send(api, *items, **more)
    assert answer.status_code == 207, answer.text
    found: list[dict[str, Any]] = answer.json["items"]
    assert [one["index"] for one in found] == list(range(len(items)))
    return found


def statuses(api: ApiClient, *items: Any, **more: Any) -> list[str]:
    """Send a batch, and return the statuses of its items."""
    return [one["status"] for one in results(api, *items, **more)]


def by_address(text: str, contact: Any = None, **more: Any) -> Item:
    """Return an item that matches an address."""
    return {"match": {"primary_email": text}, "contact": {} if contact is None else contact, **more}


def by_id(email_id: str, contact: Any = None, **more: Any) -> Item:
    """Return an item that matches an id."""
    return {"match": {"email_id": email_id}, "contact": {} if contact is None else contact, **more}


def create(api: ApiClient, contact: Any = None) -> dict[str, Any]:
    """Create a contact with POST, and return its document."""
    answer = api.post("/ctms", contact or full())
    assert answer.status_code == 201
    document: dict[str, Any] = answer.json
    return document


def read(api: ApiClient, email_id: str) -> dict[str, Any]:
    """Return the document of a contact."""
    document: dict[str, Any] = api.get(f"/ctms/{email_id}").json
    return document


def problem(result: dict[str, Any]) -> tuple[list[Any], str]:
    """Return the place and the type of the only error."""
    [error] = result["errors"]
    assert error["loc"][:3] == ["body", "items", result["index"]]
    return error["loc"][3:], error["type"]


def mixed(contact: dict[str, Any], other: str) -> dict[str, Any]:
    """Return a batch about a stored contact and another one, with various results."""
    match = {"match": {"email_id": contact["email"]["email_id"]}}
    items = [
        {**match, "contact": {"email": {"first_name": "Joan"}}},
        {**match, "contact": {}, "if_match": '"another"'},
        {"match": {"email_id": other}, "contact": {"email": {"primary_email": contact["email"]["primary_email"]}}},
        {"match": {"email_id": str(uuid.uuid4())}, "mode": "update", "contact": {}},
        {"mode": "create", "contact": full()},
        {"mode": "create", "contact": {"email": {"primary_email": 1}}},
    ]
    return {"items": items}
