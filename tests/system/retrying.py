"""Clients that repeat requests as the documentation says, record acknowledged writes, and follow `/updates`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import requests

from tests.waiting import wait_until

CLIENTS = 3
PAUSE_IN_SECONDS = 0.1
MAX_SECONDS = 60
"""The time within which a request must succeed, with its repetitions."""
REQUEST_TIMEOUT_IN_SECONDS = 15
NEWSLETTER = "first"


@dataclass
class Written:
    """The contacts whose writes were acknowledged: the first name and the newsletters of each, and the deleted ones."""

    contacts: dict[str, tuple[str | None, set[str]]] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)

    def add(self, other: Written) -> None:
        """Add those of another client."""
        self.contacts.update(other.contacts)
        self.deleted.update(other.deleted)


class RetryingSession:
    """Sends requests until they have a response that is not a failure of the service."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        is_repeatable: bool = True,
    ) -> requests.Response | None:
        """Return the response; None if the request failed, may have had an effect, and must not be repeated."""
        give_up = time.monotonic() + MAX_SECONDS
        while True:
            try:
                answer = self._session.request(
                    method, self._url + path, json=body, headers=headers, timeout=REQUEST_TIMEOUT_IN_SECONDS
                )
            except requests.RequestException as error:
                failure = f"{method}: {type(error).__name__}"
            else:
                if answer.status_code not in {502, 503, 504}:
                    return answer
                failure = f"{method}: {answer.status_code} {answer.text}"
            if not is_repeatable:
                return None
            assert time.monotonic() < give_up, failure
            time.sleep(PAUSE_IN_SECONDS)


class RetryingClient:
    """A client of the API: it creates, changes, reads, finds and deletes contacts of its own."""

    def __init__(self, url: str, token: str, name: str) -> None:
        self.written = Written()
        self.rounds = 0
        self.session = RetryingSession(url, token)
        self._name = name
        self._doomed: list[str] = []

    def run(self) -> None:
        """Send the requests of a round."""
        name = f"{self._name}-{self.rounds}"
        email_id = str(uuid4())
        self._create(email_id)
        self._change(email_id, name)
        self._batch(name)
        found = self._expect("GET", f"/ctms/{email_id}", 200)
        assert found["email"]["first_name"] == name
        search = {"filter": {"newsletters": {"name": name}}, "fields": ["email"]}
        found = self._expect("POST", "/ctms/search", 200, search)
        assert [one["email"]["email_id"] for one in found["items"]] == [email_id]
        if self.rounds % 3 == 0:
            self._delete(email_id)
        self.rounds += 1

    def _create(self, email_id: str) -> None:
        """Create a contact with an id of the client's: repeated, it is the same contact."""
        body = {
            "email": {"email_id": email_id, "primary_email": f"{email_id}@example.com"},
            "newsletters": [{"name": NEWSLETTER}],
        }
        answer = self._send("POST", "/ctms", body)
        assert answer.status_code in {200, 201}, answer.text
        self.written.contacts[email_id] = (None, {NEWSLETTER})

    def _change(self, email_id: str, name: str) -> None:
        """Change it only if nobody has: if the response is lost, a look shows whether the change was stored."""
        path = f"/ctms/{email_id}"
        change = {"email": {"first_name": name}, "newsletters": [{"name": name}]}
        give_up = time.monotonic() + MAX_SECONDS
        while True:
            read = self._send("GET", path)
            assert read.status_code == 200, read.text
            if read.json()["email"]["first_name"] == name:
                break
            tag = {"If-Match": read.headers["ETag"]}
            answer = self.session.send("PATCH", path, change, headers=tag, is_repeatable=False)
            if answer is None:
                assert time.monotonic() < give_up
                time.sleep(PAUSE_IN_SECONDS)
            else:
                assert answer.status_code in {200, 412}, answer.text
        self.written.contacts[email_id] = (name, {NEWSLETTER, name})

    def _batch(self, name: str) -> None:
        """Create contacts in a batch: with its key it is written once, however often it is sent."""
        items = [
            {
                "match": {"primary_email": f"{name}-{number}@example.com"},
                "contact": {"newsletters": [{"name": "batch"}]},
            }
            for number in range(3)
        ]
        answer = self._send("POST", "/ctms/batch", {"items": items}, {"Idempotency-Key": str(uuid4())})
        assert answer.status_code == 207, answer.text
        for result in answer.json()["items"]:
            assert result["status"] == "created", answer.text
            self.written.contacts[result["email_id"]] = (None, {"batch"})

    def _delete(self, email_id: str) -> None:
        answer = self._send("DELETE", f"/ctms/{email_id}@example.com")
        assert answer.status_code in {200, 404}, answer.text  # 404 if the first response was lost
        del self.written.contacts[email_id]
        self.written.deleted.add(email_id)

    def _expect(self, method: str, path: str, status: int, body: Any = None) -> Any:
        answer = self._send(method, path, body)
        assert answer.status_code == status, answer.text
        return answer.json()

    def _send(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> requests.Response:
        answer = self.session.send(method, path, body, headers=headers)
        assert answer is not None
        return answer


class Follower:
    """A client that keeps a copy of all contacts by `/updates`, which may be read from the replica."""

    def __init__(self, url: str, token: str) -> None:
        self.copy: dict[str, Any] = {}
        self.deleted: list[str] = []
        self.rounds = 0
        self.session = RetryingSession(url, token)
        self._start = "2020-01-01"

    def run(self) -> None:
        """Walk through the changes since the last walk."""
        query = {"start": self._start, "limit": "20", "stale_ok": "true"}
        if self.rounds:  # the first walk copies all contacts
            query["deleted"] = "true"
        path: str | None = f"/updates?{urlencode(query)}"
        while path is not None:
            answer = self.session.send("GET", path)
            assert answer is not None
            assert answer.status_code == 200, answer.text
            page = answer.json()
            self.copy.update({one["email"]["email_id"]: one for one in page["items"]})
            for one in page.get("deleted", []):
                self.copy.pop(one["email_id"], None)
                self.deleted.append(one["email_id"])
            self._start = page["end"]
            path = page["next"] and f"/updates?{urlsplit(page['next']).query}"
        self.rounds += 1


class RetryingLoad:
    """The clients and the follower, each in a thread of its own."""

    def __init__(self, url: str, token: str) -> None:
        self.clients = [RetryingClient(url, token, f"client{number}") for number in range(CLIENTS)]
        self.follower = Follower(url, token)
        self._running: list[RetryingClient | Follower] = [*self.clients, self.follower]
        self.failures: list[Exception] = []
        self._ended = Event()
        self._threads = [Thread(target=self._run, args=[one]) for one in self._running]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads after their rounds."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def close(self) -> None:
        """Close the connections."""
        for one in self._running:
            one.session.close()

    def wait_for_more(self, rounds: int = 2) -> None:
        """Wait until each has made so many more rounds: requests get through."""
        wanted = [one.rounds + rounds for one in self._running]
        wait_until(lambda: self.failures or all(one.rounds >= n for one, n in zip(self._running, wanted, strict=True)))
        self.check()

    def check(self) -> None:
        """Raise the first failure."""
        if self.failures:
            raise self.failures[0]

    def written(self) -> Written:
        """Return what was acknowledged to all clients."""
        found = Written()
        for client in self.clients:
            found.add(client.written)
        return found

    def _run(self, one: RetryingClient | Follower) -> None:
        try:
            while not self._ended.wait(PAUSE_IN_SECONDS):
                one.run()
        except Exception as error:  # noqa: BLE001  the main thread raises it
            self.failures.append(error)


@contextmanager
def retrying_load(url: str, token: str) -> Iterator[RetryingLoad]:
    """Run the clients in the block; check at its end that nothing has failed, and follow the last changes."""
    running = RetryingLoad(url, token)
    running.start()
    try:
        yield running
        running.stop()
        running.check()
        running.follower.run()  # what has changed since its last walk
    finally:
        running.stop()
        running.close()
