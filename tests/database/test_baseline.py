"""The baseline of the history: what the migration records of the subscriptions of an existing deployment."""

from __future__ import annotations

import subprocess
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ctms.database.pool import libpq_url
from tests.conftest import SECRET_KEY, empty_database
from tests.history.replay import replay
from tests.serving import environment_for, run_flask

BEFORE = "c05192eb3d38"
TABLES_ONLY = "c7e25a019d38"
BASELINE = "c8f36b12ae49"

CONTACTS = 2500
"""More than two batches."""

Flask = Callable[..., subprocess.CompletedProcess[str]]

_FILL = f"""
    INSERT INTO emails (email_id, primary_email, has_opted_out_of_email, unsubscribe_reason, double_opt_in)
    SELECT gen_random_uuid(), 'c' || n || '@example.com', nullif(n % 3, 1) = 0, 'r' || n, n % 2 = 0
    FROM generate_series(1, {CONTACTS}) n;
    INSERT INTO emails (email_id, primary_email, double_opt_in)
    VALUES ('00000000-0000-0000-0000-000000000000', 'nil@example.com', true);
    INSERT INTO newsletters (email_id, name, subscribed, source, unsub_reason, create_timestamp)
    SELECT email_id, 'a', CASE abs(hashtext(email_id::text)) % 3 WHEN 0 THEN true WHEN 1 THEN false END,
        'https://x.example/', 'w', '2019-01-01' FROM emails;
    INSERT INTO waitlists (email_id, name, subscribed) SELECT email_id, 'a', double_opt_in FROM emails;
"""

# NULL reads as subscribed (docs/decisions/008-nulls-are-read-as-defaults.md).
_STATES = """
    SELECT email_id::text, 'newsletter', name, coalesce(subscribed, true) FROM newsletters
    UNION ALL SELECT email_id::text, 'waitlist', name, subscribed FROM waitlists
    UNION ALL SELECT email_id::text, 'global_opt_out', NULL, false FROM emails WHERE has_opted_out_of_email
    UNION ALL SELECT email_id::text, 'double_opt_in', NULL, true FROM emails WHERE double_opt_in"""

_EVENTS = """
    SELECT json_agg(s ORDER BY recorded_at, event_id) FROM subscription_events s"""


@pytest.fixture
def url(postgres: str, worker_id: str) -> str:
    return libpq_url(empty_database(postgres, f"baseline_{worker_id}"))


@pytest.fixture
def flask(url: str, tmp_path: Path) -> Flask:
    environment = environment_for(tmp_path, CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = run_flask(*arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return done

    return run


def events(url: str) -> list[dict[str, Any]]:
    with psycopg.connect(url) as connection:
        (found,) = connection.execute(_EVENTS).fetchone() or ([],)
        return list(found or [])


def states(url: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(_STATES).fetchall()


def check_events_match_the_tables(url: str) -> None:
    wanted: dict[str, Any] = {}
    for email_id, kind, name, state in states(url):
        wanted.setdefault(email_id, {})[kind, name] = state
    rebuilt = {email_id: state for email_id, state in replay(events(url)).items() if state}
    assert rebuilt == wanted


def test_every_subscription_and_consent_gets_a_baseline(flask: Flask, url: str) -> None:
    flask("db", "upgrade", BEFORE)
    with psycopg.connect(url) as connection:
        connection.execute(_FILL)

    flask("db", "upgrade")

    found = events(url)
    assert {event["action"] for event in found} == {"baseline"}
    check_events_match_the_tables(url)
    newsletter = next(event for event in found if event["kind"] == "newsletter")
    assert (newsletter["source"], newsletter["reason"]) == ("https://x.example/", "w")
    assert newsletter["evidence"]["create_timestamp"].startswith("2019-01-01")
    assert newsletter["actor"] is None


def test_an_interrupted_migration_continues(flask: Flask, url: str) -> None:
    flask("db", "upgrade", BEFORE)
    with psycopg.connect(url) as connection:
        connection.execute(_FILL)
    flask("db", "upgrade", BASELINE)
    with psycopg.connect(url) as connection:  # as if it had stopped in between, and writers had not
        connection.execute("DELETE FROM subscription_events WHERE email_id > %s", (uuid.UUID(int=1 << 127),))
        connection.execute(
            "UPDATE newsletters SET subscribed = false WHERE email_id > 'c0000000-0000-0000-0000-000000000000'"
        )
        connection.execute(f"UPDATE alembic_version SET version_num = '{TABLES_ONLY}'")
    before = len(events(url))

    flask("db", "upgrade", BASELINE)

    found = events(url)
    assert len(found) > before
    last = {(event["email_id"], event["kind"], event["name"]): event["subscribed"] for event in found}
    assert last == {(email_id, kind, name): state for email_id, kind, name, state in states(url)}
    with psycopg.connect(url) as connection:
        repeated = connection.execute(
            "SELECT email_id FROM subscription_events WHERE action = 'baseline'"
            " GROUP BY email_id, kind, name HAVING count(*) > 1"
        ).fetchall()
    assert repeated == []


def test_a_change_during_the_migration_is_not_contradicted(flask: Flask, url: str) -> None:
    flask("db", "upgrade", BEFORE)
    email_id = str(uuid.uuid4())
    with psycopg.connect(url) as connection:
        connection.execute("INSERT INTO emails (email_id, primary_email) VALUES (%s, 'a@example.com')", (email_id,))
        connection.execute(
            "INSERT INTO newsletters (email_id, name, subscribed) VALUES (%s, 'a', true), (%s, 'b', true)",
            (email_id, email_id),
        )
    flask("db", "upgrade", TABLES_ONLY)
    with psycopg.connect(url) as writer, psycopg.connect(url, autocommit=True) as observer:
        writer.execute("SELECT FROM emails WHERE email_id = %s FOR NO KEY UPDATE", (email_id,))
        writer.execute("UPDATE newsletters SET subscribed = false WHERE email_id = %s AND name = 'a'", (email_id,))
        migration = threading.Thread(target=flask, args=("db", "upgrade"))
        migration.start()
        while not observer.execute("SELECT pid FROM pg_locks WHERE NOT granted").fetchone():
            assert migration.is_alive()
        writer.commit()
        migration.join()

    assert [(event["name"], event["action"]) for event in events(url)] == [("a", "unsubscribed"), ("b", "baseline")]
    check_events_match_the_tables(url)
