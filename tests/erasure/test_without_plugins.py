"""An erasure by a process that lacks the plugins with which other processes run: it waits for them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.test_history import create
from tests.api.test_merges import merged
from tests.contacts.rows import execute
from tests.http import ApiClient

pytestmark = pytest.mark.usefixtures("nothing_erased", "known")


@pytest.fixture
def ctms_plugins() -> list[object]:
    return ["default_waitlist"]


@pytest.fixture
def known(app: object) -> None:  # noqa: ARG001  inside its transaction
    """Another process has run with a backend and a deletion handler."""
    for kind, name in (("backend", "mail"), ("deletion_handler", "crm")):
        execute("INSERT INTO receivers (kind, name, failures) VALUES (:kind, :name, 0)", kind=kind, name=name)


def record(api: ApiClient, erasure: str) -> dict[str, Any]:
    found: dict[str, Any] = api.get(f"/erasures/{erasure}").json
    return found


def test_it_is_pending(api: ApiClient) -> None:
    address = api.get(create(api)).json["email"]["primary_email"]

    found = record(api, api.delete(f"/ctms/{address}").headers["Erasure-Id"])

    assert found["status"] == "pending"
    for part, name in ((found["backends"], "mail"), (found["handlers"], "crm")):
        assert [(one["name"], one["installed"], one["pending"]) for one in part] == [(name, False, 1)]
    assert execute("SELECT count(*) FROM outbox WHERE backend = 'mail'") == 1
    assert execute("SELECT identities ->> 'primary_email' FROM erasure_tasks WHERE handler = 'crm'") == address


def test_nothing_waits_for_an_unknown_address(api: ApiClient) -> None:
    answer = api.post("/erasures", {"emails": ["nobody@example.com"]}).json
    assert record(api, answer["id"])["status"] == "done"


def test_what_was_merged_before_is_included(api: ApiClient) -> None:
    target, source = create(api), create(api)
    merged(api, target, source)
    again = {"email": {"email_id": source.rpartition("/")[2], "primary_email": "other@example.com"}}
    assert api.put(source, again).status_code == 201

    answer = api.delete(f"/ctms/{api.get(target).json['email']['primary_email']}")

    (part,) = record(api, answer.headers["Erasure-Id"])["backends"]
    assert (part["name"], part["pending"]) == ("mail", 2)
