"""What the service expects of a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest
from flask import Flask

from ctms.hooks.receivers import Backend, ContactState, Pushes
from ctms.testing.contracts.declared import declared


def _state(document: dict[str, Any]) -> ContactState:
    return ContactState(document["email"]["email_id"], document)


class BackendContract:
    """Subclass it, and say which backend it holds: `name`, as the plugin declares it.

    A backend that reaches another system is held without that system: override the fixture `implementation`, and
    return the backend with whatever stands for the other side.
    """

    name: ClassVar[str]

    @pytest.fixture
    def backend(self, app: Flask) -> Backend:
        """The declaration."""
        found: Backend = declared(app, "ctms_backends", self.name)
        return found

    @pytest.fixture
    def implementation(self, backend: Backend) -> Pushes:
        """What pushes."""
        return backend.implementation

    def test_it_is_declared(self, backend: Backend) -> None:
        """A plugin declares it."""
        assert isinstance(backend, Backend)
        assert callable(backend.implementation.push)

    def test_nothing_to_push_is_no_error(self, implementation: Pushes) -> None:
        """A batch may be empty."""
        implementation.push([], "nobody")

    def test_contacts_are_pushed_more_than_once(
        self, implementation: Pushes, backend: Backend, make_contact: Callable[..., dict[str, Any]]
    ) -> None:
        """Every state is pushed at least once: a contact comes again, changed or not, alone or with others."""
        first, *others = [make_contact() for _ in range(min(backend.max_batch, 3))]

        implementation.push([_state(first)], "first")
        implementation.push([_state(first), *map(_state, others)], "all")
        implementation.push([_state(first), *map(_state, others)], "all")

    def test_a_contact_with_everything_is_pushed(
        self, implementation: Pushes, make_contact: Callable[..., dict[str, Any]]
    ) -> None:
        """What a contact may hold, and text of any script."""
        contact = make_contact(
            email={"first_name": "Zoë 🦊", "last_name": "عمر", "basket_token": "7d2b0cd1-8f2d-4a43-bb2f-0e2f5b0a6f0c"},
            amo={"display_name": "Zoë", "user": True, "last_login": "2020-01-27"},
            fxa={"fxa_id": "an-account", "primary_email": "zoe@example.com"},
            mofo={"mofo_relevant": True},
            newsletters=[{"name": "weekly"}, {"name": "monthly", "subscribed": False, "unsub_reason": "too much"}],
            waitlists=[{"name": "vpn", "fields": {"geo": "ca"}}],
        )

        implementation.push([_state(contact)], "everything")
