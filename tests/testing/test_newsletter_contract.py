"""The contract of newsletters passes for good declarations, and detects violations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask

from ctms.plugins import Newsletter, hookimpl
from ctms.testing import ApiClient, NewsletterContract


class News:
    """A plugin with an active and a retired newsletter."""

    @hookimpl
    def ctms_newsletters(self) -> Iterator[Newsletter]:
        """Declare the newsletters."""
        yield Newsletter(slug="weekly", title="The weekly", languages=["en", "pt-BR"], vendor_ids={"braze": "7f"})
        yield Newsletter(slug="old", title="Old news", active=False)


NEWS = News()


@pytest.fixture
def ctms_plugins() -> list[object]:
    return [NEWS]


class TestWeekly(NewsletterContract):
    """An active newsletter."""

    slug = "weekly"


class TestOld(NewsletterContract):
    """A retired newsletter."""

    slug = "old"


def test_a_newsletter_must_be_declared(app: Flask) -> None:
    class Missing(NewsletterContract):
        slug = "monthly"

    find = Missing.newsletter.__wrapped__  # type: ignore[attr-defined]
    with pytest.raises(pytest.fail.Exception, match="no plugin registers 'monthly' with ctms_newsletters"):
        find(Missing(), app)


def test_a_wrong_state_is_found(app: Flask, api: ApiClient, make_contact: Callable[..., dict[str, Any]]) -> None:
    """The app declares it active, and the contract is given a retired one: the two cannot both pass."""
    contract = TestWeekly()
    other = Newsletter(slug="weekly", title="The weekly", active=False)
    enforced = TestWeekly.enforced.__wrapped__(contract, app)  # type: ignore[attr-defined]
    next(enforced)

    with pytest.raises(AssertionError):
        contract.test_it_is_listed(other, api)
    with pytest.raises(AssertionError):
        contract.test_only_an_active_one_takes_new_subscriptions(other, api)
    assert next(enforced, None) is None
    contract.test_a_stored_subscription_can_be_kept_and_ended(other, api, make_contact, app)
