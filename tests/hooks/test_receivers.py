"""Declarations of backends and deletion handlers are validated; the selection of contacts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ctms.plugins import Backend, ContactState, DeletionHandler, RegistrationError
from ctms.testing import FakeBackend, FakeDeletionHandler


class Erasing:
    """Erases, and cannot look."""

    def erase(self, identities: Any) -> None:
        """Erase."""


def backend(**parts: Any) -> Backend:
    """Make a backend."""
    return Backend(**{"name": "mirror", "implementation": FakeBackend(), **parts})


def handler(**parts: Any) -> DeletionHandler:
    """Make a deletion handler."""
    return DeletionHandler(**{"name": "forgetter", "implementation": FakeDeletionHandler(), **parts})


BAD: dict[str, tuple[Callable[..., Any], dict[str, Any], str]] = {
    "name": (backend, {"name": "Mirror"}, "the name of a backend consists of lower-case letters.*not 'Mirror'"),
    "name of a handler": (handler, {"name": ""}, "the name of a deletion handler consists of"),
    "no batch": (backend, {"max_batch": 0}, "max_batch of a backend is from 1 to 10,000, not 0"),
    "half a contact": (backend, {"max_batch": 1.5}, "max_batch of a backend is from 1 to 10,000, not 1.5"),
    "true": (backend, {"max_batch": True}, "max_batch of a backend is from 1 to 10,000, not True"),
    "too large a batch": (handler, {"max_batch": 10_001}, "max_batch of a deletion handler is .* not 10001"),
    "too many lanes": (backend, {"concurrency": 33}, "concurrency of a backend is from 1 to 32, not 33"),
    "no time": (backend, {"timeout": 0}, "timeout of a backend is from 0.1 to 3,600, not 0"),
    "no number": (backend, {"timeout": float("nan")}, "timeout of a backend is from 0.1 to 3,600, not nan"),
    "text": (backend, {"rate": "5"}, "rate of a backend is from 0.001 to 100,000, not '5'"),
    "never": (handler, {"verify_after": -1}, "verify_after of a deletion handler is from 0 to 7,776,000, not -1"),
    "no push": (backend, {"implementation": Erasing()}, "push of a backend must be callable, not NoneType"),
    "no erase": (handler, {"implementation": FakeBackend()}, "erase of a deletion handler must be callable"),
    "one newsletter": (backend, {"newsletters": "weekly"}, "newsletters of a backend is a list of names, not 'weekly'"),
    "no waitlists": (backend, {"waitlists": [5]}, r"waitlists of a backend is a list of names, not \[5\]"),
    "wants": (backend, {"wants": ["weekly"]}, "wants of a backend must be callable, not list"),
}


@pytest.mark.parametrize(("make", "parts", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_is_refused(make: Callable[..., Any], parts: dict[str, Any], said: str) -> None:
    with pytest.raises(RegistrationError, match=said):
        make(**parts)


def test_valid_values_are_accepted() -> None:
    made = backend(max_batch=10_000, concurrency=32, rate=0.5, timeout=3600)

    assert list(made.lanes) == list(range(32))
    assert not made.selects
    assert handler(verify_after=90 * 86400).verifies
    assert not handler(implementation=Erasing()).verifies


DOCUMENT = {
    "email": {"mailing_country": "ca"},
    "newsletters": [{"name": "weekly", "subscribed": True}, {"name": "monthly", "subscribed": False}],
    "waitlists": [{"name": "vpn", "subscribed": True}],
}

WANTS: dict[str, tuple[dict[str, Any], bool]] = {
    "everybody": ({}, True),
    "a subscriber": ({"newsletters": ["weekly", "daily"]}, True),
    "who has unsubscribed": ({"newsletters": ["monthly"]}, False),
    "who waits": ({"waitlists": ["vpn"]}, True),
    "who waits for another": ({"newsletters": ["weekly"], "waitlists": ["relay"]}, False),
    "by the document": ({"wants": lambda document: document["email"]["mailing_country"] == "ca"}, True),
    "by nothing": ({"waitlists": ["vpn"], "wants": lambda _: 0}, False),
}


@pytest.mark.parametrize(("parts", "wanted"), WANTS.values(), ids=WANTS)
def test_a_backend_wants(parts: dict[str, Any], wanted: bool) -> None:
    made = backend(**parts)

    assert made.selects is bool(parts)
    assert made.is_for(DOCUMENT) is wanted


def test_a_state_is_gone_without_a_document() -> None:
    assert ContactState("id", None).gone
    assert not ContactState("id", {}).gone
