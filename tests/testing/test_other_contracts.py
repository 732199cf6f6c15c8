"""The contracts of backends and deletion handlers hold good ones and find faulty ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from flask import Flask

from ctms.plugins import Backend, DeletionHandler, hookimpl
from ctms.testing import ApiClient, BackendContract, DeletionHandlerContract
from ctms.testing.contracts.deletion_handlers import stranger


class Pushing:
    """A backend that does what it is made with."""

    def __init__(self, push: Callable[[Sequence[Any]], object]) -> None:
        self.push = push


class Erasing:
    """A deletion handler that does what it is made with."""

    def __init__(self, erase: Callable[[Sequence[Any]], object]) -> None:
        self.erase = erase


class Elsewhere:
    """A plugin with another system, which remembers the contacts that it is told of."""

    def __init__(self) -> None:
        self.contacts: dict[str, Any] = {}

    @hookimpl
    def ctms_backends(self) -> Iterator[Backend]:
        """Declare the backend."""
        yield Backend(name="mirror", implementation=Pushing(self.push), max_batch=2)

    @hookimpl
    def ctms_deletion_handlers(self) -> Iterator[DeletionHandler]:
        """Declare the deletion handler."""
        yield DeletionHandler(name="forgetter", implementation=Erasing(self.erase))

    def push(self, contacts: Sequence[Any]) -> None:
        """Remember the contacts."""
        assert len(contacts) <= 3
        self.contacts.update({contact["email"]["email_id"]: contact for contact in contacts})

    def erase(self, identities: Sequence[Any]) -> None:
        """Forget the contacts."""
        for identity in identities:
            self.contacts.pop(identity["email_id"], None)


ELSEWHERE = Elsewhere()


@pytest.fixture
def ctms_plugins() -> list[object]:
    """The plugin above and no other."""
    return [ELSEWHERE]


class TestMirror(BackendContract):
    """A backend that does it right."""

    name = "mirror"


class TestForgetter(DeletionHandlerContract):
    """A deletion handler that does it right."""

    name = "forgetter"


@pytest.mark.parametrize(("contract", "name"), [(BackendContract, "backend"), (DeletionHandlerContract, "handler")])
def test_what_nobody_declares_fails(contract: type[Any], name: str, app: Flask) -> None:
    class Misnamed(contract):  # type: ignore[misc]
        name = "mirrors"

    fixture = getattr(Misnamed, name).__wrapped__
    with pytest.raises(pytest.fail.Exception, match=r"no plugin registers 'mirrors'.*elsewhere register"):
        fixture(Misnamed(), app)


def once(known: set[str]) -> Callable[[Sequence[Any]], None]:
    """Make what knows each contact once, and stumbles when it comes again."""

    def push(contacts: Sequence[Any]) -> None:
        for contact in contacts:
            if contact["email"]["email_id"] in known:
                raise LookupError("it is there already")
            known.add(contact["email"]["email_id"])

    return push


def test_a_backend_that_knows_a_contact_only_once_is_found(make_contact: Callable[..., dict[str, Any]]) -> None:
    declared = Backend(name="mirror", implementation=Pushing(once(set())), max_batch=2)

    with pytest.raises(LookupError):
        BackendContract().test_contacts_are_pushed_more_than_once(declared.implementation, declared, make_contact)


def test_a_backend_that_cannot_do_with_nothing_is_found() -> None:
    with pytest.raises(IndexError):
        BackendContract().test_nothing_to_push_is_no_error(Pushing(lambda contacts: contacts[0]))


def test_a_backend_that_stumbles_over_text_is_found(make_contact: Callable[..., dict[str, Any]]) -> None:
    latin = Pushing(lambda contacts: [contact["email"]["last_name"].encode("latin-1") for contact in contacts])

    with pytest.raises(UnicodeEncodeError):
        BackendContract().test_a_contact_with_everything_is_pushed(latin, make_contact)


def test_a_handler_that_misses_whom_it_does_not_know_is_found() -> None:
    known = {"somebody": 1}
    strict = Erasing(lambda identities: [known.pop(identity["email_id"]) for identity in identities])

    with pytest.raises(KeyError):
        DeletionHandlerContract().test_who_is_unknown_is_erased(strict)


def test_a_handler_that_cannot_do_with_nothing_is_found() -> None:
    with pytest.raises(IndexError):
        DeletionHandlerContract().test_nobody_to_erase_is_no_error(Erasing(lambda identities: identities[0]))


def test_a_handler_that_remembers_whom_it_erased_is_found() -> None:
    known: set[str] = set()

    def erase(identities: Sequence[Any]) -> None:
        for identity in identities:
            if identity["email_id"] in known:
                raise LookupError("erased already")
            known.add(identity["email_id"])

    with pytest.raises(LookupError):
        DeletionHandlerContract().test_who_is_erased_is_erased_again(Erasing(erase))


def test_the_identities_are_those_that_the_service_gives(api: ApiClient, make_contact: Any) -> None:
    contact = make_contact()

    given = api.get(f"/identity/{contact['email']['email_id']}").json
    assert list(given) == list(stranger())
