"""`/events` over HTTP, with concurrent writers: no event is repeated or missed."""

from __future__ import annotations

import threading
from typing import Any

import requests

from tests.contacts.factories import minimal
from tests.history.replay import replay, subscriptions
from tests.serving import Served
from tests.system.conftest import Connect
from tests.system.test_updates import get, insert, now

CONTACTS = 10_000
NEWSLETTERS = 10


def follow(session: requests.Session, url: str, start: str, limit: int = 1000) -> tuple[list[dict[str, Any]], str]:
    """Return the events of a walk, and the start of the next walk."""
    page = get(session, f"{url}/events", start=start, limit=limit)
    found = page["items"]
    while page["next"] is not None:
        page = get(session, page["next"])
        found += page["items"]
    return found, page["end"]


def test_a_hundred_thousand_events_come_once_each_while_writers_continue(
    served: Served, session: requests.Session, database: Connect
) -> None:
    start = now(database)
    with database() as connection:
        connection.execute(
            "WITH made AS (INSERT INTO emails (primary_email)"
            " SELECT 'events-' || n || '@example.com' FROM generate_series(1, %s) n RETURNING email_id)"
            " INSERT INTO newsletters (email_id, name, subscribed)"
            " SELECT email_id, 'letter-' || n, true FROM made, generate_series(1, %s) n",
            (CONTACTS, NEWSLETTERS),
        )
        connection.execute("ANALYZE emails, newsletters, subscription_events")  # autovacuum may be late
    stop = threading.Event()

    def write() -> None:
        with requests.Session() as own:
            own.headers.update(session.headers)
            made = 0
            while not stop.is_set():
                made += 1
                body = {**minimal(), "newsletters": [{"name": f"letter-{made}"}, {"name": "other"}]}
                assert own.post(f"{served.url}/ctms", json=body, timeout=60).status_code == 201

    writer = threading.Thread(target=write)
    writer.start()
    try:
        found, start_of_rest = follow(session, served.url, start)
    finally:
        stop.set()
        writer.join()
    rest, end = follow(session, served.url, start_of_rest)

    assert len(found) >= CONTACTS * NEWSLETTERS
    events = found + rest
    order = [(event["recorded_at"], event["event_id"]) for event in events]
    assert order == sorted(set(order))
    with database() as connection:
        wanted = connection.execute(
            "SELECT event_id FROM subscription_events WHERE recorded_at >= %s AND recorded_at < %s", (start, end)
        ).fetchall()
    assert {event["event_id"] for event in events} == {event_id for (event_id,) in wanted}


def test_the_event_of_a_slow_transaction_is_not_missed(
    served: Served, session: requests.Session, database: Connect
) -> None:
    start = now(database)
    slow = database()
    late = insert(slow)
    slow.execute("INSERT INTO newsletters (email_id, name, subscribed) VALUES (%s, 'late', true)", (late,))
    created = session.post(f"{served.url}/ctms", json={**minimal(), "newsletters": [{"name": "quick"}]}, timeout=60)
    quick = created.json()["email"]["email_id"]

    first, end = follow(session, served.url, start)
    slow.commit()
    slow.close()
    second, _ = follow(session, served.url, end)

    assert quick not in {event["email_id"] for event in first}
    assert [event["email_id"] for event in second if event["email_id"] in {late, quick}] == [late, quick]


def test_an_event_of_a_writer_of_newsletters_alone_is_not_missed(
    served: Served, session: requests.Session, database: Connect
) -> None:
    """A writer beside the service may not touch `emails`."""
    start = now(database)
    created = session.post(f"{served.url}/ctms", json={**minimal(), "newsletters": [{"name": "a"}]}, timeout=60).json()
    email_id = created["email"]["email_id"]
    slow = database()
    slow.execute("UPDATE newsletters SET subscribed = false WHERE email_id = %s", (email_id,))
    session.post(f"{served.url}/ctms", json={**minimal(), "newsletters": [{"name": "quick"}]}, timeout=60)

    first, end = follow(session, served.url, start)
    slow.commit()
    slow.close()
    second, _ = follow(session, served.url, end)

    of_contact = [event for event in first + second if event["email_id"] == email_id]
    assert [event["action"] for event in of_contact] == ["subscribed", "unsubscribed"]
    document = session.get(f"{served.url}/ctms/{email_id}", timeout=60).json()
    assert replay(of_contact) == {email_id: subscriptions(document)}
