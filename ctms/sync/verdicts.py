"""What becomes of each contact after a call: what the receiver answered, or raised, put into one form."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ctms.hooks.receivers import Accepted, Done, Outcome, Pause, Refused, SlowDown, TryLater
from ctms.sync.receiver_states import MAX_FAILURES_ALONE

LONGEST_WAIT_IN_SECONDS = 3600.0
"""What is tried again waits longer each time, up to this."""

_SHORTEST_ASKED_IN_SECONDS = 1.0
_LONGEST_ASKED_IN_SECONDS = 30 * 86400.0
_LONGEST_REASON = 200
_KINDS = (Done, TryLater, SlowDown, Refused, Accepted, Pause)


@dataclass(frozen=True)
class Finished:
    """Nothing more to do."""


@dataclass(frozen=True)
class Later:
    """Try again in so many seconds; `counts` if it is held against the contact, `tried` if it was tried at all."""

    seconds: float
    reason: str | None = None
    counts: bool = False
    tried: bool = True


@dataclass(frozen=True)
class AskAgain:
    """The other system works on it: ask in so many seconds."""

    seconds: float


@dataclass(frozen=True)
class Parked:
    """Not to be tried any more, for a reason."""

    reason: str


Verdict = Finished | Later | AskAgain | Parked


def back_off(attempts: int) -> float:
    """Return how long to wait after so many tries, in seconds: twice as long each time, spread out by chance."""
    return float(min(LONGEST_WAIT_IN_SECONDS, 2.0 ** min(attempts, 12)) * random.uniform(0.75, 1.25))  # noqa: S311


def outcome_of(answer: Any, email_id: str) -> Outcome:
    """Return what the receiver's `answer` says of a contact, with a time that can be kept to.

    Raises `TypeError` for what is none of the outcomes.
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
    """Return what becomes of a contact that was tried `attempts` times before."""
    match outcome:
        case Refused(reason):
            return Parked(readable(reason) or "refused")
        case TryLater(after, reason):
            return Later(back_off(attempts) if after is None else after, readable(reason))
        case SlowDown(_, reason) | Pause(reason):  # the breaker opens, for all contacts
            return Later(0, readable(reason), tried=False)
        case Accepted(after):
            return AskAgain(after)
        case _:
            return Finished()


def verdict_of_error(error: BaseException, attempts: int, failures: int) -> Verdict:
    """Return what becomes of a contact that made the receiver raise, alone."""
    reason = f"raised {type(error).__name__}"
    if isinstance(error, OSError):
        return Later(back_off(attempts), reason)
    if failures + 1 >= MAX_FAILURES_ALONE:
        return Parked(reason)
    return Later(back_off(attempts), reason, counts=True)


def readable(reason: str) -> str | None:
    """Return a reason as it may be stored and shown: one short line, without anything like an address."""
    line = " ".join(str(reason).replace("\0", "").split())
    return re.sub(r"\S*@\S*", "…", line)[:_LONGEST_REASON] or None


def _asked(seconds: Any) -> float:
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or math.isnan(seconds):
        raise TypeError("`after` is not a number of seconds")
    return min(max(float(seconds), _SHORTEST_ASKED_IN_SECONDS), _LONGEST_ASKED_IN_SECONDS)
