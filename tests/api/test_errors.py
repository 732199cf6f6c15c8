"""Errors: their common shape, their texts, and values that neither they nor the logs repeat."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from werkzeug.exceptions import HTTPException, default_exceptions

from ctms.api.responses import init_errors
from ctms.contacts import removal
from ctms.database.pool import libpq_url
from tests.clients.factories import SECRET, create_client
from tests.contacts.factories import full, minimal
from tests.contacts.rows import execute
from tests.http import Answer, ApiClient, assert_error

PRIVATE = "jane.private"


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


class TestUnmatched:
    @pytest.mark.parametrize("path", ["/nothing", "/ctms/", "/updates/x", "/identity/a/b", "/ctms.php", "/%00", "/ü"])
    def test_unknown_paths(self, api: ApiClient, path: str) -> None:
        assert_error(api.get(path), 404, "Not Found")

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("PATCH", "/ctms"),
            ("DELETE", "/ctms"),
            ("POST", "/ctms/x"),
            ("POST", "/updates"),
            ("PATCH", "/identities"),
            ("GET", "/token"),
            ("TRACE", "/ctms"),
            ("BREW", "/ctms"),
        ],
    )
    def test_methods_that_are_not_allowed(self, api: ApiClient, method: str, path: str) -> None:
        answer = api.request(method, path)

        assert_error(answer, 405, "Method Not Allowed")
        assert "OPTIONS" in answer.headers["Allow"]

    @pytest.mark.parametrize(
        ("path", "allowed"),
        [
            ("/ctms", {"GET", "HEAD", "POST", "PUT", "OPTIONS"}),
            ("/ctms/x", {"GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"}),
            ("/updates", {"GET", "HEAD", "OPTIONS"}),
            ("/token", {"POST", "OPTIONS"}),
        ],
    )
    def test_options_list_the_allowed_methods(self, anonymous: ApiClient, path: str, allowed: set[str]) -> None:
        answer = anonymous.request("OPTIONS", path)

        assert answer.status_code == 200
        assert set(answer.headers["Allow"].replace(" ", "").split(",")) == allowed


class TestBodies:
    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"{'a': 1}",
            b'{"a": NaN}',
            b'{"a": Infinity}',
            b"\xff\xfe",
            b'{"a": "\xff"}',
            b"nul",
            b"[1,]",
            b"1" * 5000,
        ],
    )
    @pytest.mark.parametrize(("method", "path"), [("POST", "/ctms"), ("PUT", "/ctms/x"), ("PATCH", "/ctms/x")])
    def test_bodies_without_json(self, api: ApiClient, method: str, path: str, body: bytes) -> None:
        answer = api.request(method, path, data=body, content_type="application/json")

        (problem,) = assert_error(answer, 422)["detail"]
        assert problem["loc"][0] == "body"
        assert isinstance(problem["loc"][1], int)
        assert problem["msg"] == "JSON decode error"
        assert problem["type"] == "json_invalid"

    @pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "application/merge-patch+json", ""])
    def test_json_by_any_name(self, api: ApiClient, content_type: str) -> None:
        address = "someone@example.com"
        body = f'{{"email": {{"primary_email": "{address}"}}}}'

        assert api.request("POST", "/ctms", data=body, content_type=content_type).status_code == 201

    @pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
    def test_another_type_is_refused(self, api: ApiClient, content_type: str) -> None:
        answer = api.request("POST", "/ctms", data="email=x", content_type=content_type)

        assert_error(answer, 422, at=[["body"]])


class TestRequestIds:
    def test_a_sound_one_is_kept(self, api: ApiClient) -> None:
        answer = api.get("/ctms?sfdc_id=x", headers={"X-Request-Id": "trace-1.2_b"})

        assert answer.headers["X-Request-Id"] == "trace-1.2_b"

    @pytest.mark.parametrize("given", ["", "a b", "x" * 129, "jane@example.com", "é"])
    def test_another_is_replaced(self, api: ApiClient, given: str) -> None:
        answer = api.get("/nothing", headers={"X-Request-Id": given})

        assert answer.headers["X-Request-Id"] not in {given, ""}

    def test_each_request_has_its_own(self, api: ApiClient) -> None:
        assert len({api.get("/nothing").headers["X-Request-Id"] for _ in range(3)}) == 3


class TestOneShape:
    """Every kind of exception becomes the one error body, without internals."""

    def answer(self, error: BaseException) -> Answer:
        app = Flask("errors")
        init_errors(app)
        app.add_url_rule("/", view_func=raising(error))
        return Answer(app.test_client().get("/"))

    @pytest.mark.parametrize("error", [*default_exceptions.values()], ids=lambda error: error.__name__)
    def test_http_exceptions(self, error: type[HTTPException]) -> None:
        made = error()

        body = assert_error(self.answer(made), made.code or 0)

        assert body == {"detail": made.name}

    @pytest.mark.parametrize(
        "error",
        [
            psycopg.OperationalError(PRIVATE),
            psycopg.errors.AdminShutdown(PRIVATE),
            psycopg.errors.QueryCanceled(PRIVATE),
            psycopg.errors.LockNotAvailable(PRIVATE),
            psycopg.errors.DeadlockDetected(PRIVATE),
            psycopg.errors.TooManyConnections(PRIVATE),
            OperationalError(PRIVATE, {}, psycopg.OperationalError(PRIVATE)),
            PoolTimeout(PRIVATE),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_a_database_that_is_away_or_busy(self, error: BaseException) -> None:
        answer = self.answer(error)

        assert_error(answer, 503)
        assert answer.headers["Retry-After"] == "1"
        assert PRIVATE not in answer.text

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError(PRIVATE),
            psycopg.errors.UniqueViolation(PRIVATE),
            psycopg.DataError(PRIVATE),
            KeyError(PRIVATE),
            MemoryError(PRIVATE),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_the_unexpected(self, error: BaseException) -> None:
        answer = self.answer(error)

        assert_error(answer, 500, "Internal Server Error")
        assert PRIVATE not in answer.text

    @pytest.mark.parametrize(
        ("statement", "told"),
        [
            ("SELECT FROM absent", 'UndefinedTable: relation "absent" does not exist'),
            ('SELECT "private@example.com"', 'UndefinedColumn: column "…" does not exist'),
            ("SELECT 'private@example.com'::uuid", "InvalidTextRepresentation (SQLSTATE 22P02)"),
            ("SELECT %s", "ProgrammingError: the query has 1 placeholders but 0 parameters were passed"),
        ],
    )
    def test_an_error_of_the_database_is_named_in_the_log(
        self, statement: str, told: str, postgres: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        with psycopg.connect(libpq_url(postgres)) as connection, pytest.raises(psycopg.Error) as raised:
            connection.execute(statement.encode(), () if "%s" in statement else None)

        assert_error(self.answer(raised.value), 500)

        assert [record.getMessage() for record in caplog.records] == [f"unexpected error: {told}"]


class TestNothingOfAPersonIsLogged:
    @pytest.fixture
    def logged(self, app: Flask) -> Iterator[Callable[[], str]]:
        """All log output of the service and its libraries, formatted, at the lowest level."""
        root = logging.getLogger()
        (ours,) = [handler for handler in root.handlers if type(handler).__module__.startswith("ctms")]
        copy = logging.StreamHandler(io.StringIO())
        copy.setFormatter(ours.formatter)
        root.addHandler(copy)
        names = ("", "ctms", "request.summary", "sqlalchemy", "werkzeug", "psycopg", "alembic")
        before = [(logging.getLogger(name), logging.getLogger(name).level) for name in names]
        for logger, _ in before:
            logger.setLevel(logging.DEBUG)
        yield copy.stream.getvalue
        for logger, level in before:
            logger.setLevel(level)
        root.removeHandler(copy)

    def test_neither_addresses_nor_names_nor_secrets(self, api: ApiClient, logged: Callable[[], str]) -> None:
        contact = full()
        contact["email"].update(primary_email=f"{PRIVATE}@example.com", first_name=PRIVATE)
        contact["fxa"]["primary_email"] = f"{PRIVATE}@example.org"
        create_client("id_logged")

        assert api.post("/ctms", contact).status_code == 201
        api.post("/ctms", {**contact, "email": {**contact["email"], "email_lang": PRIVATE}})
        api.post("/ctms", minimal(primary_email=f"{PRIVATE}@example.com"))
        api.get("/ctms", query_string={"primary_email": f"{PRIVATE}@example.com"})
        api.get("/identities", query_string={"fxa_primary_email": f"{PRIVATE}@example.org"})
        api.patch(f"/ctms/{contact['email']['email_id']}", {"email": {"last_name": PRIVATE}})
        api.get(f"/ctms/{PRIVATE}@example.com")
        api.get(f"/nothing/{PRIVATE}")
        api.delete(f"/ctms/{PRIVATE}@example.com")
        api.delete(f"/ctms/{PRIVATE}@example.com")
        api.request("POST", "/token", data={"client_id": "id_logged", "client_secret": SECRET})
        api.request("POST", "/token", data={"client_id": f"id_{PRIVATE}", "client_secret": PRIVATE})

        output = logged()
        assert output.count("path=/ctms/{email_id}") == 4
        assert PRIVATE not in output
        assert SECRET not in output
        assert "eyJ" not in output

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError(f"about {PRIVATE}"),
            psycopg.errors.NotNullViolation(f"Failing row contains ({PRIVATE})"),
            psycopg.OperationalError(f"connection of {PRIVATE} lost"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_nor_the_message_of_an_error(
        self, api: ApiClient, logged: Callable[[], str], monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        monkeypatch.setattr(removal, "lock_address", raising(error))

        answer = api.delete(f"/ctms/{PRIVATE}@example.com")

        assert answer.status_code in {500, 503}
        assert PRIVATE not in answer.text
        output = logged()
        assert "ERROR" in output or "WARNING" in output
        assert PRIVATE not in output

    def test_messages_of_the_database_are_not_repeated(self, api: ApiClient, logged: Callable[[], str]) -> None:
        """A real PostgreSQL error, whose DETAIL contains the row."""
        execute("ALTER TABLE emails ADD CONSTRAINT odd CHECK (first_name IS NULL OR last_name IS NULL)")

        answer = api.post("/ctms", minimal(first_name=PRIVATE, last_name=PRIVATE))

        assert_error(answer, 500, "Internal Server Error")
        output = logged()
        assert "CheckViolation" in output
        assert PRIVATE not in output
