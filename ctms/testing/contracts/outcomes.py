"""Assertions about the outcomes of backends and deletion handlers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ctms.hooks.receivers import Accepted, Done, Outcome, Pause, Refused, SlowDown, TryLater
from ctms.words import counted


def outcomes_of(answer: Any, email_ids: Iterable[str], *kinds: type[Outcome]) -> dict[str, Outcome]:
    """Return the outcome of each contact. Fails for an outcome that is not of these types, or of an unknown contact.

    A contact that a mapping does not name is retried later.
    """
    asked = list(dict.fromkeys(email_ids))
    if not isinstance(answer, Mapping):
        return dict.fromkeys(asked, _outcome(answer, kinds))
    strangers = len(set(answer) - set(asked))
    assert not strangers, f"the answer names {counted(strangers, 'contact')} that nobody asked about"
    return {one: _outcome(answer.get(one, TryLater()), kinds) for one in asked}


def assert_done(answer: Any, email_ids: Iterable[str], *kinds: type[Outcome]) -> None:
    """Assert that all contacts are done."""
    found = outcomes_of(answer, email_ids, *kinds)
    others = {type(outcome).__name__ for outcome in found.values() if not isinstance(outcome, Done)}
    assert not others, f"this should have been done, and is answered with {', '.join(sorted(others))}"


def assert_kept(answer: Any, email_ids: Iterable[str]) -> None:
    """Assert that no contact is done or refused."""
    found = outcomes_of(answer, email_ids, TryLater, SlowDown, Pause, Done, Refused, Accepted)
    lost = {
        type(outcome).__name__ for outcome in found.values() if not isinstance(outcome, TryLater | SlowDown | Pause)
    }
    assert not lost, f"the other system has failed, and the answer is {', '.join(sorted(lost))}"


def _outcome(given: Any, kinds: tuple[type[Outcome], ...]) -> Outcome:
    if given is None:
        return Done()
    names = ", ".join(kind.__name__ for kind in kinds)
    assert isinstance(given, kinds), f"an outcome is one of {names}, not {type(given).__name__}"
    outcome: Outcome = given
    if isinstance(outcome, SlowDown | Accepted) or (isinstance(outcome, TryLater) and outcome.after is not None):
        after = outcome.after
        assert isinstance(after, int | float), f"`after` is a number of seconds, not {type(after).__name__}"
        assert after >= 0, "`after` is 0 seconds or more"
    if isinstance(outcome, Refused | Pause):
        assert isinstance(outcome.reason, str), "a reason is text"
        assert outcome.reason.strip(), "a reason says something"
        assert "@" not in outcome.reason, "a reason names no person"
    return outcome
