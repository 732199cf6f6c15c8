"""Calls about several contacts, and their outcomes for each contact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctms.plugins import Done, Outcome, Refused, TryLater
from ctms_plugins.braze.client import BrazeClient, BrazeResponse

MAX_IDS = 50
"""Maximum number of identifiers in a call of `/users/delete` or `/users/export/ids`."""


class BrazeBatchRefused(Exception):
    """Braze refuses a call without naming a contact. The batch is to be bisected, since one may be faulty."""


def post(client: BrazeClient, path: str, body: Mapping[str, Any], count: int) -> BrazeResponse | Outcome:
    """Return Braze's response to a call about `count` contacts, or an outcome. Raises `BrazeBatchRefused`."""
    try:
        answer = client.post(path, body)
    except OSError as error:
        return TryLater(reason=f"no response ({type(error).__name__})")
    if isinstance(answer, Refused) and count > 1:
        raise BrazeBatchRefused(answer.reason)
    return answer


def outcomes_of(answer: BrazeResponse, count: int) -> list[Outcome]:
    """Return the outcomes of a response for each of the `count` entries that were sent. Raises `BrazeBatchRefused`."""
    taken = answer.status < 400
    errors = answer.errors()
    at_fault = {index: what for index, what in errors.items() if index is not None and 0 <= index < count}
    if len(at_fault) < len(errors) or not (taken or errors):
        # Something is wrong, but no entry is named.
        if count > 1:
            raise BrazeBatchRefused(answer.reason)
        return [Refused(answer.reason)] * count
    others: Outcome = Done() if taken else TryLater(1, "sent together with refused entries")
    return [Refused(f"Braze: {at_fault[index]}") if index in at_fault else others for index in range(count)]


def parts(things: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    """Yield the items in chunks of `size`."""
    for start in range(0, len(things), size):
        yield things[start : start + size]
