"""The scene of tests of responses: an app with one contact, clients of all kinds, and ways to break it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.clients.attempt_limiter import attempt_limiter
from ctms.clients.tokens import tokens
from ctms.database import pool
from ctms.export.jobs import directory_of
from ctms.export.requests import finish
from ctms.settings import app_settings
from tests.clients.factories import create_client
from tests.contacts.factories import full
from tests.http import Answer, ApiClient


@dataclass
class Scene:
    """The app with one contact, clients of all kinds, and ways to break it."""

    app: Flask
    api: ApiClient
    monkeypatch: pytest.MonkeyPatch

    @cached_property
    def contact(self) -> dict[str, Any]:
        created: dict[str, Any] = self.api.post("/ctms", full()).json
        return created

    @property
    def path(self) -> str:
        return f"/ctms/{self.contact['email']['email_id']}"

    @property
    def address_path(self) -> str:
        return f"/ctms/{self.contact['email']['primary_email']}"

    def put_body(self, **email: Any) -> dict[str, Any]:
        group = {key: value for key, value in self.contact["email"].items() if not key.endswith("timestamp")}
        return {"email": {**group, **email}}

    def other(self, **groups: Any) -> str:
        """Create another contact and return its id."""
        email_id: str = self.api.post("/ctms", full(**groups)).json["email"]["email_id"]
        return email_id

    def client(self, **kwargs: Any) -> ApiClient:
        """Return a client of another kind than `api`."""
        return ApiClient(self.app.test_client(), tokens().issue(create_client(f"id_{uuid.uuid4().hex}", **kwargs)))

    def token(self, form: Any = None, **kwargs: Any) -> Answer:
        return ApiClient(self.app.test_client(), None).request("POST", "/token", data=form, **kwargs)

    def token_after_failures(self, client_id: str) -> Answer:
        for _ in range(app_settings().token_failures_per_minute):
            attempt_limiter().record_failure(client_id, "127.0.0.1")
        return self.token({"client_id": client_id})

    def exported(self) -> str:
        """Finish an export without contacts; return the link to its manifest."""
        path = str(self.api.post("/exports", {}).headers["Location"])
        export_id = uuid.UUID(path.rpartition("/")[2])
        folder = directory_of(export_id)
        assert folder is not None
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
        manifest = {"contacts": 0, "parts": [], "updates": {"start": "2020-01-01T00:00:00.000000+00:00", "path": "/"}}
        with pool.acquire() as connection:
            finish(connection, export_id, manifest, 1)
        return str(self.api.get(path).json["manifest"]).removeprefix("http://localhost")

    def exports_are_too_many(self) -> Answer:
        self.monkeypatch.setattr("ctms.export.requests.MAX_PER_CLIENT", 0)
        return self.api.post("/exports", {})

    def exports_are_off(self) -> Answer:
        settings = replace(self.app.extensions["ctms.settings"], export_dir=None)
        self.monkeypatch.setitem(self.app.extensions, "ctms.settings", settings)
        return self.api.post("/exports", {})

    def database_is_away(self) -> None:
        @contextmanager
        def acquire() -> Iterator[Any]:
            raise psycopg.OperationalError
            yield

        self.monkeypatch.setattr(pool, "acquire", acquire)

    def view_raises(self, path: str, method: str) -> None:
        def fail(**_: Any) -> Any:
            raise RuntimeError

        endpoint, _ = self.app.url_map.bind("").match(path, method)
        self.monkeypatch.setitem(self.app.view_functions, endpoint, fail)
