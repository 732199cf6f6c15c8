"""A follower of events: it rebuilds the subscriptions of contacts, and compares them with the tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

Subscriptions = dict[tuple[str, str | None], bool]
"""The state of each newsletter and waitlist, and of the consents of a contact, by kind and name."""


def replay(events: Iterable[Mapping[str, Any]]) -> dict[str, Subscriptions]:
    """Return the subscriptions of each contact, as its events in their order give them."""
    found: dict[str, Subscriptions] = defaultdict(dict)
    # The events of a merged contact interleave with those of the other; each contact has a line of events of its own.
    lines: dict[tuple[str, str], Subscriptions] = defaultdict(dict)
    for event in events:
        apply(found[event["email_id"]], event)
        check(event, apply(lines[event["email_id"], event["merged_from"] or event["email_id"]], event))
    return {email_id: normal(state) for email_id, state in found.items()}


def apply(state: Subscriptions, event: Mapping[str, Any]) -> bool | None:
    """Apply the event to the subscriptions, and return the state before, None if there was none."""
    key = (event["kind"], event["name"])
    before = state.pop(key, None)
    if event["subscribed"] is not None:
        state[key] = event["subscribed"]
    return before


def check(event: Mapping[str, Any], before: bool | None) -> None:
    """Check that the action fits the states before and after the event."""
    after = event["subscribed"]
    initial = {"global_opt_out": True, "double_opt_in": False}.get(event["kind"])
    is_merge = "merged_from" in (event["evidence"] or {})
    match event["action"]:
        case "subscribed":
            assert after is True
            assert before is not True or event["kind"] == "global_opt_out"
        case "unsubscribed":
            assert not after
            assert before is not False or event["kind"] == "double_opt_in"
        case "changed":
            assert before is not None or is_merge
            assert after in {before, None} or before is None
        case "baseline":
            assert before is None
            assert after is not initial


def normal(state: Subscriptions) -> Subscriptions:
    """Omit consents that are as they are without an event."""
    initial = {("global_opt_out", True), ("double_opt_in", False)}
    return {key: value for key, value in state.items() if (key[0], value) not in initial}


def subscriptions(document: Mapping[str, Any]) -> Subscriptions:
    """Return the subscriptions in the document of a contact."""
    state: Subscriptions = {
        (kind, entry["name"]): entry["subscribed"]
        for kind, member in (("newsletter", "newsletters"), ("waitlist", "waitlists"))
        for entry in document[member]
    }
    if document["email"]["has_opted_out_of_email"]:
        state["global_opt_out", None] = False
    if document["email"]["double_opt_in"]:
        state["double_opt_in", None] = True
    return state
