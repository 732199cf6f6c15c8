"""Pages of a search read few rows, whatever matches, and all through indexes."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings

from ctms.database import pool
from ctms.database.pool import Connection
from ctms.search import pages
from ctms.search.conditions import parse_condition
from ctms.search.pages import UnindexedError, choose_scans, from_cursor, page_statement, to_cursor
from tests.search import people
from tests.search.people import INDEXED, NOW, Contact, is_indexed, matches, random_contact

SEED = 20260302
NUMBER = 10_000
OLD = datetime(2020, 1, 1, tzinfo=UTC)

TABLES = ("emails", "amo", "fxa", "mofo", "newsletters", "waitlists")


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:  # noqa: ARG001  inside the app's transaction
    with pool.acquire() as acquired:
        yield acquired


def store(connection: Connection, number: int) -> list[Contact]:
    chance = random.Random(SEED)  # noqa: S311  not for secrets
    contacts = [random_contact(chance) for _ in range(number)]
    people.store(connection, contacts)
    connection.execute(f"ANALYZE {', '.join(TABLES)}")
    return contacts


@pytest.fixture
def few(connection: Connection) -> list[Contact]:
    return store(connection, 150)


def walk(connection: Connection, condition: Any, limit: int, window: int) -> Iterator[list[UUID]]:
    """Yield the ids of each page."""
    where, after = parse_condition(condition), None
    while True:
        page = pages.search(connection, where, now=NOW, limit=limit, after=after, window=window)
        yield [UUID(json.loads(document)["email"]["email_id"]) for document in page.documents]
        if page.after is None:
            return
        after = page.after


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(condition=INDEXED)
def test_short_pages_leave_nothing_out(connection: Connection, few: list[Contact], condition: Any) -> None:
    if not is_indexed(condition):
        with pytest.raises(UnindexedError, match="no index serves it"):
            list(walk(connection, condition, 10, 7))
        return
    expected = sorted(one["email"]["email_id"] for one in few if matches(condition, one))

    for limit, window in ((10, 7), (4, 7), (1000, 1000)):
        pages = list(walk(connection, condition, limit, window))
        assert [one for page in pages for one in page] == expected
        assert all(len(page) <= limit for page in pages)


def test_a_page_is_short_if_few_of_the_contacts_match(connection: Connection, few: list[Contact]) -> None:
    condition = {"mailing_country": ["ca", "us"], "and": [{"double_opt_in": True}, {"double_opt_in": False}]}

    pages = list(walk(connection, condition, 10, 7))

    assert len(pages) > 5
    assert not any(pages)
    assert any(one["email"]["mailing_country"] == "us" for one in few)


def test_a_cursor_is_read_as_it_was_written() -> None:
    position = UUID("93db83d4-4119-4e0c-af87-a713786fa81d")

    assert from_cursor(to_cursor(position)) == position
    for other in ("", "x", "AAAA", "é", to_cursor(position) + "A", "a b"):
        with pytest.raises(ValueError, match="not a cursor"):
            from_cursor(other)


Plan = dict[str, Any]


def explain(connection: Connection, condition: Any, limit: int = 100, after: UUID | None = None) -> Plan:
    """Run a page and return its plan."""
    where = parse_condition(condition)
    chosen = choose_scans(connection, where, NOW)
    sql, values = page_statement(where, chosen, now=NOW, limit=limit, after=after, document=None, window=pages.WINDOW)
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", values).fetchone()
    assert row is not None
    plan: Plan = row[0][0]["Plan"]
    return plan


def nodes(plan: Plan) -> Iterator[Plan]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from nodes(inner)


def rows_of_ids(plan: Plan) -> int:
    """Return how many ids the page read from the indexes."""
    found: int = next(node for node in nodes(plan) if node.get("Subplan Name") == "CTE ids")["Actual Rows"]
    return found


def lookups(plan: Plan) -> set[str | None]:
    """Return the indexes by which contacts are looked up one by one."""
    found = [node for node in nodes(plan) if node.get("Relation Name") == "emails" and node["Actual Loops"] > 1]
    return {node.get("Index Name") for node in found}


ANCHORS: list[tuple[Any, str]] = [
    ({"newsletters": "news"}, "idx_newsletters_name"),
    ({"newsletters": {"name": "news", "state": "unsubscribed", "source": "https://a"}}, "idx_newsletters_name"),
    ({"waitlists": {"name": "vpn", "fields": {"geo": "ca"}}}, "idx_waitlists_name"),
    ({"mailing_country": "ca"}, "idx_emails_mailing_country"),
    ({"mailing_country": ["ca", "us"]}, "idx_emails_mailing_country"),
    ({"email_lang": "fr"}, "idx_emails_email_lang"),
    ({"create_timestamp": {"newer_than": "3d"}}, "idx_emails_create_timestamp"),
    ({"update_timestamp": {"newer_than": "3d"}}, "bulk_read_index"),
    ({"has_opted_out_of_email": True}, "idx_emails_opted_out"),
    ({"has_amo": True}, "amo_email_id_key"),
    ({"has_fxa": True}, "fxa_email_id_key"),
    ({"account_deleted": True}, "fxa_email_id_key"),
    ({"has_mofo": True}, "mofo_email_id_key"),
    ({"mofo_relevant": True}, "mofo_email_id_key"),
    ({"or": [{"waitlists": "vpn"}, {"mailing_country": "ca"}], "not": {"has_fxa": True}}, "idx_waitlists_name"),
    ({"has_fxa": True, "has_subscription": False, "double_opt_in": True}, "fxa_email_id_key"),
]


def test_every_plan_uses_indexes_and_reads_no_more_than_the_page_needs(connection: Connection) -> None:
    """A table of this size fits into few blocks, where reading it whole is cheap: so that is made expensive.

    What matters for two million contacts is that an index serves each plan, and that its size does not matter.
    """
    store(connection, NUMBER)
    connection.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off")
    for condition, index in ANCHORS:
        plan = explain(connection, condition, limit=5)
        kinds = [(node["Node Type"], node.get("Relation Name")) for node in nodes(plan)]
        assert not [table for kind, table in kinds if kind == "Seq Scan" and table in TABLES], condition
        assert index in {node.get("Index Name") for node in nodes(plan)}, condition
        assert lookups(plan) == {"emails_pkey"}, condition
        if not re.search("timestamp|account_deleted", str(condition)):
            # Read on demand, in order: no more ids than the contacts that had to be looked at.
            assert rows_of_ids(plan) <= 1000, (condition, rows_of_ids(plan))


def test_the_rarest_test_finds_the_contacts(connection: Connection) -> None:
    contacts = store(connection, NUMBER)
    email_id = contacts[0]["email"]["email_id"]
    connection.execute("INSERT INTO newsletters (email_id, name) VALUES (%s, 'rare')", (email_id,))
    connection.execute("ANALYZE newsletters")

    plan = explain(connection, {"mailing_country": ["ca", "us"], "newsletters": "rare", "has_fxa": True})

    assert rows_of_ids(plan) == 1


def test_rare_matches_do_not_read_all_contacts(connection: Connection) -> None:
    """The planner expects matches to be spread evenly; here, those of a time are behind all others."""
    store(connection, NUMBER)
    others = "email_id < 'f0000000-0000-4000-8000-000000000000'"
    connection.execute(f"UPDATE emails SET create_timestamp = %s WHERE {others}", (OLD,))
    connection.execute("ANALYZE emails")
    condition = {"create_timestamp": {"since": "2024-01-01"}, "double_opt_in": True}

    plan = explain(connection, condition, limit=5)

    assert lookups(plan) == {"emails_pkey"}
    (ids,) = next(node for node in nodes(plan) if node.get("Subplan Name") == "CTE ids")["Plans"]
    assert "emails_pkey" not in {node.get("Index Name") for node in nodes(ids)}
