"""What the service expects of a deletion handler."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import ClassVar

import pytest
from flask import Flask

from ctms.contacts.queries import IDENTITIES
from ctms.hooks.receivers import DeletionHandler, Erases
from ctms.testing.contacts import address
from ctms.testing.contracts.declared import declared


def stranger(**known: str) -> Mapping[str, str | None]:
    """Return the identities of somebody whom nobody knows: two, and those given; the others are None."""
    own = {"email_id": str(uuid.uuid4()), "primary_email": address(), **known}
    return {name: own.get(name) for name in IDENTITIES}


class DeletionHandlerContract:
    """Subclass it, and say which deletion handler it holds: `name`, as the plugin declares it.

    A handler that reaches another system is held without that system: override the fixture `implementation`, and
    return the handler with whatever stands for the other side.
    """

    name: ClassVar[str]

    @pytest.fixture
    def handler(self, app: Flask) -> DeletionHandler:
        """The declaration."""
        found: DeletionHandler = declared(app, "ctms_deletion_handlers", self.name)
        return found

    @pytest.fixture
    def implementation(self, handler: DeletionHandler) -> Erases:
        """What erases."""
        return handler.implementation

    def test_it_is_declared(self, handler: DeletionHandler) -> None:
        """A plugin declares it."""
        assert isinstance(handler, DeletionHandler)
        assert callable(handler.implementation.erase)

    def test_nobody_to_erase_is_no_error(self, implementation: Erases) -> None:
        """There may be nothing to do."""
        implementation.erase([])

    def test_who_is_unknown_is_erased(self, implementation: Erases) -> None:
        """Of most people the other system knows nothing, or no longer: that is what was wanted."""
        everything = {name: f"{name}-{uuid.uuid4().hex}" for name in tuple(IDENTITIES)[3:8]}

        implementation.erase([stranger()])
        implementation.erase([stranger(), stranger(**everything)])

    def test_who_is_erased_is_erased_again(self, implementation: Erases) -> None:
        """Every erasure is asked for at least once."""
        person = stranger(fxa_id="an-account")

        implementation.erase([person])
        implementation.erase([person, person])
