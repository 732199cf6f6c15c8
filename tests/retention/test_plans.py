"""A window costs the same in a small and in a large table."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask

from ctms.database import pool
from ctms.retention.candidates import _FIRST, Scan
from ctms.retention.holds import HeldContacts
from ctms.retention.policy import ERASE, RetentionPolicy, RetentionRule
from ctms.retention.run import _RuleWork, database_time
from ctms.search.conditions import parse_condition
from tests.plans import plan_of

NUMBER = 20_000
WHEN = {
    "has_subscription": False,
    "has_fxa": False,
    "not": {"waitlists": {"name": "vpn", "fields": {"geo": "ca"}}},
    "or": [{"newsletters": {"name": "news", "state": "any"}}, {"account_deleted": True}],
    "create_timestamp": {"older_than": "1y"},
}
POLICY = RetentionPolicy([RetentionRule("old", ERASE, parse_condition(WHEN))])


@pytest.fixture
def filled(app: Flask) -> None:  # noqa: ARG001  inside its transaction
    """Many contacts, analysed in the transaction that inserted them: autovacuum can change nothing meanwhile."""
    with pool.acquire() as connection:
        connection.execute(
            "INSERT INTO emails (primary_email, update_timestamp)"
            " SELECT 'planned-' || n || '@example.com', now() - n * interval '1 minute'"
            " FROM generate_series(1, %s) AS n",
            (NUMBER,),
        )
        # Else each check of a foreign key may read the whole table, as it was best before, when the table was small.
        connection.execute("ANALYZE emails")
        for table in ("newsletters", "waitlists"):
            connection.execute(
                f"INSERT INTO {table} (email_id, name, subscribed) SELECT email_id, 'news', true FROM emails"
            )
        connection.execute("INSERT INTO fxa (email_id, account_deleted) SELECT email_id, true FROM emails")
        connection.execute("ANALYZE emails, newsletters, waitlists, fxa")


@pytest.mark.usefixtures("filled")
def test_a_window_reads_only_its_contacts() -> None:
    with pool.acquire() as connection:
        scan = Scan(POLICY, database_time(connection))
        plan = plan_of(connection, scan._sql, [*_FIRST, scan.now, 5_000, *scan._values])

    assert "bulk_read_index" in plan
    assert "Seq Scan" not in plan


@pytest.mark.usefixtures("filled")
def test_the_check_of_a_batch_reads_only_its_contacts() -> None:
    with pool.acquire() as connection:
        # Few of many, as in a large table: a batch is up to 500 of millions.
        found = connection.execute("SELECT email_id, update_timestamp FROM emails LIMIT 20").fetchall()
        work = _RuleWork(POLICY.rules[0], HeldContacts(POLICY.hold), database_time(connection), "operator:ops")
        ids: list[Any] = [email_id for email_id, _ in found]
        plan = plan_of(connection, work._sql, [ids, [moment for _, moment in found], *work._values, ids])

    assert "Seq Scan" not in plan
