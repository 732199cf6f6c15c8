"""The contract of declared newsletters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import pytest
from flask import Flask

from ctms.contacts.newsletter_rules import NewsletterRegistry
from ctms.hooks.manager import Plugins
from ctms.hooks.registrations import Newsletter
from ctms.testing.contacts import contact_body
from ctms.testing.contracts.declared import declared
from ctms.testing.http import ApiClient, assert_error


class NewsletterContract:
    """A contract to subclass for a newsletter that a plugin declares under `slug`."""

    slug: ClassVar[str]

    @pytest.fixture
    def newsletter(self, app: Flask) -> Newsletter:
        """Return the declaration."""
        found: Newsletter = declared(app, "ctms_newsletters", self.slug)
        return found

    @pytest.fixture
    def enforced(self, app: Flask) -> Iterator[None]:
        """Run the test as with `CTMS_NEWSLETTERS=enforce`."""
        plugins: Plugins = app.extensions["ctms.plugins"]
        registry = NewsletterRegistry(plugins.collect("ctms_newsletters"), "enforce")
        with pytest.MonkeyPatch.context() as patches:
            patches.setitem(app.extensions, "ctms.newsletter_registry", registry)
            yield

    def test_it_is_declared(self, newsletter: Newsletter) -> None:
        """Find the declaration, with a title."""
        assert isinstance(newsletter, Newsletter)
        assert newsletter.title.strip()

    def test_it_is_listed(self, newsletter: Newsletter, api: ApiClient) -> None:
        """List it in `GET /newsletters`, as front ends read it."""
        (listed,) = [one for one in api.get("/newsletters").json if one["slug"] == newsletter.slug]
        assert listed["title"] == newsletter.title
        assert listed["languages"] == list(newsletter.languages)
        assert listed["active"] is newsletter.active
        assert listed["requires_double_opt_in"] is newsletter.requires_double_opt_in
        assert listed["vendor_ids"] == dict(newsletter.vendor_ids)

    @pytest.mark.usefixtures("enforced")
    def test_only_an_active_one_takes_new_subscriptions(self, newsletter: Newsletter, api: ApiClient) -> None:
        """Accept a subscription in each of its languages if it is active, else none, while the rule is enforced."""
        for lang in newsletter.languages or ("en",):
            entry = {"name": newsletter.slug, "lang": lang}
            answer = api.post("/ctms", contact_body(newsletters=[entry]))
            if newsletter.active:
                assert answer.status_code == 201, answer.text
                assert [(one["name"], one["lang"]) for one in answer.json["newsletters"]] == [(newsletter.slug, lang)]
            else:
                assert_error(answer, 422, at=[["body", "newsletters", 0, "name"]])

    @pytest.mark.usefixtures("enforced")
    def test_a_stored_subscription_can_be_kept_and_ended(
        self, newsletter: Newsletter, api: ApiClient, make_contact: Callable[..., dict[str, Any]], app: Flask
    ) -> None:
        """Accept the same subscription again, and its end, even if the newsletter is retired."""
        with pytest.MonkeyPatch.context() as patches:
            patches.setitem(app.extensions, "ctms.newsletter_registry", NewsletterRegistry([]))
            stored = make_contact(newsletters=[{"name": newsletter.slug}])
        path = f"/ctms/{stored['email']['email_id']}"
        assert api.put(path, stored).status_code == 201
        left = api.patch(path, {"newsletters": [{"name": newsletter.slug, "subscribed": False}]})
        assert [one["subscribed"] for one in left.json["newsletters"]] == [False]
