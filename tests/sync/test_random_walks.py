"""Whatever happens in any order, the other system finally has the same data as the API."""

from __future__ import annotations

import random
from typing import Any
from uuid import UUID

import pytest

from ctms.database import pool
from ctms.plugins import Done, Pause, Refused, SlowDown, TryLater
from ctms.sync import parked as parking
from ctms.testing import ApiClient
from tests.sync.working import Other, Worker, parked, row, rows, time_passes, waiting

OPTIONS: dict[str, Any] = {"max_batch": 3, "concurrency": 2}
ERRORS = (ValueError, ConnectionResetError, RuntimeError, TimeoutError)


class Walk:
    """Takes chance steps, from a seed."""

    def __init__(self, seed: int, other: Other, worker: Worker, api: ApiClient, options: dict[str, Any]) -> None:
        self.chance = random.Random(seed)  # noqa: S311  the same walk each time
        self.other = other
        self.worker = worker
        self.api = api
        self.options = {**OPTIONS, **options}
        self.contacts: dict[str, str] = {}
        self.deleted: dict[str, str] = {}
        self.merged: set[str] = set()
        other.answer = self.answer

    def step(self) -> None:
        """Do something."""
        steps = {
            self.make: 2,
            self.edit: 5,
            self.subscribe: 1,
            self.delete: 1,
            self.merge: 1,
            self.bring_back: 1,
            self.work: 6,
            time_passes: 1,
            self.retry: 1,
        }
        self.chance.choices(list(steps), list(steps.values()))[0]()

    def make(self) -> None:
        address = f"walk-{len(self.contacts)}-{self.chance.random()}@example.com"
        email_id = str(UUID(int=self.chance.getrandbits(128), version=4))
        email = {"primary_email": address, "email_id": email_id}
        assert self.api.post("/ctms", {"email": email, "newsletters": [{"name": "hubs"}]}).status_code == 201
        self.contacts[email_id] = address

    def edit(self) -> None:
        if self.contacts:
            email_id = self.chance.choice(list(self.contacts))
            self.api.patch(f"/ctms/{email_id}", {"email": {"first_name": str(self.chance.random())}})

    def subscribe(self) -> None:
        if self.contacts:
            email_id = self.chance.choice(list(self.contacts))
            entry = {"name": "hubs", "subscribed": self.chance.random() < 0.5}
            self.api.patch(f"/ctms/{email_id}", {"newsletters": [entry]})

    def delete(self) -> None:
        if self.contacts:
            email_id = self.chance.choice(list(self.contacts))
            address = self.contacts.pop(email_id)
            assert self.api.delete(f"/ctms/{address}").status_code == 200
            self.deleted[email_id] = address

    def merge(self) -> None:
        if len(self.contacts) > 1:
            target, source = self.chance.sample(list(self.contacts), 2)
            assert self.api.post(f"/ctms/{target}/merge", {"from": source}).status_code == 200
            self.deleted[source] = self.contacts.pop(source)
            if source in self.other.copies and source not in self.other.gone:
                self.merged.add(source)

    def bring_back(self) -> None:
        if self.deleted:
            email_id = self.chance.choice(list(self.deleted))
            address = self.contacts[email_id] = self.deleted.pop(email_id)
            email = {"primary_email": address, "email_id": email_id, "first_name": "Back"}
            body = {"email": email, "newsletters": [{"name": "hubs"}]}
            assert self.api.put(f"/ctms/{email_id}", body).status_code == 201

    def work(self) -> None:
        self.worker.push(lane=self.chance.randrange(2), **self.options)

    def retry(self) -> None:
        with pool.acquire() as connection:
            assert sum(parking.retry(connection, "other")) >= 0
        rows("UPDATE receivers SET paused_at = NULL")

    def answer(self, contacts: Any) -> Any:
        """Answer anything, and sometimes let the contacts change meanwhile."""
        if self.chance.random() < 0.3:
            self.chance.choice([self.edit, self.edit, self.delete, self.merge, self.bring_back])()
        luck = self.chance.random()
        if luck < 0.5:
            return None
        if luck < 0.65:
            raise self.chance.choice(ERRORS)
        if luck < 0.7:
            return self.chance.choice([SlowDown(5), Pause("stop"), TryLater(), "what?"])
        outcomes = [Done(), None, TryLater(2), TryLater(), Refused("no")]
        return {one.email_id: self.chance.choice(outcomes) for one in contacts if self.chance.random() < 0.9}

    def finish(self) -> None:
        """Let all calls succeed from now on, and drain everything."""
        self.other.answer = lambda _: None
        self.retry()
        for _ in range(6):
            time_passes()
            for lane in range(2):
                self.worker.push(lane=lane, **self.options)
        assert waiting() == []
        assert parked() == {}
        assert row("SELECT count(*) FROM erasure_deletions") == 0
        assert rows("SELECT erasure_id FROM erasure_backends WHERE pending <> 0 OR parked <> 0 OR done < 1") == []
        assert self.merged <= set(self.other.gone)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [{}, {"newsletters": ["hubs"]}], ids=["all", "some"])
def test_the_copy_is_true_at_the_end(
    other: Other, worker: Worker, api: ApiClient, seed: int, options: dict[str, Any]
) -> None:
    walk = Walk(seed, other, worker, api, options)

    for _ in range(70):
        walk.step()
    walk.finish()

    true = {email_id: api.get(f"/ctms/{email_id}").json for email_id in walk.contacts}
    if options:
        true = {key: one for key, one in true.items() if any(entry["subscribed"] for entry in one["newsletters"])}
        assert row("SELECT count(*) FROM outbox_mirrored") == len(true)
    assert other.copies == true
