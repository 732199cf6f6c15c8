"""Contacts for tests."""

from __future__ import annotations

import uuid
from typing import Any


def address() -> str:
    """Return an unused address."""
    return f"{uuid.uuid4().hex}@example.com"


def contact_body(**members: Any) -> dict[str, Any]:
    """Return the body of a request that creates a contact: an unused address, and the given `members`.

    `contact_body(waitlists=[{"name": "hub", "fields": {"seats": 5}}])` is one on a waitlist. A member `email` is merged
    with the address.
    """
    return {**members, "email": {"primary_email": address(), **members.get("email", {})}}
