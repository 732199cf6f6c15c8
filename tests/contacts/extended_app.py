"""A program that answers requests with the `ctms` package it finds: the tests give it an edited copy.

`python extended_app.py URL` reads a JSON array of requests (`[method, path, body]`) and queries (`["SQL", query,
null]`). It prints their results, the identities that a deletion handler gets, and whether the tables differ from the
models.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import ctms
from ctms.clients.tokens import tokens
from ctms.database.engine import db
from ctms.plugins import DeletionHandler, hookimpl
from ctms.settings import Settings
from ctms.testing import FakeDeletionHandler
from ctms.testing.apps import Apps, rolled_back
from ctms.testing.clients import create_client
from ctms.testing.http import ApiClient
from ctms.testing.plugins import bundled, points_of


class Handling:
    """A plugin with a deletion handler."""

    @hookimpl
    def ctms_deletion_handlers(self) -> Iterator[DeletionHandler]:
        """Declare the handler."""
        yield DeletionHandler(name="fake", implementation=FakeDeletionHandler())


def run(url: str, requests: list[tuple[str, str, Any]]) -> dict[str, Any]:
    """Migrate the database, send the requests, and roll back their effects."""
    apps = Apps(Settings(db_url=url, secret_key="a key for tests only, of thirty-two bytes", use_mozlog=False))
    app = apps.get(points_of([*bundled(), Handling()]))
    check = app.test_cli_runner().invoke(args=["db", "check"])
    with rolled_back(app):
        api = ApiClient(app.test_client(), tokens().issue(create_client("id_test", roles=["admin"])))
        results = [
            db.session.execute(db.text(path)).scalar() if method == "SQL" else api.request(method, path, json=body).json
            for method, path, body in requests
        ]
        tasks = db.session.execute(db.text("SELECT identities FROM erasure_tasks ORDER BY id")).scalars().all()
    apps.release()
    return {"package": ctms.__file__, "results": results, "tasks": tasks, "differs": check.exit_code != 0}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(run(sys.argv[1], json.load(sys.stdin))))
