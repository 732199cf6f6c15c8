"""A database with committed contacts: an export reads it on connections of its own."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
import zstandard
from flask import Flask

from ctms.app import create_app
from ctms.clients.tokens import tokens
from ctms.contacts.documents import DOCUMENT, FROM_CONTACT
from ctms.contacts.sparse import parse_fields
from ctms.database import migrations
from ctms.database.engine import release_database
from ctms.database.pool import Connection, libpq_url
from ctms.export.formats import UNCOMPRESSED, make_format
from ctms.export.run import ExportOptions
from ctms.search.conditions import parse_condition
from ctms.settings import Settings
from ctms.testing.clients import create_client
from ctms.testing.fixtures import SECRET_KEY
from ctms.testing.http import ApiClient
from ctms.testing.plugins import bundled
from ctms.testing.servers import empty_database
from tests.contacts.test_documents import ODD_FIELDS

HERE = "http://localhost"

_CONTACTS = """
    INSERT INTO emails (email_id, primary_email, basket_token, first_name, last_name, mailing_country, email_format,
        email_lang, has_opted_out_of_email, double_opt_in, unsubscribe_reason)
    SELECT gen_random_uuid(), 'person-' || i || '@example.com', gen_random_uuid()::text,
        CASE i %% 5 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN E'"quoted", \\\\ and\\nbroken\\r\\n' WHEN 3 THEN '=1+1'
            ELSE 'Zoë 𝄞' || chr(i %% 31 + 1) END,
        '\\.', CASE i %% 3 WHEN 0 THEN 'ca' ELSE 'de' END, NULLIF('H', CASE WHEN i %% 7 = 0 THEN 'H' END), 'en',
        CASE i %% 4 WHEN 0 THEN NULL ELSE i %% 2 = 0 END, true, 'null'
    FROM generate_series(1, %s) i"""
_PARTS = (
    """
    INSERT INTO amo (email_id, display_name, last_login, "user", email_opt_in)
    SELECT email_id, first_name, DATE '2020-01-27', true, NULL FROM emails WHERE hashtext(email_id::text) %% 3 = 0""",
    """
    INSERT INTO fxa (email_id, fxa_id, primary_email, account_deleted)
    SELECT email_id, email_id, primary_email, true FROM emails WHERE hashtext(email_id::text) %% 2 = 0""",
    """
    INSERT INTO mofo (email_id, mofo_relevant)
    SELECT email_id, true FROM emails WHERE hashtext(email_id::text) %% 5 = 0""",
    """
    INSERT INTO newsletters (email_id, name, subscribed, format, lang, source, unsub_reason)
    SELECT email_id, name, hashtext(email_id::text || name) %% 3 <> 0, 'H', 'en', 'https://www.example.com/', first_name
    FROM emails, unnest(ARRAY['weekly', 'Zebra', 'éclair']) name WHERE hashtext(email_id::text) %% 4 <> 0""",
)
_WAITLIST = """
    INSERT INTO waitlists (email_id, name, subscribed, fields)
    SELECT email_id, %s, true, %s::json FROM emails WHERE hashtext(email_id::text || %s) %% 3 = 0"""
_FIELDS = [*ODD_FIELDS, '{\n  "geo": [\n    "fr",\r\n "ü"],\n  "platform": "a\\nb"\n}', '{"geo": "ca"}']

PEOPLE = 240


@pytest.fixture(scope="session")
def export_settings(postgres: str, worker_id: str) -> Settings:
    """Settings with a database of its own."""
    url = empty_database(postgres, f"export_{worker_id}")
    return Settings(db_url=url, secret_key=SECRET_KEY, use_mozlog=False)


@pytest.fixture(scope="session")
def _export_app(export_settings: Settings) -> Iterator[Flask]:
    app = create_app(export_settings, bundled())
    with app.app_context():
        migrations.upgrade()
    yield app
    release_database(app)


@pytest.fixture
def connection(_export_app: Flask, export_settings: Settings) -> Iterator[Connection]:
    """An autocommit connection to the database, which has no contacts."""
    with psycopg.connect(libpq_url(str(export_settings.db_url)), autocommit=True) as opened:
        opened.execute("SET statement_timeout = '60s'")
        opened.execute("SET timezone = 'UTC'")
        opened.execute("DELETE FROM emails")
        yield opened


@pytest.fixture
def app(_export_app: Flask, connection: Connection) -> Iterator[Flask]:  # noqa: ARG001  after the contacts are deleted
    """The app, in its context, with that database."""
    with _export_app.app_context():
        yield _export_app


@pytest.fixture
def people(connection: Connection) -> int:
    """Insert contacts with all kinds of values; return their number."""
    fill(connection)
    return PEOPLE


def fill(connection: Connection, number: int = PEOPLE) -> None:
    """Insert contacts with all kinds of values."""
    connection.execute(_CONTACTS, (number,))
    for statement in _PARTS:
        connection.execute(statement.replace("%%", "%"))
    for index, fields in enumerate(_FIELDS):
        name = ("vpn", "relay", "relay-b", f"list-{index}")[index % 4] if index < 4 else f"relay-{index}"
        connection.execute(_WAITLIST, (name, fields, name))
    connection.execute("ANALYZE")


def documents(connection: Connection, where: str = "true") -> dict[str, Any]:
    """Return the documents of the contacts, as the API returns them, by id."""
    rows = connection.execute(f"SELECT {DOCUMENT} FROM emails e {FROM_CONTACT} WHERE {where}").fetchall()
    return by_id(json.loads(text) for (text,) in rows)


def by_id(found: Any) -> dict[str, Any]:
    """Return documents by the contact's id; no contact is there twice."""
    listed = list(found)
    result = {one["email"]["email_id"]: one for one in listed}
    assert len(result) == len(listed)
    return result


def options(
    format_: str = "ndjson",
    *,
    fields: Sequence[str] = (),
    condition: Any = None,
    compression: str = UNCOMPRESSED,
    connections: int = 3,
    max_seconds: float = 60,
) -> ExportOptions:
    """Return the options of an export."""
    return ExportOptions(
        format=make_format(format_, parse_fields(fields) if fields else None, compression),
        condition=parse_condition(condition) if condition else None,
        connections=connections,
        max_seconds=max_seconds,
        described={"format": format_},
    )


def read(path: Path) -> bytes:
    """Return the content of a file, decompressed."""
    data = path.read_bytes()
    return zstandard.ZstdDecompressor().stream_reader(data).read() if path.suffix == ".zst" else data


def lines(folder: Path) -> list[Any]:
    """Return the documents in all parts of a directory."""
    return [json.loads(line) for path in sorted(folder.glob("contacts-*")) for line in read(path).splitlines()]


@pytest.fixture
def folder(app: Flask, connection: Connection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Configure a directory for exports."""
    settings: Settings = app.extensions["ctms.settings"]
    monkeypatch.setitem(app.extensions, "ctms.settings", replace(settings, export_dir=tmp_path / "exports"))
    connection.execute("DELETE FROM exports")
    return tmp_path / "exports"


@pytest.fixture
def api(app: Flask, connection: Connection) -> Iterator[ApiClient]:
    """A client with the permission, whose requests are committed."""
    client_id = create_client("id_exporter", roles=["admin"])
    yield ApiClient(app.test_client(), tokens().issue(client_id))
    connection.execute("DELETE FROM api_client WHERE client_id = %s", (client_id,))


@pytest.fixture
def anybody(app: Flask) -> ApiClient:
    """A client without a token."""
    return ApiClient(app.test_client(), None)


def request(api: ApiClient, **asked: Any) -> str:
    """Request an export; return its path."""
    answer = api.post("/exports", asked)
    assert answer.status_code == 202, answer.text
    assert answer.json["status"] == "pending"
    return str(answer.headers["Location"])
