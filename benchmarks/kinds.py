"""The kinds of measured requests."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from benchmarks.data import Contacts


@dataclass(frozen=True)
class Request:
    """One request; `body` is JSON text or empty."""

    method: str
    path: str
    body: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of request: its name, the expected status, and the source of its requests.

    `once` means that no request may be repeated: it creates or deletes.
    """

    name: str
    title: str
    status: int
    make: Callable[[Contacts, int], Iterator[Request]]
    writes: bool = False
    once: bool = False

    def requests(self, contacts: Contacts, count: int) -> list[Request]:
        """Return `count` requests, or fewer if they may be repeated."""
        return list(islice(self.make(contacts, count), count))


def _read(contacts: Contacts, _count: int) -> Iterator[Request]:
    return (Request("GET", f"/ctms/{email_id}") for email_id in contacts.ids)


def _find(contacts: Contacts, _count: int) -> Iterator[Request]:
    return (Request("GET", f"/ctms?primary_email={quote(address)}") for address in contacts.addresses)


def _page(contacts: Contacts, _count: int) -> Iterator[Request]:
    return (
        Request("GET", f"/updates?start={quote(moment.isoformat())}&limit=1000") for moment in contacts.moments[:500]
    )


def _patch(contacts: Contacts, _count: int) -> Iterator[Request]:
    for number, email_id in enumerate(contacts.ids):
        newsletter = random.choice(("common-voice", "hubs", "mozilla-foundation", "take-action"))  # noqa: S311
        patch = {
            "email": {"first_name": f"Changed {number}"},
            "newsletters": [{"name": newsletter, "lang": random.choice(("de", "en", "fr"))}],  # noqa: S311
        }
        yield Request("PATCH", f"/ctms/{email_id}", json.dumps(patch))


def _post(_contacts: Contacts, count: int) -> Iterator[Request]:
    return (Request("POST", "/ctms", json.dumps(new_contact())) for _ in range(count))


def new_contact() -> dict[str, Any]:
    """Return a new contact: an account, two newsletters, a waitlist."""
    name = uuid4().hex
    return {
        "email": {
            "primary_email": f"{name}@example.com",
            "basket_token": str(uuid4()),
            "first_name": "New",
            "last_name": "Contact",
            "mailing_country": "us",
            "double_opt_in": True,
        },
        "fxa": {
            "fxa_id": name,
            "primary_email": f"{name}@accounts.example.com",
            "created_date": "2019-05-22T08:29:31.906094+00:00",
            "lang": "en",
            "first_service": "sync",
        },
        "newsletters": [
            {"name": "common-voice", "source": "https://commonvoice.mozilla.org/"},
            {"name": "hubs", "lang": "fr"},
        ],
        "waitlists": [{"name": "relay", "fields": {"geo": "de"}}],
    }


def _delete(contacts: Contacts, count: int) -> Iterator[Request]:
    return (Request("DELETE", f"/ctms/{quote(address)}") for address in contacts.doomed(count))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("read", "read by id", 200, _read),
        Kind("find", "read by e-mail", 200, _find),
        Kind("page", "page of 1,000", 200, _page),
        Kind("patch", "PATCH", 200, _patch, writes=True),
        Kind("post", "POST", 201, _post, writes=True, once=True),
        Kind("delete", "DELETE", 200, _delete, writes=True, once=True),
    )
}
