"""Random batches have the results, the contacts and the history of the same requests one by one."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from ctms.database import pool
from ctms.suppression.fingerprints import fingerprints
from ctms.suppression.suppressions import suppress
from tests.batches.oracle import PEOPLE, find, identity, one_by_one, random_items, state
from tests.http import ApiClient

SIZE = 20
EVENT = ("kind", "name", "action", "subscribed", "source", "reason", "evidence")


def contacts_of(api: ApiClient, tag: str) -> Any:
    """Return the contacts of a population with their events, without the tag, times and generated ids."""
    found = []
    for person in range(PEOPLE):
        for document in find(api, "primary_email", identity(tag, "primary_email", person)):
            email_id = document["email"]["email_id"]
            history = api.get(f"/ctms/{email_id}/history?limit=1000").json["items"]
            # Those of one request are in no order.
            events = sorted(json.dumps({name: one[name] for name in EVENT}) for one in history)
            shown = state(document)
            if not email_id.startswith(tag):
                shown["email"]["email_id"] = "generated"
            found.append((shown, events))
    return json.loads(re.sub(tag, "TAG", json.dumps(found), flags=re.IGNORECASE))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.usefixtures("erasure_key")
def test_a_batch_is_like_single_requests(api: ApiClient, seed: int) -> None:
    batch, single = f"aa{seed:02d}", f"bb{seed:02d}"
    with pool.writing() as connection:
        for tag in (batch, single):
            suppress(connection, fingerprints().all_of(f"suppressed-{tag}@example.com"), "command")

    for number in range(3):
        items = random_items(batch, seed * 100 + number, SIZE)
        answer = api.post("/ctms/batch", {"items": items})
        assert answer.status_code == 207, answer.text
        results = answer.json["items"]
        expected = one_by_one(api, random_items(single, seed * 100 + number, SIZE))
        wrong = [
            (item, result, status)
            for item, result, status in zip(items, results, expected, strict=True)
            if result["status"] != status
        ]
        assert wrong == []

    assert contacts_of(api, batch) == contacts_of(api, single)
