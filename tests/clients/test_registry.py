"""Concurrent administration of clients, roles and permissions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
from flask import Flask

from ctms.clients import registry, roles
from ctms.database.engine import db, session_connection
from ctms.errors import ConflictError
from ctms.history.audit import AuditFilter, find_acts

ID = "id_at_once"
ROLE = "at-once"
AT_ONCE = 4


@pytest.fixture
def shared(migrated_app: Flask) -> Iterator[Flask]:
    """Return the app with real transactions, and a client and a role that are deleted afterwards."""
    with migrated_app.app_context(), db.session.begin():
        roles.create_role(ROLE)
        registry.create_client(ID, "at-once@example.com")
    yield migrated_app
    with migrated_app.app_context(), db.session.begin():
        registry.delete_client(ID)
        roles.delete_role(ROLE)


def at_once(app: Flask, work: Callable[[], object]) -> list[object]:
    """Run the work in several threads, each with a transaction; return the result or exception of each."""
    ready = Barrier(AT_ONCE)

    def one(_number: int) -> object:
        with app.app_context():
            ready.wait(timeout=200)
            try:
                with db.session.begin():
                    return work()
            except ConflictError as error:
                return error

    with ThreadPoolExecutor(AT_ONCE) as threads:
        return list(threads.map(one, range(AT_ONCE)))


def test_one_of_many_creates_a_client(migrated_app: Flask) -> None:
    try:
        found = at_once(migrated_app, lambda: registry.create_client("id_contested", "one@example.com", ["viewer"]))
    finally:
        with migrated_app.app_context(), db.session.begin():
            registry.delete_client("id_contested")

    assert sorted(type(one).__name__ for one in found) == ["ConflictError"] * (AT_ONCE - 1) + ["str"]


def test_one_of_many_grants_a_role(shared: Flask) -> None:
    found = at_once(shared, lambda: registry.grant_role(ID, ROLE))

    assert sorted(map(str, found)) == ["False"] * (AT_ONCE - 1) + ["True"]


def test_one_of_many_grants_a_permission(shared: Flask) -> None:
    found = at_once(shared, lambda: roles.grant_permission(ROLE, "view_contacts"))

    assert sorted(map(str, found)) == ["False"] * (AT_ONCE - 1) + ["True"]


def test_the_first_client_is_created_once(app: Flask) -> None:  # noqa: ARG001  inside the app's transaction
    made = registry.create_first_client("operator:test")

    assert made is not None
    client_id, secret = made
    assert client_id == "id_admin"
    registry.authenticate(client_id, secret)
    assert registry.create_first_client("operator:test") is None
    (act,) = find_acts(session_connection(), AuditFilter(actor="operator:test"), 10)
    assert (act.actor, act.target, act.details) == ("operator:test", "id_admin", {"roles": ["admin"]})


def test_a_client_whose_flag_is_null_is_disabled_and_can_be_enabled(app: Flask) -> None:  # noqa: ARG001
    with db.session.begin():
        secret = registry.create_client(ID, "at-once@example.com")
        registry.find_client(ID).enabled = None
    with pytest.raises(registry.InvalidCredentials, match="disabled_client"):
        registry.authenticate(ID, secret)

    with db.session.begin():
        assert registry.set_enabled(ID, False) is False
    with db.session.begin():
        assert registry.set_enabled(ID, True) is True

    registry.authenticate(ID, secret)
