"""Frequent queries cost the same with ten or a hundred thousand pending contacts."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from flask import Flask

from ctms.database import pool
from ctms.outbox import deletions
from ctms.outbox.lanes import BACKEND, HANDLER
from ctms.sync import backends, due, erasure_tasks, known_receivers, mirrored, receiver_states
from tests.plans import plan_of

MANY = 20_000
ERASURE = uuid4()


@pytest.fixture(params=["all due", "none due"])
def filled(request: pytest.FixtureRequest, app: Flask) -> None:  # noqa: ARG001  inside its transaction
    """Much waits. It is analysed in the transaction that inserted it: autovacuum can change nothing meanwhile."""
    due = "now()" if request.param == "all due" else "now() + interval '1 hour'"
    with pool.acquire() as connection:
        connection.execute(f"""
            INSERT INTO outbox (backend, email_id, version, priority, waiting_since, due_at, attempts, failures)
            SELECT 'other', gen_random_uuid(), n, -(n % 2), now(), {due}, 0, 0 FROM generate_series(1, {MANY}) AS n""")
        connection.execute(f"""
            WITH erasure AS (
                INSERT INTO erasures (id, requested_at, requested_by, origin, forget, contacts, unknown)
                SELECT gen_random_uuid(), now(), 'operator:x', 'command', false, {MANY}, 0 RETURNING id),
            handler AS (
                INSERT INTO erasure_handlers
                    (erasure_id, handler, pending, done, verified, parked, started_at, changed_at)
                SELECT id, 'other', {MANY}, 0, 0, 0, now(), now() FROM erasure RETURNING erasure_id)
            INSERT INTO erasure_tasks
                (erasure_id, handler, identities, step, waiting_since, due_at, attempts, failures)
            SELECT erasure_id, 'other', '{{}}', 'erase', now(), {due}, 0, 0
            FROM handler, generate_series(1, {MANY})""")
        connection.execute(f"""
            WITH erasure AS (
                INSERT INTO erasures (id, requested_at, requested_by, origin, forget, contacts, unknown)
                SELECT '{ERASURE}', now(), 'operator:x', 'command', false, {MANY}, 0 RETURNING id),
            backend AS (
                INSERT INTO erasure_backends (erasure_id, backend, pending, done, parked, started_at, changed_at)
                SELECT id, 'other', {MANY}, 0, 0, now(), now() FROM erasure RETURNING erasure_id)
            INSERT INTO erasure_deletions (erasure_id, backend, email_id, parked)
            SELECT erasure_id, 'other', o.email_id, true FROM backend, outbox o WHERE o.backend = 'other'""")
        connection.execute("INSERT INTO outbox_mirrored SELECT backend, email_id FROM outbox")
        connection.execute("ANALYZE outbox, outbox_mirrored, receivers, erasures")
        connection.execute("ANALYZE erasure_handlers, erasure_tasks, erasure_backends, erasure_deletions")


def looked_at(plan: Any) -> int:
    """Return how many rows a plan and its parts have found or thrown away."""
    here = plan["Actual Rows"] * plan["Actual Loops"] + plan.get("Rows Removed by Filter", 0)
    return int(max([here, *(looked_at(part) for part in plan.get("Plans", []))]))


OF_ERASURE = {"erasure": ERASURE, "backend": "other", "limit": 100}
SOME = [uuid4() for _ in range(100)]
STALLED, BEHIND = deletions._STALLED, deletions._BEHIND
OF_BACKEND = {"backend": "other", "lanes": 1, "number": 0, "limit": 100}
QUESTIONS: dict[str, tuple[str, Any]] = {
    "edits": (backends._CLAIM, {**OF_BACKEND, "priority": 0}),
    "pushed again": (backends._CLAIM, {**OF_BACKEND, "priority": -1}),
    "one of four lanes": (backends._CLAIM, {**OF_BACKEND, "lanes": 4, "priority": 0}),
    "erasures": (erasure_tasks._CLAIM, ("other", 1, 1, 0, 100)),
    "erasures in four lanes": (erasure_tasks._CLAIM, ("other", 4, 4, 0, 100)),
    "contacts that a backend may have": (mirrored._FIND, {"backend": "other", "ids": SOME}),
    "deletions": (deletions._FIND, ("other", SOME)),
    "parked deletions": (deletions._PARKED, ("other", SOME)),
    "deletions to retry": (STALLED.format(behind=""), OF_ERASURE),
    "further deletions to retry": (
        STALLED.format(behind=BEHIND),
        {**OF_ERASURE, "last": ERASURE},
    ),
    "receivers that erasures wait for": (known_receivers._AWAITED, ()),
    "receivers that are known": (known_receivers._KNOWN, ()),
    "due for backends": (due._OF_KIND[BACKEND], (["other", "else"],)),
    "due for handlers": (due._OF_KIND[HANDLER], (["other", "else"],)),
}


@pytest.mark.usefixtures("filled")
def test_few_rows_are_looked_at() -> None:
    with pool.acquire() as connection:
        plans = {
            question: connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values).fetchall()
            for question, (sql, values) in QUESTIONS.items()
        }

    many = {question: plan for question, [([plan],)] in plans.items() if looked_at(plan["Plan"]) >= 1000}
    assert not many


@pytest.mark.usefixtures("app")
@pytest.mark.parametrize(
    ("kind", "counted", "other"), [(BACKEND, "outbox", "erasure_tasks"), (HANDLER, "erasure_tasks", "outbox")]
)
def test_one_table_is_counted_and_only_for_those_that_are_named(kind: str, counted: str, other: str) -> None:
    with pool.acquire() as connection:
        plan = plan_of(connection, receiver_states._WAITING, (kind, ["other"]))

    assert f"on {counted}" in plan
    assert f"on {other}" not in plan
    assert " = ANY ('{other}'::text[])" in plan
