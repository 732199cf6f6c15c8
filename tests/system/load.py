"""Clients that read and write all the time, and record each request that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Thread
from typing import Any
from uuid import uuid4

import requests

from tests.waiting import until

CLIENTS = 3
PAUSE_IN_SECONDS = 0.1
"""Pause of a client after each round, so that commands that run meanwhile get their share of the processors."""


class Client:
    """One client: it changes a contact of its own, reads it and its list of changes, and creates contacts."""

    def __init__(self, url: str, token: str) -> None:
        self.failures: list[str] = []
        self.rounds = 0
        self.email_id = str(uuid4())
        self._url = url
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"

    def run(self, ended: Event) -> None:
        """Send requests until the event is set."""
        with self._session:
            self._create(self.email_id)
            while not ended.is_set():
                self._round()
                self.rounds += 1
                ended.wait(PAUSE_IN_SECONDS)

    def _round(self) -> None:
        number = str(self.rounds)
        self._send("PATCH", f"/ctms/{self.email_id}", 200, {"email": {"first_name": number}})
        found = self._send("GET", f"/ctms/{self.email_id}", 200)
        if found is not None and found["email"]["first_name"] != number:
            self.failures.append(f"round {number} read what was written before")
        self._send("GET", "/updates?start=2020-01-01&limit=5", 200)
        self._create(str(uuid4()))

    def _create(self, email_id: str) -> None:
        body = {"email": {"email_id": email_id, "primary_email": f"{email_id}@example.com"}}
        self._send("POST", "/ctms", 201, body)

    def _send(self, method: str, path: str, status: int, body: Any = None) -> Any:
        try:
            response = self._session.request(method, self._url + path, json=body, timeout=60)
        except requests.RequestException as error:
            self.failures.append(f"{method} {path}: {type(error).__name__}: {error}")
            return None
        if response.status_code != status:
            self.failures.append(f"{method} {path}: {response.status_code} {response.text}")
            return None
        return response.json()


class Load:
    """The clients."""

    def __init__(self, url: str, token: str) -> None:
        self.clients = [Client(url, token) for _ in range(CLIENTS)]

    def wait_for_more(self, rounds: int = 3) -> None:
        """Wait until each client has made so many more rounds, without a failed request."""
        wanted = [client.rounds + rounds for client in self.clients]
        until(lambda: all(client.rounds >= n for client, n in zip(self.clients, wanted, strict=True)))
        self.check()
        assert all(client.rounds >= n for client, n in zip(self.clients, wanted, strict=True)), "clients wait"

    def check(self) -> None:
        """Check that no request has failed so far."""
        failures = [failure for client in self.clients for failure in client.failures]
        assert not failures, "\n".join(failures)


@contextmanager
def load(url: str, token: str) -> Iterator[Load]:
    """Run clients in the block."""
    running, ended = Load(url, token), Event()
    threads = [Thread(target=client.run, args=[ended]) for client in running.clients]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        ended.set()
        for thread in threads:
            thread.join()
