"""A plugin with in-memory backends and a deletion handler, and their pending contacts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from ctms.database import pool
from ctms.plugins import Backend, DeletionHandler, hookimpl
from ctms.testing.receivers import FakeBackend, FakeDeletionHandler


class Blind:
    """A backend that cannot be compared."""

    def push(self, contacts: Sequence[Any], idempotency_key: str) -> None:
        """Keep the contacts."""


class Receiving:
    """`mail` takes all contacts, `club` those of a newsletter, `blind` has no `fetch`; `eraser` erases."""

    def __init__(self) -> None:
        self.mail = FakeBackend()
        self.club = FakeBackend()

    def wants(self, document: Mapping[str, Any]) -> bool:
        """Return whether `club` wants the contact; raises for one of this name."""
        if document["email"]["first_name"] == "Nobody can tell":
            raise LookupError("a secret")
        return True

    @hookimpl
    def ctms_backends(self) -> Iterator[Backend]:
        """Yield them."""
        yield Backend(name="mail", implementation=self.mail, max_batch=2)
        yield Backend(name="club", implementation=self.club, newsletters=["club"], wants=self.wants)
        yield Backend(name="blind", implementation=Blind())

    @hookimpl
    def ctms_deletion_handlers(self) -> Iterator[DeletionHandler]:
        """Yield it; a backend may have the same name."""
        yield DeletionHandler(name="mail", implementation=FakeDeletionHandler())

    def forget(self) -> None:
        """Have all systems empty, and up."""
        for one in (self.mail, self.club):
            one.contacts.clear()
            one.answer = None


RECEIVING = Receiving()


@pytest.fixture
def ctms_plugins() -> Iterator[list[object]]:
    """The plugin with the backends."""
    yield [RECEIVING]
    RECEIVING.forget()


@pytest.fixture
def contacts(make_contact: Callable[..., dict[str, Any]]) -> list[dict[str, Any]]:
    """Three contacts, of which the first is on the newsletter `club` and on the waitlist `hub`; nothing waits."""
    made = [
        make_contact(newsletters=[{"name": "club", "subscribed": False}], waitlists=[{"name": "hub", "fields": {}}]),
        make_contact(newsletters=[{"name": "news"}]),
        make_contact(),
    ]
    deliver()
    return made


def ids(contacts: list[dict[str, Any]]) -> list[str]:
    """Return the ids of contacts."""
    return [contact["email"]["email_id"] for contact in contacts]


def execute(sql: str, **values: Any) -> list[Any]:
    """Execute a statement in the test's transaction; returns its rows."""
    with pool.acquire() as connection:
        cursor = connection.execute(sql, values)
        return cursor.fetchall() if cursor.description is not None else []


def deliver() -> None:
    """Delete the pending entries, as if the other systems had them."""
    execute("DELETE FROM outbox")


def waiting(backend: str = "mail") -> set[str]:
    """Return the ids of the contacts that are pending for a backend."""
    found = execute("SELECT email_id::text FROM outbox WHERE backend = %(b)s AND parked_at IS NULL", b=backend)
    return {email_id for (email_id,) in found}


def park(email_id: str, reason: str, backend: str = "mail") -> None:
    """Park a contact that waits."""
    execute(
        "UPDATE outbox SET parked_at = clock_timestamp(), reason = %(r)s, attempts = 3, failures = 2"
        " WHERE backend = %(b)s AND email_id = %(e)s",
        r=reason,
        b=backend,
        e=email_id,
    )
