"""Migrations: from scratch, from an existing deployment, downgrade and upgrade, and match with the models."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from alembic.script import ScriptDirectory

from ctms.database.pool import libpq_url
from ctms.paths import MIGRATIONS
from tests.conftest import SECRET_KEY, empty_database
from tests.serving import environment_for, run_flask, upgrade_twice_at_once

FIRST = "2b00e4069aea"
Flask = Callable[..., subprocess.CompletedProcess[str]]

# Data of an existing deployment: a custom role with the name of a built-in one, and duplicate grants.
EXISTING = """
    INSERT INTO api_client (client_id, email, enabled, hashed_secret) VALUES
        ('id_one', 'one@example.com', true, 'x'), ('id_off', 'off@example.com', NULL, 'x');
    INSERT INTO roles (id, name, description) VALUES (10, 'viewer', 'Our own'), (11, 'auditor', NULL);
    INSERT INTO permissions (id, name, description) VALUES (20, 'delete_contact', NULL), (21, 'view_contacts', 'Mine');
    INSERT INTO role_permissions (role_id, permission_id) VALUES (11, 20), (11, 20), (11, 21);
    INSERT INTO api_client_roles (api_client_id, role_id) VALUES ('id_one', 11), ('id_one', 11), ('id_off', 10);
    SELECT setval('roles_id_seq', 100), setval('permissions_id_seq', 100);
    INSERT INTO emails (email_id, primary_email, basket_token) VALUES
        ('5f3cbf09-11a8-4ab7-9a3b-8a4f1a4d9e11', 'Odd one', 'no-uuid');
    INSERT INTO amo (email_id) VALUES ('5f3cbf09-11a8-4ab7-9a3b-8a4f1a4d9e11');
    INSERT INTO waitlists (email_id, name, subscribed, fields) VALUES
        ('5f3cbf09-11a8-4ab7-9a3b-8a4f1a4d9e11', 'vpn', true, '["\\u0000"]');
"""


@pytest.fixture(scope="module")
def url(postgres: str, worker_id: str) -> str:
    return empty_database(postgres, f"migrations_{worker_id}")


@pytest.fixture
def flask(url: str, postgres: str, worker_id: str, tmp_path: Path) -> Flask:
    """Runs `flask …` as an operator does, on an empty database."""
    empty_database(postgres, f"migrations_{worker_id}")
    environment = environment_for(tmp_path, CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        done = run_flask(*arguments, environment=environment)
        assert done.returncode == 0, done.stderr
        return done

    return run


def _committed_in_parts() -> list[Any]:
    """Return the migrations that commit parts before their end."""
    revisions = ScriptDirectory(str(MIGRATIONS)).walk_revisions()
    return [
        pytest.param(one.down_revision, one.revision, id=Path(one.path).stem)
        for one in revisions
        if "autocommit_block" in Path(one.path).read_text()
    ]


@pytest.mark.parametrize(("before", "revision"), _committed_in_parts())
def test_a_migration_that_was_interrupted_is_repeated(flask: Flask, url: str, before: str, revision: str) -> None:
    """Its parts are committed, and only its revision is not stored."""
    flask("db", "upgrade", revision)
    with psycopg.connect(libpq_url(url)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", (before,))
    flask("db", "upgrade", revision)
    flask("db", "downgrade", before)
    with psycopg.connect(libpq_url(url)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = %s", (revision,))

    flask("db", "downgrade", before)

    flask("db", "upgrade")


def query(url: str, sql: str) -> list[Any]:
    with psycopg.connect(libpq_url(url)) as connection:
        cursor = connection.execute(sql)
        return cursor.fetchall() if cursor.description is not None else []


def schema(url: str) -> set[Any]:
    """Everything about tables, columns, constraints, indexes and functions that a migration may change."""
    return {
        *query(
            url,
            "SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default"
            " FROM information_schema.columns WHERE table_schema = 'public'",
        ),
        *query(
            url,
            "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
            " WHERE connamespace = 'public'::regnamespace",
        ),
        *query(url, "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"),
        *query(url, "SELECT proname, prosrc FROM pg_proc WHERE pronamespace = 'public'::regnamespace"),
        *query(url, "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"),
    }


def test_the_revisions_are_one_line_from_where_existing_deployments_stand() -> None:
    script = ScriptDirectory(str(MIGRATIONS))

    assert len(script.get_heads()) == 1
    assert script.get_bases() == [FIRST]
    revisions = list(script.walk_revisions())
    assert all(not revision.is_branch_point and not revision.is_merge_point for revision in revisions)
    for revision in revisions:
        name = Path(revision.path).name
        assert re.fullmatch(rf"\d{{8}}_{revision.revision}_[a-z0-9_]+\.py", name)
    assert len(list((MIGRATIONS / "versions").glob("*.py"))) == len(revisions)


def test_a_merged_contact_does_not_lead_to_a_younger_one(flask: Flask, url: str) -> None:
    flask("db", "upgrade", "1d7c93ae5f08")
    query(
        url,
        "WITH targets AS (INSERT INTO emails (email_id, primary_email, create_timestamp)"
        " SELECT gen_random_uuid(), n || '@example.com', now() - n * interval '1 day' FROM generate_series(1, 2) AS n"
        " RETURNING email_id, create_timestamp)"
        " INSERT INTO contact_tombstones (email_id, deleted_at, merged_into)"
        " SELECT gen_random_uuid(), now() - interval '36 hours', email_id FROM targets",
    )

    flask("db", "upgrade")

    found = query(
        url,
        "SELECT e.primary_email FROM contact_tombstones t LEFT JOIN emails e ON e.email_id = t.merged_into ORDER BY 1",
    )
    assert found == [("2@example.com",), (None,)]


def test_upgrade_downgrade_and_upgrade_match_the_models(flask: Flask, url: str) -> None:
    flask("db", "upgrade")
    assert "No new upgrade operations detected" in "".join(flask("db", "check").stdout.splitlines()[-1:])
    up = schema(url)

    flask("db", "downgrade", FIRST)
    first = schema(url)
    flask("db", "upgrade")
    assert schema(url) == up

    flask("db", "downgrade", "base")
    left = {row[0] for row in query(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert left <= {"alembic_version"}
    flask("db", "upgrade", FIRST)
    assert schema(url) == first
    flask("db", "upgrade")
    assert schema(url) == up


def test_an_existing_deployment_is_upgraded(flask: Flask, url: str) -> None:
    flask("db", "upgrade", FIRST)
    query(url, EXISTING)

    flask("db", "upgrade")

    roles = query(
        url,
        "SELECT r.name, array_agg(DISTINCT p.name ORDER BY p.name) FROM roles r"
        " JOIN role_permissions g ON g.role_id = r.id JOIN permissions p ON p.id = g.permission_id"
        " GROUP BY 1 ORDER BY 1",
    )
    every = [
        "delete_contacts",
        "export_contacts",
        "list_contacts",
        "manage_contacts",
        "merge_contacts",
        "search_contacts",
        "view_contacts",
        "view_erasures",
        "view_history",
    ]
    assert roles == [
        ("admin", every),
        ("auditor", ["delete_contact", "list_contacts", "view_contacts"]),
        ("editor", ["list_contacts", "manage_contacts", "view_contacts"]),
        ("viewer", ["list_contacts", "view_contacts"]),
    ]
    grants = query(
        url,
        "SELECT api_client_id, array_agg(r.name ORDER BY r.name)"
        " FROM api_client_roles g JOIN roles r ON r.id = g.role_id GROUP BY 1 ORDER BY 1",
    )
    assert grants == [("id_off", ["admin", "viewer"]), ("id_one", ["admin", "auditor"])]
    assert query(url, "SELECT count(*) FROM role_permissions WHERE role_id = 11") == [(3,)]
    assert query(url, "SELECT description FROM roles WHERE name = 'viewer'") == [("Our own",)]
    assert query(url, "SELECT description FROM permissions WHERE name = 'view_contacts'") == [("Mine",)]
    assert query(url, "SELECT primary_email, basket_token FROM emails") == [("Odd one", "no-uuid")]

    flask("db", "downgrade", FIRST)
    flask("db", "upgrade")
    assert query(url, "SELECT count(*) FROM api_client_roles") == [(4,)]
    query(url, "DELETE FROM emails")
    assert query(url, "SELECT count(*) FROM amo") == query(url, "SELECT count(*) FROM waitlists") == [(0,)]


def roles_of_clients(url: str) -> dict[str, list[str]]:
    """Return the names of each client's roles."""
    rows = query(
        url,
        "SELECT client_id, array_remove(array_agg(r.name ORDER BY r.name), NULL) FROM api_client"
        " LEFT JOIN api_client_roles g ON g.api_client_id = client_id LEFT JOIN roles r ON r.id = g.role_id GROUP BY 1",
    )
    return dict(rows)


@pytest.mark.parametrize("back_to", [FIRST, "3c5d1a9e7f10"])
def test_revoked_roles_stay_revoked_after_a_downgrade(flask: Flask, url: str, back_to: str) -> None:
    flask("db", "upgrade", FIRST)
    query(url, EXISTING)
    flask("db", "upgrade")
    assert roles_of_clients(url) == {"id_one": ["admin", "auditor"], "id_off": ["admin", "viewer"]}
    flask("ctms", "clients", "grant", "id_one", "viewer")
    flask("ctms", "clients", "revoke", "id_one", "admin")
    flask("ctms", "roles", "revoke", "editor", "manage_contacts")
    flask("ctms", "roles", "delete", "auditor", "--yes")
    flask("ctms", "roles", "delete", "viewer", "--yes")
    flask("ctms", "clients", "create", "id_new", "new@example.com")
    roles = query(url, "SELECT name, description FROM roles ORDER BY name")
    assert [name for name, _ in roles] == ["admin", "editor"]
    given = "SELECT r.name, p.name FROM role_permissions g JOIN roles r ON r.id = role_id JOIN permissions p"
    given += " ON p.id = permission_id WHERE r.name <> 'admin' ORDER BY 1, 2"
    assert query(url, given) == [("editor", "list_contacts"), ("editor", "view_contacts")]

    for _ in range(2):  # the older service creates a client of its own each time
        flask("db", "downgrade", back_to)
        old = "INSERT INTO api_client (client_id, email, enabled, hashed_secret)"
        query(url, f"{old} VALUES ('id_old', 'o@x.org', true, 'x') ON CONFLICT DO NOTHING")
        flask("db", "upgrade")

        assert roles_of_clients(url) == {"id_one": [], "id_off": ["admin"], "id_new": [], "id_old": []}
        assert query(url, "SELECT name, description FROM roles ORDER BY name") == roles
        assert query(url, given) == [("editor", "list_contacts"), ("editor", "view_contacts")]


def permission_grants(url: str, permission: str) -> list[str]:
    """Return the names of the roles that grant a permission."""
    found = query(
        url,
        "SELECT r.name FROM role_permissions g JOIN roles r ON r.id = role_id JOIN permissions p"
        f" ON p.id = permission_id WHERE p.name = '{permission}' ORDER BY 1",
    )
    return [name for (name,) in found]


@pytest.mark.parametrize("is_known", [False, True])
def test_roles_that_view_contacts_can_still_list_them(flask: Flask, url: str, is_known: bool) -> None:
    flask("db", "upgrade", "e5927bc14d06")
    query(url, "INSERT INTO roles (name) VALUES ('reader'), ('cleaner')")
    grant = "INSERT INTO role_permissions (role_id, permission_id) SELECT r.id, p.id FROM roles r, permissions p WHERE"
    query(url, f"{grant} (r.name, p.name) IN (('reader', 'view_contacts'), ('cleaner', 'delete_contacts'))")
    if is_known:
        query(url, "INSERT INTO permissions (name, description) VALUES ('list_contacts', 'Our own')")

    flask("db", "upgrade", "f1a60c8d4e27")

    assert permission_grants(url, "list_contacts") == ["admin", "editor", "reader", "viewer"]


def test_the_revoked_right_to_list_contacts_stays_revoked_after_a_downgrade(flask: Flask, url: str) -> None:
    flask("db", "upgrade")
    flask("ctms", "roles", "revoke", "viewer", "list_contacts")

    flask("db", "downgrade", "e5927bc14d06")
    flask("db", "upgrade")

    assert permission_grants(url, "list_contacts") == ["admin", "editor"]


def test_two_at_once_do_no_harm(flask: Flask, url: str, tmp_path: Path) -> None:
    environment = environment_for(tmp_path, CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY)

    upgrade_twice_at_once(environment)

    assert "(head)" in flask("db", "current").stdout
