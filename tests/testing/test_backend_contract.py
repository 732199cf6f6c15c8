"""The contract of backends holds good ones and finds faulty ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from flask import Flask

from ctms.plugins import Accepted, Backend, ContactState, Done, Refused, TryLater, hookimpl
from ctms.testing import BackendContract, FakeBackend
from ctms.testing.contracts.backends import gone

MakeContact = Callable[..., dict[str, Any]]


class Doing:
    """A backend with the given behaviour."""

    def __init__(self, push: Callable[[Sequence[ContactState]], Any]) -> None:
        self._push = push

    def push(self, contacts: Sequence[ContactState], idempotency_key: str) -> Any:
        """Do it."""
        assert idempotency_key
        return self._push(contacts)


class Elsewhere:
    """A plugin with two backends: one that can be compared, one that cannot and takes one contact at a time."""

    @hookimpl
    def ctms_backends(self) -> Iterator[Backend]:
        """Declare the backends."""
        yield Backend(name="mirror", implementation=FakeBackend(), max_batch=4)
        yield Backend(name="mute", implementation=Doing(lambda _: None), max_batch=1)


ELSEWHERE = Elsewhere()


@pytest.fixture
def ctms_plugins() -> list[object]:
    """The plugin above and no other."""
    return [ELSEWHERE]


class TestMirror(BackendContract):
    """A backend that does it right."""

    name = "mirror"

    @pytest.fixture(params=[OSError(), TryLater()])
    def failing_implementation(self, request: pytest.FixtureRequest) -> FakeBackend:
        """The backend when the other system fails."""
        fake = FakeBackend()
        fake.answer = request.param
        return fake


class TestMute(BackendContract):
    """The least that there may be."""

    name = "mute"


def test_an_undeclared_name_fails(app: Flask) -> None:
    class Misnamed(BackendContract):
        name = "mirrors"

    with pytest.raises(pytest.fail.Exception, match=r"no plugin registers 'mirrors'.*elsewhere register mirror, mute"):
        BackendContract.backend.__wrapped__(Misnamed(), app)  # type: ignore[attr-defined]


def held(test: str, push: Callable[[Sequence[ContactState]], Any], make_contact: MakeContact, most: int = 3) -> None:
    """Run one test of the contract on a backend."""
    implementation = Doing(push)
    backend = Backend(name="mirror", implementation=implementation, max_batch=most)
    parts = {"implementation": implementation, "failing_implementation": implementation}
    parts |= {"backend": backend, "make_contact": make_contact}  # type: ignore[dict-item]
    function = getattr(BackendContract, test)
    wanted = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    function(BackendContract(), *(parts[name] for name in wanted))


def once() -> Callable[[Sequence[ContactState]], None]:
    """Return a backend that fails when a contact is repeated."""
    known: set[str] = set()

    def push(contacts: Sequence[ContactState]) -> None:
        for contact in contacts:
            if contact.email_id in known:
                raise LookupError("it is there already")
            known.add(contact.email_id)

    return push


def strict() -> Callable[[Sequence[ContactState]], None]:
    """Return a backend that fails for unknown contacts that are gone."""
    known: set[str] = set()

    def push(contacts: Sequence[ContactState]) -> None:
        for contact in contacts:
            (known.remove if contact.gone else known.add)(contact.email_id)

    return push


def few(contacts: Sequence[ContactState]) -> None:
    """Take at most two."""
    _, _ = [*contacts, *[None] * 2][:2]
    if len(contacts) > 2:
        raise OverflowError


FAULTY = {
    "knows a contact only once": ("test_contacts_are_pushed_more_than_once", once, LookupError),
    "cannot do with nothing": ("test_nothing_to_push_is_no_error", lambda: lambda contacts: contacts[0], IndexError),
    "takes less than it says": ("test_a_full_batch_is_pushed", lambda: few, OverflowError),
    "misses who is gone": ("test_who_is_gone_is_taken_away", strict, KeyError),
    "misses who never was": ("test_who_was_never_there_is_gone", strict, KeyError),
    "takes everybody for there": (
        "test_those_who_are_gone_come_with_others",
        lambda: lambda contacts: [contact.document["email"] for contact in contacts],
        TypeError,
    ),
    "stumbles over text": (
        "test_a_contact_with_everything_is_pushed",
        lambda: lambda contacts: [contact.document["email"]["last_name"].encode("latin-1") for contact in contacts],
        UnicodeEncodeError,
    ),
    "takes a failure for success": ("test_what_fails_is_not_done", lambda: lambda _: None, AssertionError),
    "gives up at a failure": ("test_what_fails_is_not_done", lambda: lambda _: Refused("down"), AssertionError),
}


@pytest.mark.parametrize(("test", "make", "error"), FAULTY.values(), ids=FAULTY)
def test_a_faulty_backend_is_found(test: str, make: Any, error: type[Exception], make_contact: MakeContact) -> None:
    with pytest.raises(error):
        held(test, make(), make_contact)


ANSWERS: dict[str, tuple[Any, str]] = {
    "no outcome": (True, "an outcome is one of Done, .*, not bool"),
    "a class": (Done, "not type"),
    "accepted": (Accepted(5), "not Accepted"),
    "strangers": ({"somebody": Done()}, "names 1 contact that nobody asked about"),
    "an answer too few": ({}, "answered with TryLater"),
    "text for seconds": (TryLater("soon"), "a number of seconds, not str"),  # type: ignore[arg-type]
    "seconds ago": (TryLater(-1), "0 seconds or more"),
    "no reason": (Refused(" "), "a reason says something"),
    "a person": (Refused("no such address: jane@example.com"), "a reason names no person"),
}


@pytest.mark.parametrize(("answer", "said"), ANSWERS.values(), ids=ANSWERS)
def test_an_answer_that_means_nothing_is_found(answer: Any, said: str, make_contact: MakeContact) -> None:
    with pytest.raises(AssertionError, match=said):
        held("test_who_was_never_there_is_gone", lambda _: answer, make_contact)


def test_fetched_data_are_compared(make_contact: MakeContact) -> None:
    class Forgetful(FakeBackend):
        def fetch(self, email_ids: Sequence[str]) -> Any:
            return {one: {"email": {"first_name": "Zoe"}} for one in super().fetch(email_ids)}

    backend = Backend(name="mirror", implementation=Forgetful())
    with pytest.raises(AssertionError, match="first_name"):
        BackendContract().test_what_is_fetched_is_what_was_pushed(backend.implementation, backend, make_contact)


def test_a_fake_keeps_contacts_and_returns_the_chosen_answer() -> None:
    fake = FakeBackend()
    there = ContactState("a", {"email": {}})
    fake.push([there, gone("b")], "1")
    fake.answer = OSError("down")
    with pytest.raises(OSError, match="down"):
        fake.push([gone("a")], "2")
    fake.answer = {"a": TryLater(5)}

    assert fake.push([gone("a")], "2") == {"a": TryLater(5)}
    assert fake.contacts == {"a": {"email": {}}}
    assert fake.keys == ["1", "2", "2"]
    assert [len(call) for call in fake.calls] == [2, 1, 1]
