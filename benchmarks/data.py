"""A database of contacts for benchmarks, filled with set-based SQL and reused."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

import platformdirs
import psycopg

from ctms.app import create_app
from ctms.clients.secrets import generate_secret, hash_secret
from ctms.contacts import document_store
from ctms.database import engine, migrations
from ctms.database.pool import Connection, libpq_url
from ctms.settings import Settings

CLIENT_ID = "id_benchmark"
SAMPLE = 20_000
"""Number of contacts that the requests are spread over."""

_CONTACTS = """
    INSERT INTO emails (email_id, primary_email, basket_token, sfdc_id, first_name, last_name, mailing_country,
        email_format, email_lang, has_opted_out_of_email, double_opt_in, create_timestamp, update_timestamp)
    SELECT gen_random_uuid(), 'contact-' || i || '@example.com', gen_random_uuid()::text, 'sf-' || i, 'First ' || i,
        'Last ' || i, 'us', 'H', 'en', false, true, moment, moment
    FROM generate_series(1, %(count)s) i, LATERAL (SELECT now() - interval '30 days' * (1 - i::float / %(count)s))
        made (moment)"""

# About a third have add-ons, half have an account, a tenth are relevant to the foundation; all have three newsletters,
# and a quarter two waitlists.
_PARTS = (
    """
    INSERT INTO amo (email_id, add_on_ids, display_name, email_opt_in, language, last_login, location, profile_url,
        "user", user_id, username)
    SELECT email_id, 'add-on-1,add-on-2', 'Fan ' || sfdc_id, true, 'en', '2020-01-27', 'Here', 'firefox/user/1',
        true, 'user-' || sfdc_id, 'fan'
    FROM emails WHERE hashtext(email_id::text) % 3 = 0""",
    """
    INSERT INTO fxa (email_id, fxa_id, primary_email, created_date, lang, first_service, account_deleted)
    SELECT email_id, 'fxa-' || sfdc_id, 'fxa-' || primary_email, '2019-05-22T08:29:31.906094+00:00', 'en', 'sync',
        false
    FROM emails WHERE hashtext(email_id::text) % 2 = 0""",
    """
    INSERT INTO mofo (email_id, mofo_email_id, mofo_contact_id, mofo_relevant)
    SELECT email_id, 'mofo-' || sfdc_id, 'donor-' || sfdc_id, true
    FROM emails WHERE hashtext(email_id::text) % 10 = 0""",
    """
    INSERT INTO newsletters (email_id, name, subscribed, format, lang, source)
    SELECT email_id, name, true, 'H', 'en', 'https://www.mozilla.org/'
    FROM emails, unnest(ARRAY['common-voice', 'hubs', 'mozilla-foundation']) name""",
    """
    INSERT INTO waitlists (email_id, name, subscribed, fields)
    SELECT email_id, name, true, fields::json
    FROM emails, (VALUES ('relay', '{"geo": "ca"}'), ('vpn', '{"geo": "ca", "platform": "ios"}')) w (name, fields)
    WHERE hashtext(email_id::text) % 4 = 0""",
)

_DOOMED = """
    WITH doomed AS (
        INSERT INTO emails (email_id, primary_email, basket_token, email_format, email_lang, has_opted_out_of_email,
            double_opt_in)
        SELECT id, 'doomed-' || id || '@example.com', gen_random_uuid()::text, 'H', 'en', false, false
        FROM (SELECT gen_random_uuid() AS id FROM generate_series(1, %(count)s)) made
        RETURNING email_id),
    accounts AS (
        INSERT INTO fxa (email_id, fxa_id, primary_email, account_deleted)
        SELECT email_id, email_id, email_id || '@example.com', false FROM doomed)
    INSERT INTO newsletters (email_id, name, subscribed, format, lang)
    SELECT email_id, name, true, 'H', 'en' FROM doomed, unnest(ARRAY['common-voice', 'hubs']) name"""


@dataclass(frozen=True)
class Contacts:
    """A prepared database: its URL, the credentials, and a random sample of its contacts."""

    url: str
    settings: Settings
    count: int
    client_secret: str = field(repr=False)
    ids: list[UUID]
    addresses: list[str]
    moments: list[datetime]

    @property
    def database_pid(self) -> int:
        """The process id of the PostgreSQL server."""
        return int((self.settings.data_dir / "postgresql" / "postmaster.pid").read_text().split()[0])

    def connect(self) -> Connection:
        """Open a connection that commits each statement."""
        return psycopg.connect(libpq_url(self.url), autocommit=True)

    def doomed(self, count: int) -> list[str]:
        """Return the addresses of `count` contacts to delete; missing ones are created."""
        with self.connect() as connection:
            there = _scalar(connection, "SELECT count(*) FROM emails WHERE primary_email LIKE 'doomed-%'")
            if there < count:
                connection.execute(_DOOMED, {"count": count - there})
            found = connection.execute(
                "SELECT primary_email FROM emails WHERE primary_email LIKE 'doomed-%%' LIMIT %s", (count,)
            )
            return [address for (address,) in found]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the database to a command line."""
    parser.add_argument("--contacts", type=int, default=200_000, help="in the database (default: %(default)s)")
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=platformdirs.user_cache_path("ctms") / "benchmark",
        help="folder of the database, which is reused (default: %(default)s)",
    )


@contextmanager
def prepared(folder: Path, count: int) -> Iterator[Contacts]:
    """Start an embedded PostgreSQL with its data in `folder` and `count` contacts, and stop it at the end.

    An existing database of that size is reused, without the additions of the last run.
    """
    settings = Settings(data_dir=folder, use_mozlog=False, logging_level="WARNING")
    app = create_app(settings)
    try:
        with app.app_context():
            migrations.upgrade()
            url = app.extensions["ctms.embedded"]()
            with psycopg.connect(libpq_url(url), autocommit=True) as connection:
                _fill(connection, count)
                secret = _client(connection)
                ids, addresses, moments = _sample(connection)
        yield Contacts(url, settings, count, secret, ids, addresses, moments)
    finally:
        engine.release_database(app)


def _fill(connection: Connection, count: int) -> None:
    connection.execute("DELETE FROM emails WHERE primary_email NOT LIKE 'contact-%'")
    if _scalar(connection, "SELECT count(*) FROM emails") != count:
        connection.execute("TRUNCATE emails CASCADE")
        connection.execute("SET ctms.stamps = 'on'")  # new contacts have no stored documents
        connection.execute(_CONTACTS, {"count": count})
        for statement in _PARTS:
            connection.execute(statement)
        connection.execute("RESET ctms.stamps")
    for _ in document_store.fill_missing(connection):
        pass
    connection.execute("VACUUM ANALYZE")
    connection.execute("CHECKPOINT")


def _client(connection: Connection) -> str:
    """Create a client with the role `admin` and a new secret for the benchmark."""
    secret = generate_secret()
    connection.execute("DELETE FROM api_client WHERE client_id = %s", (CLIENT_ID,))
    connection.execute(
        "INSERT INTO api_client (client_id, email, enabled, hashed_secret)"
        " VALUES (%s, 'benchmark@localhost', true, %s)",
        (CLIENT_ID, hash_secret(secret)),
    )
    connection.execute(
        "INSERT INTO api_client_roles (api_client_id, role_id) SELECT %s, id FROM roles WHERE name = 'admin'",
        (CLIENT_ID,),
    )
    return secret


def _sample(connection: Connection) -> tuple[list[UUID], list[str], list[datetime]]:
    rows = connection.execute(
        "SELECT email_id, primary_email, update_timestamp FROM emails ORDER BY random() LIMIT %s", (SAMPLE,)
    ).fetchall()
    return [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]


def _scalar(connection: Connection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
