"""The baseline: a WSGI app that runs the service's SQL with psycopg and does nothing else.

No framework, tokens, validation, logs or metrics: an if-chain, a connection per thread, and the statements of
`ctms.contacts` and `ctms.erasure`, pipelined where they do not depend on each other. It is served like the service: by
Granian with the same settings. `python -m benchmarks.baseline` starts it on HOST:PORT.
"""

from __future__ import annotations

import json
import multiprocessing
import threading
import uuid
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import psycopg
from flask import Flask
from psycopg.types.json import Json

from ctms.cli.serve import granian
from ctms.contacts import accounts, queries, removal, statements, updates
from ctms.contacts.registry import EMAIL, LISTS, PARTS
from ctms.contacts.stored_documents import store_written
from ctms.database.pool import Connection, ScalarQuery, connect_arguments, libpq_url
from ctms.erasure.erase import ORIGIN_DELETE, ErasureRequest, write_record
from ctms.outbox.known import find_known
from ctms.settings import Settings

Environ = dict[str, Any]
StartResponse = Callable[[str, list[tuple[str, str]]], Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]


def create_app(settings: Settings | None = None) -> Application:
    """Create the app for the database of the `settings`, by default from the environment."""
    settings = settings or Settings.from_environment()
    assert settings.db_url  # noqa: S101  who starts it has a database
    url = libpq_url(settings.db_url)
    arguments = connect_arguments(settings)
    own = threading.local()
    context = make_context(settings)

    def connection() -> Connection:
        if not hasattr(own, "connection"):
            own.connection = psycopg.connect(url, autocommit=True, **arguments)
        found: Connection = own.connection
        return found

    def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with context.app_context():  # the statements depend on a setting
            status, text = answer(connection(), environ)
        body = text.encode()
        start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return application


def make_context(settings: Settings) -> Flask:
    """Return an app without routes, in whose context the statements find the settings that they depend on."""
    context = Flask("baseline")
    context.extensions["ctms.settings"] = settings
    return context


def answer(connection: Connection, environ: Environ) -> tuple[str, str]:
    """Respond to a request: status line and JSON."""
    method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
    if method == "POST":
        return "201 Created", create(connection, _json(environ))
    last = path.rpartition("/")[2]
    if method == "PATCH":
        return "200 OK", change(connection, uuid.UUID(last), _json(environ))
    if method == "DELETE":
        gone = delete(connection, last)
        return ("200 OK" if gone else "404 Not Found"), _array(gone)
    if path == "/ctms":
        (address,) = parse_qs(environ["QUERY_STRING"])["primary_email"]
        identities = {"primary_email": address}
        return "200 OK", _answer(connection, queries.stored_documents(identities), queries.documents(identities))
    if path == "/updates":
        return "200 OK", page(connection, parse_qs(environ["QUERY_STRING"]))
    email_id = uuid.UUID(last)
    return "200 OK", _answer(connection, queries.stored_document(email_id), queries.document(email_id))


def page(connection: Connection, query: dict[str, list[str]]) -> str:
    """List contacts that changed."""
    found = updates.page(
        connection,
        start=datetime.fromisoformat(query["start"][0]),
        end=None,
        limit=int(query["limit"][0]),
        after=None,
        mofo_relevant=None,
    )
    return f'{{"items":{_array(found.documents)}}}'


def create(connection: Connection, contact: dict[str, Any]) -> str:
    """Create a contact with the tables that are not at their defaults."""
    email_id = uuid.uuid4()
    values = {**EMAIL.defaults, **contact["email"], "email_id": email_id}
    given = tuple(name for name in PARTS if name in contact and name != EMAIL.name)
    for name in given:
        prefix, defaults = statements.parameter(name), PARTS[name].defaults
        if name in LISTS:
            values[prefix] = Json([{**defaults, **entry} for entry in contact[name]])
        else:
            values |= {f"{prefix}{column}": value for column, value in {**defaults, **contact[name]}.items()}
    with connection.pipeline(), connection.transaction():
        connection.execute(statements.create(given), values)
        return store_written(connection, email_id) or ""


def change(connection: Connection, email_id: uuid.UUID, patch: dict[str, Any]) -> str:
    """Change fields of the e-mail group, and newsletters that stay subscribed."""
    email = patch["email"]
    with connection.pipeline(), connection.transaction():
        connection.execute(statements.update_email(tuple(email)), [*email.values(), email_id])
        for entry in patch["newsletters"]:
            values = {**LISTS["newsletters"].defaults, **entry, "contact": email_id}
            connection.execute(statements.upsert("newsletters", tuple(entry)), values)
        return store_written(connection, email_id) or ""


def delete(connection: Connection, address: str) -> list[str]:
    """Delete the contact with the address; its identities must be read first."""
    with connection.pipeline(), connection.transaction():
        others = accounts.count(connection, address, None)
        found = removal.lock_address(connection, address)
        (also_known_in,) = others.fetchone() or (0,)
        request = ErasureRequest(by="client:baseline", origin=ORIGIN_DELETE)
        write_record(connection, request, [one.email_id for one in found], also_known_in=also_known_in)
        removal.delete(connection, found)
        find_known(connection)
    return [one.identities for one in found]


def _json(environ: Environ) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(environ["wsgi.input"].read())
    return body


def _answer(connection: Connection, *questions: ScalarQuery) -> str:
    """Return the value of the first query that has one."""
    for question in questions:
        row = connection.execute(*question).fetchone()
        if row is not None and row[0] is not None:
            return str(row[0])
    raise LookupError


def _array(documents: Iterable[str]) -> str:
    return f"[{','.join(documents)}]"


def serve() -> None:
    """Serve the app as `flask ctms serve` serves the service."""
    settings = Settings.from_environment()
    multiprocessing.set_start_method("spawn", force=True)
    granian("benchmarks.baseline:create_app", settings).serve()


if __name__ == "__main__":
    serve()
