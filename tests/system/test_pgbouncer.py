"""The API and the worker through PgBouncer, in both modes, also when it moves to a promoted replica."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contacts.factories import minimal
from tests.installed import needs
from tests.serving import Served, serve
from tests.system.pgbouncer import SESSION, TRANSACTION, pgbouncer, set_role
from tests.system.replication import admin_of, replicated, settings_for
from tests.system.test_failover import worker, write_until_it_works
from tests.waiting import until

pytestmark = needs("pgbouncer")

NEWSLETTER = "pooled"
REPETITIONS = 8
"""psycopg prepares a statement when it is executed for the sixth time on a connection."""


def use(running: Served, token: str) -> set[str]:
    """Create, read, change, search and list contacts, again and again; return their ids."""
    ids: set[str] = set()
    with requests.Session() as session:
        session.headers["Authorization"] = f"Bearer {token}"

        def call(method: str, path: str, json: Any = None) -> Any:
            answer = session.request(method, f"{running.url}{path}", json=json, timeout=60)
            assert answer.ok, answer.text
            return answer.json()

        for _ in range(REPETITIONS):
            created = call("POST", "/ctms", {**minimal(), "newsletters": [{"name": NEWSLETTER}]})["email"]["email_id"]
            ids.add(created)
            assert call("GET", f"/ctms/{created}")["email"]["first_name"] is None
            assert call("PATCH", f"/ctms/{created}", {"email": {"first_name": "Jane"}})["email"]["first_name"] == "Jane"
            search = {"filter": {"newsletters": NEWSLETTER}, "limit": 1000}
            assert ids <= _ids(call("POST", "/ctms/search", search))
            # A list of updates ends before the start of a transaction that still writes, as the other thread may.
            listed = until(
                lambda: _ids(call("GET", "/updates?start=2020-01-01&limit=1000")), lambda listed: ids <= listed
            )
            assert ids <= listed
    return ids


def _ids(page: Any) -> set[str]:
    return {item["email"]["email_id"] for item in page["items"]}


@pytest.mark.parametrize("pool_mode", [TRANSACTION, SESSION])
def test_a_service_behind_pgbouncer(tmp_path: Path, pool_mode: str) -> None:
    pushed = tmp_path / "contacts.jsonl"
    pushed.touch()
    with replicated(tmp_path) as (primary, replica), pgbouncer(tmp_path, primary, pool_mode) as proxy:
        set_role(primary)
        variables = {
            **settings_for(primary),
            **proxy.settings,
            "CTMS_DB_READ_URL": replica.url,
            "CTMS_PLUGIN_JSONL_PATH": str(pushed),
        }
        with serve(tmp_path, **variables) as running:
            admin = admin_of(running)
            token, session = admin.token(), admin.session()
            with ThreadPoolExecutor(2) as threads:
                ids = set().union(*threads.map(lambda _: use(running, token), range(2)))
            done = running.flask("ctms", "worker", "--once")
            assert done.returncode == 0, done.stderr
            assert len(ids) == 2 * REPETITIONS
            assert all(one in pushed.read_text() for one in ids)
            locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            assert until(lambda: primary.execute(locks), lambda number: number == 0) == 0

            replica.catch_up(primary)
            primary.stop()
            replica.promote()
            proxy.point_to(replica)
            with worker(running):
                write_until_it_works(session, running)
            ids |= use(running, token)
            assert ids <= _ids(session.get(f"{running.url}/updates?start=2020-01-01&limit=1000", timeout=60).json())
