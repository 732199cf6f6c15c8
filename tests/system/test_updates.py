"""`/updates` over HTTP, with concurrent writers: no change is repeated or missed."""

from __future__ import annotations

import threading
import uuid
from datetime import datetime
from typing import Any

import requests

from tests.contacts.factories import address, minimal
from tests.serving import Served
from tests.system.conftest import Connect


def ids(page: dict[str, Any]) -> list[str]:
    return [contact["email"]["email_id"] for contact in page["items"]]


def get(session: requests.Session, url: str, **query: Any) -> Any:
    answer = session.get(url, params=query, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def now(connect: Connect) -> str:
    with connect() as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
        assert row is not None
        return str(row[0].isoformat())


def insert(connection: Any, moment: str = "clock_timestamp()") -> str:
    email_id = str(uuid.uuid4())
    connection.execute(
        "INSERT INTO emails (email_id, primary_email, create_timestamp, update_timestamp)"
        f" VALUES (%s, %s, {moment}, {moment})",
        (email_id, address()),
    )
    return email_id


def test_ten_thousand_contacts_of_one_instant_come_once_each(
    served: Served, session: requests.Session, database: Connect
) -> None:
    moment = "2019-03-01 12:00:00.123456+00"
    with database() as connection:
        connection.execute(
            "INSERT INTO emails (primary_email, create_timestamp, update_timestamp)"
            " SELECT 'of-one-instant-' || n || '@example.com', %(moment)s, %(moment)s FROM generate_series(1, 10000) n",
            {"moment": moment},
        )
        connection.execute("ANALYZE emails")  # autovacuum may be late
        wanted = connection.execute(
            "SELECT email_id::text FROM emails WHERE update_timestamp = %s ORDER BY email_id", (moment,)
        ).fetchall()

    page = get(session, f"{served.url}/updates", start="2019-03-01", end="2019-03-02", limit=1000)
    told = ids(page)
    pages = 1
    while page["next"] is not None:
        page = get(session, page["next"])
        told += ids(page)
        pages += 1

    assert told == [row[0] for row in wanted]
    assert pages == 10
    assert {contact["email"]["update_timestamp"] for contact in page["items"]} == {"2019-03-01T12:00:00.123456+00:00"}


def test_a_contact_that_a_slow_transaction_commits_late_is_not_missed(
    served: Served, session: requests.Session, database: Connect
) -> None:
    start = now(database)
    slow = database()
    late = insert(slow)
    quick = session.post(f"{served.url}/ctms", json=minimal(), timeout=60).json()["email"]["email_id"]

    first = get(session, f"{served.url}/updates", start=start)
    slow.commit()
    second = get(session, f"{served.url}/updates", start=first["end"])

    assert late not in ids(first)
    row = slow.execute("SELECT update_timestamp FROM emails WHERE email_id = %s", (late,)).fetchone()
    assert row is not None
    assert datetime.fromisoformat(first["end"]) <= row[0]
    assert sorted([late, quick]) == sorted({*ids(first), *ids(second)})
    assert ids(second)[0] == late


def test_an_end_that_was_asked_for_does_not_pass_it_either(
    served: Served, session: requests.Session, database: Connect
) -> None:
    start = now(database)
    slow = database()
    late = insert(slow)
    asked = now(database)

    page = get(session, f"{served.url}/updates", start=start, end=asked)
    slow.commit()

    assert datetime.fromisoformat(page["end"]) < datetime.fromisoformat(asked)
    assert ids(get(session, f"{served.url}/updates", start=page["end"], end=asked)) == [late]


def test_readers_and_waiting_writers_do_not_delay_updates(
    served: Served, session: requests.Session, database: Connect
) -> None:
    reader = database()
    reader.execute("SELECT count(*) FROM emails")
    asked = now(database)

    page = get(session, f"{served.url}/updates", start=asked)

    assert datetime.fromisoformat(page["end"]) > datetime.fromisoformat(asked)


def test_a_walk_ends_where_it_began_to_also_when_an_older_transaction_starts_to_write(
    served: Served, session: requests.Session, database: Connect
) -> None:
    start = now(database)
    older = database()
    older.execute("SELECT 1")  # its transaction begins
    contacts = [
        session.post(f"{served.url}/ctms", json=minimal(), timeout=60).json()["email"]["email_id"] for _ in range(3)
    ]

    page = get(session, f"{served.url}/updates", start=start, limit=1)
    end, told = page["end"], ids(page)
    late = insert(older)
    while page["next"] is not None:
        page = get(session, page["next"])
        assert page["end"] == end
        told += ids(page)
    older.commit()

    assert told == contacts
    assert late in ids(get(session, f"{served.url}/updates", start=end))


def test_a_poller_beside_many_writers_sees_every_change(
    served: Served, session: requests.Session, database: Connect
) -> None:
    start = now(database)
    written: list[str] = []
    running = threading.Event()
    running.set()

    def write(slowly: bool) -> None:
        for _ in range(12):
            with database_connection() as connection:
                written.append(insert(connection))
                if slowly:
                    connection.execute("SELECT pg_sleep(0.05)")

    database_connection = database
    writers = [threading.Thread(target=write, args=(slowly,)) for slowly in (True, True, False, False)]
    for writer in writers:
        writer.start()
    seen: list[str] = []
    while True:
        done = not any(writer.is_alive() for writer in writers)
        page = get(session, f"{served.url}/updates", start=start, limit=5)
        while True:
            seen += ids(page)
            start = page["end"]
            if page["next"] is None:
                break
            page = get(session, page["next"])
        if done:
            break

    assert sorted(seen) == sorted(written)
