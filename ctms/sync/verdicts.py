"""Verdicts for each contact after a call, derived from the outcome or the exception."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ctms.hooks.receivers import Accepted, Done, Outcome, Pause, Refused, SlowDown, TryLater
from ctms.sync.receiver_states import MAX_FAILURES_ALONE

MAX_BACKOFF_SECONDS = 3600.0
"""Maximum of the exponential backoff."""

_SHORTEST_ASKED_IN_SECONDS = 1.0
_LONGEST_ASKED_IN_SECONDS = 30 * 86400.0
_LONGEST_REASON = 200
_KINDS = (Done, TryLater, SlowDown, Refused, Accepted, Pause)


@dataclass(frozen=True)
class Finished:
    """Done: nothing is left to do."""


@dataclass(frozen=True)
class Later:
    """Retry after this many seconds; `counts` if it counts against the contact, `tried` if it was tried at all.

    `in_progress` if it is no failure: the other system is still processing an erasure.
    """

    seconds: float
    reason: str | None = None
    counts: bool = False
    tried: bool = True
    in_progress: bool = False


@dataclass(frozen=True)
class AskAgain:
    """The other system is processing it: ask after this many seconds."""

    seconds: float


@dataclass(frozen=True)
class Parked:
    """Not to be retried, for a reason."""

    reason: str


Verdict = Finished | Later | AskAgain | Parked


def back_off(attempts: int) -> float:
    """Return the delay after this many attempts, in seconds: exponential backoff with jitter."""
    return float(min(MAX_BACKOFF_SECONDS, 2.0 ** min(attempts, 12)) * random.uniform(0.75, 1.25))  # noqa: S311


def outcome_of(answer: Any, email_id: str) -> Outcome:
    """Return the outcome of a contact in the receiver's `answer`, with a limited delay.

    Raises `TypeError` for a value that is no outcome.
    """
    if answer is None:
        return Done()
    outcome = answer.get(email_id, TryLater(reason="not answered")) if isinstance(answer, Mapping) else answer
    if outcome is None:
        return Done()
    if not isinstance(outcome, _KINDS):
        raise TypeError(f"an outcome is not one {type(outcome).__name__}")
    if isinstance(outcome, SlowDown | Accepted) or (isinstance(outcome, TryLater) and outcome.after is not None):
        return replace(outcome, after=_asked(outcome.after))
    return outcome


def verdict_of(outcome: Outcome, attempts: int) -> Verdict:
    """Return the verdict for a contact that was tried `attempts` times before."""
    match outcome:
        case Refused(reason):
            return Parked(sanitize_reason(reason) or "refused")
        case TryLater(after, reason):
            delay = back_off(attempts) if after is None else after
            return Later(delay, sanitize_reason(reason), in_progress=is_in_progress(outcome))
        case SlowDown(_, reason) | Pause(reason):  # the breaker opens, for all contacts
            return Later(0, sanitize_reason(reason), tried=False)
        case Accepted(after):
            return AskAgain(after)
        case _:
            return Finished()


def is_in_progress(outcome: Outcome) -> bool:
    """Return whether an outcome of `verify` is no failure: a retry at a given time, or without a reason."""
    return isinstance(outcome, TryLater) and (outcome.after is not None or not sanitize_reason(outcome.reason))


def verdict_of_error(error: BaseException, attempts: int, failures: int) -> Verdict:
    """Return the verdict for a contact that alone made the receiver raise."""
    reason = f"raised {type(error).__name__}"
    if isinstance(error, OSError):
        return Later(back_off(attempts), reason)
    if failures + 1 >= MAX_FAILURES_ALONE:
        return Parked(reason)
    return Later(back_off(attempts), reason, counts=True)


def sanitize_reason(reason: str) -> str | None:
    """Return a reason that can be stored and shown: one short line, without anything like an address."""
    line = " ".join(str(reason).replace("\0", "").split())
    return re.sub(r"\S*@\S*", "…", line)[:_LONGEST_REASON] or None


def _asked(seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        raise TypeError("`after` is not a number of seconds")
    return min(max(float(seconds), _SHORTEST_ASKED_IN_SECONDS), _LONGEST_ASKED_IN_SECONDS)
