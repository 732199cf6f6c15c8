"""The contract of deletion handlers holds good ones and finds faulty ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from flask import Flask

from ctms.plugins import Accepted, DeletionHandler, Done, Identities, Pause, Refused, SlowDown, hookimpl
from ctms.testing import ApiClient, DeletionHandlerContract, FakeDeletionHandler
from ctms.testing.contracts.deletion_handlers import stranger


class Erasing:
    """A deletion handler with the given behaviour."""

    def __init__(self, erase: Callable[[Sequence[Identities]], Any]) -> None:
        self.erase = erase


class Looking(Erasing):
    """The same, and it can look."""

    def __init__(self, erased: Any, verified: Any) -> None:
        super().__init__(lambda _: erased)
        self._verified = verified

    def verify(self, identities: Sequence[Identities]) -> Any:
        """Look."""
        return self._verified


class Elsewhere:
    """A plugin with two handlers: one that can look, and one that only begins."""

    @hookimpl
    def ctms_deletion_handlers(self) -> Iterator[DeletionHandler]:
        """Declare the deletion handlers."""
        yield DeletionHandler(name="forgetter", implementation=FakeDeletionHandler())
        yield DeletionHandler(name="beginner", implementation=Erasing(lambda _: Accepted(60)), max_batch=1)


ELSEWHERE = Elsewhere()


@pytest.fixture
def ctms_plugins() -> list[object]:
    """The plugin above and no other."""
    return [ELSEWHERE]


class TestForgetter(DeletionHandlerContract):
    """A deletion handler that does it right."""

    name = "forgetter"

    @pytest.fixture(params=[OSError(), SlowDown(5), Pause("the key is not good any more")])
    def failing_implementation(self, request: pytest.FixtureRequest) -> FakeDeletionHandler:
        """The handler when the other system fails."""
        fake = FakeDeletionHandler()
        fake.answer = request.param
        return fake


class TestBeginner(DeletionHandlerContract):
    """The least that there may be."""

    name = "beginner"


def test_an_undeclared_name_fails(app: Flask) -> None:
    class Misnamed(DeletionHandlerContract):
        name = "forgetters"

    with pytest.raises(pytest.fail.Exception, match=r"no plugin registers 'forgetters'.*elsewhere register forgetter"):
        DeletionHandlerContract.handler.__wrapped__(Misnamed(), app)  # type: ignore[attr-defined]


def test_a_handler_that_skips_unknown_people_is_detected() -> None:
    known = {"somebody": 1}
    strict = Erasing(lambda identities: [known.pop(str(identity["email_id"])) for identity in identities])

    with pytest.raises(KeyError):
        DeletionHandlerContract().test_who_is_unknown_is_erased(strict)


def test_a_handler_that_cannot_do_with_nothing_is_found() -> None:
    with pytest.raises(IndexError):
        DeletionHandlerContract().test_nobody_to_erase_is_no_error(Erasing(lambda identities: identities[0]))


def test_a_handler_that_refuses_repetitions_is_detected() -> None:
    known: set[str | None] = set()

    def erase(identities: Sequence[Identities]) -> None:
        for identity in identities:
            if identity["email_id"] in known:
                raise LookupError("erased already")
            known.add(identity["email_id"])

    with pytest.raises(LookupError):
        DeletionHandlerContract().test_who_is_erased_is_erased_again(Erasing(erase))


def test_a_handler_that_accepts_smaller_batches_is_detected() -> None:
    def erase(identities: Sequence[Identities]) -> None:
        if len(identities) > 50:
            raise OverflowError

    handler = DeletionHandler(name="x", implementation=Erasing(erase))
    with pytest.raises(OverflowError):
        DeletionHandlerContract().test_a_full_batch_is_erased(handler.implementation, handler)


@pytest.mark.parametrize("answer", [None, Done(), Refused("down"), Accepted(5)])
def test_a_handler_that_ignores_failures_is_detected(answer: Any) -> None:
    with pytest.raises(AssertionError, match="the other system has failed"):
        DeletionHandlerContract().test_what_fails_is_not_done(Erasing(lambda _: answer))
    with pytest.raises(AssertionError, match="the other system has failed"):
        DeletionHandlerContract().test_what_fails_is_not_done(Looking(SlowDown(5), answer))


@pytest.mark.parametrize("answer", [Refused("still there"), Accepted(5), {}])
def test_a_handler_that_verifies_incorrectly_is_detected(answer: Any) -> None:
    with pytest.raises(AssertionError, match=r"Accepted|Refused|TryLater"):
        DeletionHandlerContract().test_who_is_erased_is_verified(Looking(None, answer))


def test_a_handler_that_refuses_unknown_people_is_detected() -> None:
    with pytest.raises(AssertionError, match="answered with Refused"):
        DeletionHandlerContract().test_who_is_unknown_is_erased(Erasing(lambda _: Refused("unknown")))


def test_the_identities_are_those_that_the_service_gives(api: ApiClient, make_contact: Any) -> None:
    contact = make_contact()

    given = api.get(f"/identity/{contact['email']['email_id']}").json
    assert list(given) == list(stranger())


def test_a_fake_keeps_the_identities() -> None:
    fake, person = FakeDeletionHandler(), stranger()

    assert fake.erase([person, person]) is None
    assert fake.verify([person]) is None
    assert (fake.erased, fake.verified) == ([person, person], [person])
