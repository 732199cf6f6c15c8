"""Batches at once, and with other writers: exact results, no error, no deadlock left to the client."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg.pq import TransactionStatus

from ctms.batches import rows, writer
from ctms.database import pool
from ctms.database.engine import database_url
from ctms.database.pool import libpq_url
from ctms.suppression.fingerprints import fingerprints
from ctms.suppression.suppressions import suppress
from ctms.testing.apps import Apps
from ctms.testing.plugins import bundled
from tests.batches.oracle import PEOPLE, find, identity, one_by_one, random_items
from tests.contacts.factories import address
from tests.http import Answer, ApiClient
from tests.races import PATIENCE, at_once, clients, committing_app
from tests.sessions import wait_until_someone_waits

AT_ONCE = 8
SHARED = 12


@pytest.fixture(scope="module")
def shared(apps: Apps) -> Iterator[Flask]:
    with committing_app(apps, bundled()) as app:
        yield app


@pytest.fixture
def client(shared: Flask) -> Callable[[], ApiClient]:
    """Return a factory of clients, one for each thread."""
    return clients(shared)


def send(api: ApiClient, items: list[Any], key: str | None = None) -> Answer:
    """Send a batch."""
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.post("/ctms/batch", {"items": items}, headers=headers)


def statuses(answer: Answer) -> list[str]:
    """Return the statuses of the items."""
    assert answer.status_code == 207, answer.text
    return [one["status"] for one in answer.json["items"]]


def states(shared: Flask) -> Any:
    """Return the times of all contacts, and the number of events."""
    with shared.app_context(), pool.acquire() as connection:
        contacts = connection.execute("SELECT email_id, update_timestamp FROM emails ORDER BY 1").fetchall()
        return contacts, connection.execute("SELECT count(*) FROM subscription_events").fetchone()


def test_random_batches(shared: Flask, client: Callable[[], ApiClient]) -> None:
    new = [address() for _ in range(SHARED)]
    old = [address() for _ in range(SHARED)]
    for text in old:
        assert client().post("/ctms", {"email": {"primary_email": text}}).status_code == 201
    sent, expected = [], []
    for number in range(AT_ONCE):
        tag, twin = f"ca{number:02d}", f"cb{number:02d}"
        with shared.app_context(), pool.writing() as connection:
            for one in (tag, twin):
                suppress(connection, fingerprints().all_of(f"suppressed-{one}@example.com"), "command")
        everyone = [
            {
                "match": {"primary_email": text},
                "contact": {"newsletters": [{"name": f"n{number}", "evidence": {"form": f"{number}"}}]},
            }
            for text in (*new, *old)
        ]
        random.Random(number).shuffle(everyone)  # noqa: S311
        sent.append([*random_items(tag, number, 20), *everyone])
        expected.append(one_by_one(client(), random_items(twin, number, 20)))

    def send_numbered(number: int) -> Answer:
        return send(client(), sent[number], f"key {number}")

    answers = at_once([partial(send_numbered, number) for number in range(AT_ONCE)])

    created: Counter[str] = Counter()
    for number, answer in enumerate(answers):
        found = statuses(answer)
        assert found[:20] == expected[number]
        for item, status in zip(sent[number][20:], found[20:], strict=True):
            text = item["match"]["primary_email"]
            created[text] += status == "created"
            assert status in ({"created", "updated"} if text in new else {"updated"})
    assert created == Counter({text: int(text in new) for text in (*new, *old)})
    for text in (*new, *old):
        [document] = find(client(), "primary_email", text)
        assert {one["name"] for one in document["newsletters"]} == {f"n{number}" for number in range(AT_ONCE)}

    before = states(shared)
    again = at_once([partial(send_numbered, number) for number in range(AT_ONCE)])

    assert [one.text for one in again] == [one.text for one in answers]
    assert states(shared) == before


def test_batches_and_single_writers(client: Callable[[], ApiClient]) -> None:
    people = {identity("dd00", "primary_email", person): person for person in range(PEOPLE)}
    for text in people:
        assert client().post("/ctms", {"email": {"primary_email": text}}).status_code == 201
    ids = [find(client(), "primary_email", text)[0]["email"]["email_id"] for text in people]

    def batch(number: int) -> list[int]:
        order = random.Random(number).sample(ids, len(ids))  # noqa: S311
        items = [{"match": {"email_id": one}, "contact": {"newsletters": [{"name": f"b{number}"}]}} for one in order]
        return [send(client(), items).status_code for _ in range(4)]

    def patches(number: int) -> list[int]:
        order = random.Random(number).sample(ids, len(ids))  # noqa: S311
        return [client().patch(f"/ctms/{one}", {"newsletters": [{"name": f"s{number}"}]}).status_code for one in order]

    calls = [partial(call, number) for call in (batch, patches) for number in range(6)]
    found = at_once(calls)

    assert found == [[207] * 4] * 6 + [[200] * PEOPLE] * 6
    for one in ids:
        names = {entry["name"] for entry in client().get(f"/ctms/{one}").json["newsletters"]}
        assert names == {f"{kind}{number}" for kind in "bs" for number in range(6)}


def test_an_identity_taken_after_it_was_looked_up(shared: Flask, client: Callable[[], ApiClient]) -> None:
    text, other = address(), address()
    with psycopg.connect(libpq_url(database_url(shared)())) as rival, ThreadPoolExecutor(1) as threads:
        rival.execute("INSERT INTO emails (primary_email) VALUES (%s)", (text,))
        items = [
            {"match": {"primary_email": text}, "contact": {"email": {"first_name": "Jane"}}},
            {"mode": "create", "contact": {"email": {"primary_email": text, "first_name": "Joan"}}},
            {"match": {"primary_email": other}, "contact": {}},
        ]
        sent = threads.submit(lambda: statuses(send(client(), items)))
        wait_until_someone_waits(database_url(shared)())
        rival.commit()

        assert sent.result(PATIENCE) == ["updated", "conflict", "created"]


def test_a_deadlock_is_resolved_inside(shared: Flask, client: Callable[[], ApiClient]) -> None:
    texts = [address() for _ in range(2)]
    documents = [client().post("/ctms", {"email": {"primary_email": text}}).json for text in texts]
    first, last = sorted(document["email"]["email_id"] for document in documents)
    items = [{"match": {"email_id": one}, "contact": {"email": {"first_name": "Jane"}}} for one in (first, last)]
    lock = "SELECT FROM emails WHERE email_id = %s FOR UPDATE"
    with psycopg.connect(libpq_url(database_url(shared)())) as rival, ThreadPoolExecutor(1) as threads:
        rival.execute("SET deadlock_timeout = '1h'")  # the batch is the one to detect it
        rival.execute(lock, (last,))
        sent = threads.submit(lambda: statuses(send(client(), items)))
        wait_until_someone_waits(database_url(shared)())
        rival.execute(lock, (first,))
        rival.commit()

        assert sent.result(PATIENCE) == ["updated"] * 2


def test_a_deadlock_of_a_later_wave_lets_the_others_continue(shared: Flask, client: Callable[[], ApiClient]) -> None:
    text, taken = address(), address()
    created = client().post("/ctms", {"email": {"primary_email": text}}).json
    items: list[Any] = [
        {"match": {"primary_email": text}, "contact": {"email": {"first_name": "Jane"}}},
        {"match": {"primary_email": text}, "contact": {"email": {"primary_email": taken}}},
    ]
    with psycopg.connect(libpq_url(database_url(shared)())) as rival, ThreadPoolExecutor(1) as threads:
        rival.execute("SET deadlock_timeout = '1h'")  # the batch is the one to detect it
        rival.execute("INSERT INTO emails (primary_email) VALUES (%s)", (taken,))
        sent = threads.submit(lambda: statuses(send(client(), items)))
        wait_until_someone_waits(database_url(shared)())
        rival.execute("SELECT FROM emails WHERE email_id = %s FOR UPDATE", (created["email"]["email_id"],))
        assert not sent.done()
        rival.commit()

        assert sent.result(PATIENCE) == ["updated", "conflict"]


def test_a_later_wave_waits_for_no_contact(
    shared: Flask, client: Callable[[], ApiClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would hold contacts that come after it in the order of the ids."""
    created = [client().post("/ctms", {"email": {"primary_email": address()}}).json for _ in range(2)]
    first, last = sorted(document["email"]["email_id"] for document in created)
    text, account = address(), {"fxa": {"primary_email": address()}}
    items = [
        {"match": {"email_id": last}, "contact": account},
        {"match": {"primary_email": text}, "mode": "update", "contact": account},
    ]
    lock = "SELECT FROM emails WHERE email_id = %s FOR UPDATE"
    with psycopg.connect(libpq_url(database_url(shared)())) as rival, ThreadPoolExecutor(1) as threads:

        def write_rows(*args: Any) -> int:
            if rival.info.transaction_status == TransactionStatus.IDLE:  # after the first wave has looked up
                rival.execute("UPDATE emails SET primary_email = %s WHERE email_id = %s", (text, first))
                rival.commit()
                rival.execute(lock, (first,))
            return rows.write_rows(*args)

        monkeypatch.setattr(writer, "write_rows", write_rows)
        sent = threads.submit(lambda: statuses(send(client(), items)))
        wait_until_someone_waits(database_url(shared)(), behind=rival.info.backend_pid)
        with psycopg.connect(libpq_url(database_url(shared)())) as other:
            other.execute(f"{lock} NOWAIT", (last,))
        monkeypatch.setattr(writer, "write_rows", rows.write_rows)
        rival.commit()

        assert sent.result(PATIENCE) == ["updated"] * 2


def test_after_deadlocks_batches_take_turns(shared: Flask, client: Callable[[], ApiClient]) -> None:
    """Else those that change the same addresses meet in the next deadlock, until the client has one."""
    texts = [address() for _ in range(2)]
    documents = [client().post("/ctms", {"email": {"primary_email": text}}).json for text in texts]
    first, last = sorted(document["email"]["email_id"] for document in documents)
    items = [{"match": {"email_id": one}, "contact": {"email": {"first_name": "Jane"}}} for one in (first, last)]
    lock = "SELECT FROM emails WHERE email_id = %s FOR UPDATE"
    url = libpq_url(database_url(shared)())
    with psycopg.connect(url) as rival, psycopg.connect(url) as other, ThreadPoolExecutor(1) as threads:
        other.execute(writer.LOCK_RETRY)
        rival.execute("SET deadlock_timeout = '1h'")  # the batch is the one to detect it
        rival.execute(lock, (last,))
        sent = threads.submit(lambda: statuses(send(client(), items)))
        wait_until_someone_waits(database_url(shared)())
        rival.execute(lock, (first,))
        wait_until_someone_waits(database_url(shared)(), behind=other.info.backend_pid)
        rival.commit()
        other.commit()
        assert sent.result(PATIENCE) == ["updated"] * 2


@pytest.mark.parametrize("commits", [True, False])
def test_a_repeated_batch_waits_for_the_first(
    shared: Flask, client: Callable[[], ApiClient], commits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = address()
    items = [{"match": {"primary_email": text}, "contact": {"email": {"first_name": "Jane"}}}]
    barrier, really = Barrier(2), writer.write
    calls: list[int] = []

    def write(connection: Any, valid: Any) -> Any:
        calls.append(len(calls))
        found = really(connection, valid)
        if len(calls) == 1:
            barrier.wait(PATIENCE)
            wait_until_someone_waits(database_url(shared)())
            if not commits:
                raise psycopg.OperationalError("the connection is lost")
        return found

    monkeypatch.setattr(writer, "write", write)
    key = f"key {text}"
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(lambda: send(client(), items, key))
        barrier.wait(PATIENCE)
        second = send(client(), items, key)

        assert first.result(PATIENCE).status_code == (207 if commits else 503)
        assert statuses(second) == ["created"]
    assert len(calls) == (1 if commits else 2)
    assert len(find(client(), "primary_email", text)) == 1
