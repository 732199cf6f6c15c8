"""The contract of a deletion handler."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import ClassVar

import pytest
from flask import Flask

from ctms.contacts.registry import IDENTITIES
from ctms.hooks.receivers import (
    Accepted,
    DeletionHandler,
    Done,
    Erases,
    Identities,
    Pause,
    Refused,
    SlowDown,
    TryLater,
    Verifies,
)
from ctms.testing.contacts import address
from ctms.testing.contracts.declared import declared
from ctms.testing.contracts.outcomes import assert_done, assert_kept, outcomes_of

VERIFIED = (Done, TryLater, SlowDown, Refused, Pause)
ERASED = (*VERIFIED, Accepted)
_MOST_IN_A_TEST = 200


def stranger(**known: str) -> Mapping[str, str | None]:
    """Return identities that are unknown to the other system: two, and those given; the others are None."""
    own = {"email_id": str(uuid.uuid4()), "primary_email": address(), **known}
    return {name: own.get(name) for name in IDENTITIES}


class DeletionHandlerContract:
    """A contract to subclass for the deletion handler `name`, as the plugin declares it.

    Test a handler without the other system: override the fixture `implementation`, and return the handler with a
    replacement such as `StubServer`. Also override `failing_implementation`, and return the handler with a failing
    replacement, with a parameter for each failure (`StubServer.FAILURES`).
    """

    name: ClassVar[str]

    @pytest.fixture
    def handler(self, app: Flask) -> DeletionHandler:
        """Return the declaration of the handler."""
        found: DeletionHandler = declared(app, "ctms_deletion_handlers", self.name)
        return found

    @pytest.fixture
    def implementation(self, handler: DeletionHandler) -> Erases:
        """Return the object whose `erase` is tested."""
        return handler.implementation

    @pytest.fixture
    def failing_implementation(self) -> Erases:
        """Return the object with another system that fails."""
        pytest.skip("nothing fails: override the fixture `failing_implementation`")

    def test_it_is_declared(self, handler: DeletionHandler) -> None:
        """Find the declaration."""
        assert isinstance(handler, DeletionHandler)
        assert callable(handler.implementation.erase)

    def test_nobody_to_erase_is_no_error(self, implementation: Erases) -> None:
        """Accept an empty batch."""
        _erase(implementation, [])

    def test_who_is_unknown_is_erased(self, implementation: Erases) -> None:
        """Accept people whom the other system does not know."""
        texts = [name for name, identity in IDENTITIES.items() if not (identity.is_uuid or identity.is_address)]
        everything = {name: f"{name}-{uuid.uuid4().hex}" for name in texts}

        _erase(implementation, [stranger()])
        _erase(implementation, [stranger(), stranger(**everything)])

    def test_who_is_erased_is_erased_again(self, implementation: Erases) -> None:
        """Accept people repeatedly, since every erasure is requested at least once."""
        person = stranger(fxa_id="an-account")

        _erase(implementation, [person])
        _erase(implementation, [person, person])

    def test_a_full_batch_is_erased(self, implementation: Erases, handler: DeletionHandler) -> None:
        """Accept the maximum number of contacts, with text in any script."""
        people = [stranger(fxa_id=f"アカウント {number}") for number in range(min(handler.max_batch, _MOST_IN_A_TEST))]

        _erase(implementation, people)

    def test_what_fails_is_not_done(self, failing_implementation: Erases) -> None:
        """Raise or return an outcome that retries when the other system fails: no erasure is lost.

        A handler with `verify` confirms nothing then.
        """
        methods = [failing_implementation.erase]
        if isinstance(failing_implementation, Verifies):
            methods.append(failing_implementation.verify)
        for method in methods:
            people = [stranger()]
            try:
                answer = method(people)
            except Exception:  # noqa: BLE001, S112  whatever it raises counts as "try later"
                continue
            assert_kept(answer, _ids(people))

    def test_who_is_erased_is_verified(self, implementation: Erases) -> None:
        """Find nothing left of people who were erased, or never known, if the handler has `verify`."""
        if not isinstance(implementation, Verifies):
            pytest.skip("this handler has no `verify`")
        people = [stranger(), stranger(fxa_id="an-account")]
        _erase(implementation, people)

        everybody = [*people, stranger()]
        assert_done(implementation.verify(everybody), _ids(everybody), *VERIFIED)
        assert_done(implementation.verify([]), [], *VERIFIED)


def _ids(people: Sequence[Identities]) -> list[str]:
    return [str(person["email_id"]) for person in people]


def _erase(implementation: Erases, people: Sequence[Identities]) -> None:
    """Erase people. Each must be done, or accepted by the other system."""
    found = outcomes_of(implementation.erase(people), _ids(people), *ERASED)
    others = {type(outcome).__name__ for outcome in found.values() if not isinstance(outcome, Done | Accepted)}
    assert not others, f"this should have been erased, and is answered with {', '.join(sorted(others))}"
