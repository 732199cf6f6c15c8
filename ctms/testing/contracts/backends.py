"""The contract of a backend."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import pytest
from flask import Flask

from ctms.hooks.comparison import differences
from ctms.hooks.receivers import Backend, ContactState, Done, Fetches, Pause, Pushes, Refused, SlowDown, TryLater
from ctms.testing.contacts import address
from ctms.testing.contracts.declared import declared
from ctms.testing.contracts.outcomes import assert_done, assert_kept

KINDS = (Done, TryLater, SlowDown, Refused, Pause)
_MOST_IN_A_TEST = 200

MakeContact = Callable[..., dict[str, Any]]


def state(document: dict[str, Any]) -> ContactState:
    """Return the state of a contact with this document."""
    return ContactState(document["email"]["email_id"], document)


def gone(email_id: str | None = None) -> ContactState:
    """Return the state of a contact that is gone; without an id, of one that never existed."""
    return ContactState(email_id or str(uuid.uuid4()), None)


def _another(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document of another contact that is otherwise equal."""
    other = copy.deepcopy(document)
    other["email"] |= {"email_id": str(uuid.uuid4()), "primary_email": address()}
    return other


class BackendContract:
    """A contract to subclass for the backend `name`, as the plugin declares it.

    Test a backend without the other system: override the fixture `implementation`, and return the backend with a
    replacement such as `StubServer`. Also override `failing_implementation`, and return the backend with a failing
    replacement, with a parameter for each failure (`StubServer.FAILURES`).
    """

    name: ClassVar[str]

    @pytest.fixture
    def backend(self, app: Flask) -> Backend:
        """Return the declaration of the backend."""
        found: Backend = declared(app, "ctms_backends", self.name)
        return found

    @pytest.fixture
    def implementation(self, backend: Backend) -> Pushes:
        """Return the object whose `push` is tested."""
        return backend.implementation

    @pytest.fixture
    def failing_implementation(self) -> Pushes:
        """Return the object with another system that fails."""
        pytest.skip("nothing fails: override the fixture `failing_implementation`")

    def test_it_is_declared(self, backend: Backend) -> None:
        """Find the declaration."""
        assert isinstance(backend, Backend)
        assert callable(backend.implementation.push)

    def test_nothing_to_push_is_no_error(self, implementation: Pushes) -> None:
        """Accept an empty batch."""
        assert_done(implementation.push([], "nobody"), [], *KINDS)

    def test_contacts_are_pushed_more_than_once(
        self, implementation: Pushes, backend: Backend, make_contact: MakeContact
    ) -> None:
        """Accept contacts repeatedly, changed or not, since every state is pushed at least once."""
        first, *others = [state(make_contact()) for _ in range(min(backend.max_batch, 3))]

        _push(implementation, [first], "first")
        _push(implementation, [first, *others], "all")
        _push(implementation, [first, *others], "all")

    def test_a_full_batch_is_pushed(self, implementation: Pushes, backend: Backend, make_contact: MakeContact) -> None:
        """Accept the maximum number of contacts."""
        document = make_contact()
        size = min(backend.max_batch, _MOST_IN_A_TEST)

        _push(implementation, [state(_another(document)) for _ in range(size)], "full")

    def test_who_is_gone_is_taken_away(self, implementation: Pushes, make_contact: MakeContact) -> None:
        """Accept contacts without a document, repeatedly, and contacts that come back."""
        contact = state(make_contact())

        _push(implementation, [contact], "there")
        _push(implementation, [gone(contact.email_id)], "gone")
        _push(implementation, [gone(contact.email_id)], "gone")
        _push(implementation, [contact], "back")

    def test_who_was_never_there_is_gone(self, implementation: Pushes) -> None:
        """Accept a deleted contact that was never pushed."""
        _push(implementation, [gone()], "stranger")

    def test_those_who_are_gone_come_with_others(
        self, implementation: Pushes, backend: Backend, make_contact: MakeContact
    ) -> None:
        """Accept existing and deleted contacts in one batch."""
        batch = [gone(), state(make_contact()), gone(), state(make_contact())][: backend.max_batch]

        _push(implementation, batch, "both")

    def test_a_contact_with_everything_is_pushed(self, implementation: Pushes, make_contact: MakeContact) -> None:
        """Accept every member of a contact, and text in any script."""
        _push(implementation, [state(everything(make_contact))], "everything")

    def test_what_fails_is_not_done(self, failing_implementation: Pushes, make_contact: MakeContact) -> None:
        """Raise or return an outcome that retries when the other system fails: nothing is lost."""
        batch = [state(make_contact())]
        try:
            answer = failing_implementation.push(batch, "a key")
        except Exception:  # noqa: BLE001  whatever it raises counts as "try later"
            return
        assert_kept(answer, [contact.email_id for contact in batch])

    def test_what_is_fetched_is_what_was_pushed(
        self, implementation: Pushes, backend: Backend, make_contact: MakeContact
    ) -> None:
        """Return from `fetch` what was pushed, and no other contact."""
        if not isinstance(implementation, Fetches):
            pytest.skip("this backend has no `fetch`")
        there, away = everything(make_contact), make_contact()
        for one in (state(there), state(away), gone(state(away).email_id)):
            _push(implementation, [one], "one")
        asked = [state(there).email_id, state(away).email_id, gone().email_id]

        found = implementation.fetch(asked)

        assert set(found) == {state(there).email_id}
        assert differences(there, found[state(there).email_id]) == []
        assert implementation.fetch([]) == {}


def everything(make_contact: MakeContact) -> dict[str, Any]:
    """Create a contact with all members."""
    return make_contact(
        email={
            "first_name": "Zoë 🦊",
            "last_name": "عمر",
            "basket_token": "7d2b0cd1-8f2d-4a43-bb2f-0e2f5b0a6f0c",
            "mailing_country": "ca",
            "email_lang": "pt-BR",
            "unsubscribe_reason": "one line\nand 'another'; \"more\" \\",
        },
        amo={"display_name": "Zoë", "user": True, "last_login": "2020-01-27", "username": "x" * 100},
        fxa={"fxa_id": "an-account", "primary_email": "zoe@example.com"},
        mofo={"mofo_relevant": True},
        newsletters=[
            {"name": "weekly", "source": "https://example.com/signup?a=1&b=%20"},
            {"name": "monthly", "subscribed": False, "unsub_reason": "too much"},
        ],
        waitlists=[
            {"name": "vpn", "fields": {"geo": "ca", "platform": None}},
            {"name": "a-new-one", "fields": {"geo": "日本", "deep": {"a.b": [1, 2.5, None, {"$c": True}]}, "": "😀"}},
        ],
    )


def _push(implementation: Pushes, contacts: Sequence[ContactState], key: str) -> None:
    answer = implementation.push(contacts, key)
    assert_done(answer, [contact.email_id for contact in contacts], *KINDS)
