"""The rule for new subscriptions: only to newsletters that plugins declare, and that are active.

`CTMS_NEWSLETTERS` turns it on. A stored subscription may be kept, changed and unsubscribed, even if its newsletter is
retired or unknown. A merge and an opt-out are no new subscriptions, so they do not use this module.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any
from uuid import UUID

import marshmallow as ma
from flask import Flask

from ctms.contacts import statements
from ctms.contacts.fields import Message
from ctms.current import extension
from ctms.database.pool import Connection, Cursor
from ctms.errors import SettingsError
from ctms.hooks.plugin import Registered
from ctms.hooks.registrations import Newsletter
from ctms.settings import NewslettersMode

logger = logging.getLogger(__name__)

Values = Mapping[str, Any]
Entries = Sequence[Values] | str | None

# Of a slug from a client only this form is logged: other text may be anything, such as an address.
_LOGGED = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)


class SubscriptionFault(StrEnum):
    """Why a newsletter takes no new subscriptions: the values of the metric's label `cause`."""

    UNKNOWN = "unknown"
    RETIRED = "retired"


_MESSAGES = {
    SubscriptionFault.UNKNOWN: Message("Newsletter should be one of GET /newsletters", "newsletter_unknown"),
    SubscriptionFault.RETIRED: Message("Newsletter is retired and takes no new subscriptions", "newsletter_retired"),
}

FaultCounter = Callable[[SubscriptionFault, bool], None]
"""Counts a new subscription to a newsletter that takes none, and whether it is refused."""


def no_counter(_fault: SubscriptionFault, _refused: bool) -> None:
    """Count nothing."""


class NewsletterRegistry:
    """The newsletters that plugins declare, by slug, and the rule for new subscriptions, as `CTMS_NEWSLETTERS` sets it.

    A writer calls `suspects`, which needs no database and is usually empty. Only if it is not, the writer reads what is
    stored of them, and calls `check`.
    """

    def __init__(
        self,
        declared: Sequence[Registered[Newsletter]],
        mode: NewslettersMode = "off",
        count: FaultCounter = no_counter,
    ) -> None:
        self.declared = tuple(sorted(declared, key=lambda one: one.value.slug))
        self._is_off = mode == "off"
        self._refuses = mode == "enforce"
        self._count = count
        self._is_active = {one.value.slug: one.value.active for one in self.declared}

    def suspects(self, entries: Entries) -> list[str]:
        """Return the names of the entries, as a schema loaded them, that are refused if the subscription is new."""
        return [entry["name"] for _, entry, _ in self._suspects(entries)]

    def check(self, entries: Entries, stored: Mapping[str, bool]) -> dict[int, Message]:
        """Return a message for each entry that is refused, by index.

        `stored` has, for the suspects, whether the stored subscription of that name is active. With
        `CTMS_NEWSLETTERS=warn` nothing is refused, only logged. New subscriptions are counted in either mode.
        """
        refused = {}
        for index, entry, fault in self._suspects(entries):
            if not _is_new(entry, stored.get(entry["name"])):
                continue
            self._count(fault, self._refuses)
            if self._refuses:
                refused[index] = _MESSAGES[fault]
            else:
                _log(entry["name"], fault)
        return refused

    def _suspects(self, entries: Entries) -> Iterator[tuple[int, Values, SubscriptionFault]]:
        if self._is_off or not entries or isinstance(entries, str):
            return
        for index, entry in enumerate(entries):
            if entry.get("subscribed", True) and not (active := self._is_active.get(entry["name"])):
                yield index, entry, SubscriptionFault.UNKNOWN if active is None else SubscriptionFault.RETIRED


def _is_new(entry: Values, stored: bool | None) -> bool:
    """Return whether an entry subscribes who is not; a stored entry that it only changes stays unsubscribed."""
    return stored is None or (not stored and entry.get("subscribed") is True)


def _log(name: str, fault: SubscriptionFault) -> None:
    shown = name if fault is SubscriptionFault.RETIRED or _LOGGED.fullmatch(name) else "(not shown)"
    extra = {"newsletter": shown, "cause": fault.value}
    logger.warning("new subscription to a newsletter that is %s: %s", fault.value, shown, extra=extra)


class SubscriptionCheck:
    """A check of the newsletters in a write to a contact that may exist; in pipeline mode it costs no round trip.

    Create it before the write changes the contact, and after `SuppressionCheck`: it locks the contact if it has to read
    what is stored.
    """

    def __init__(self, connection: Connection, email_id: UUID, entries: Entries) -> None:
        self._entries = entries
        self._stored: Cursor | None = None
        suspects = newsletter_registry().suspects(entries)
        if suspects:
            connection.execute(statements.LOCK, (email_id,))
            self._stored = connection.execute(statements.NEWSLETTER_STATES, (email_id, suspects))

    def raise_if_refused(self) -> None:
        """Raise `marshmallow.ValidationError` when an entry is a new subscription that is refused."""
        if self._stored is not None:
            check_subscriptions(self._entries, dict(self._stored.fetchall()))


def check_subscriptions(entries: Entries, stored: Mapping[str, bool]) -> None:
    """Raise `marshmallow.ValidationError` when `NewsletterRegistry.check` refuses an entry."""
    refused = newsletter_registry().check(entries, stored)
    if refused:
        raise ma.ValidationError({"newsletters": {index: {"name": [message]} for index, message in refused.items()}})


def init_newsletter_registry(
    app: Flask, declared: Sequence[Registered[Newsletter]], mode: NewslettersMode, count: FaultCounter = no_counter
) -> None:
    """Register the newsletters with the app. Raises `SettingsError` if every new subscription would be refused."""
    if mode == "enforce" and not declared:
        raise SettingsError(
            "CTMS_NEWSLETTERS is enforce, but no plugin declares newsletters, so every new subscription would be"
            " refused: declare them, or set it to warn or off"
        )
    app.extensions["ctms.newsletter_registry"] = NewsletterRegistry(declared, mode, count)


def newsletter_registry() -> NewsletterRegistry:
    """Return the newsletters of the current app."""
    found: NewsletterRegistry = extension("ctms.newsletter_registry")
    return found
