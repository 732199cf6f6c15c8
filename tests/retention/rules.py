"""Retention files and contacts for tests, and runs inside a test's transaction."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from flask import Flask

from ctms.database import pool
from ctms.database.pool import Connection
from ctms.retention.policy import ERASE, LegalHold, RetentionPolicy, RetentionRule
from ctms.retention.run import RunOptions, RunResult, apply_rules
from ctms.search.conditions import parse_condition

COUNTRY = "zz-retention"
"""The country of the contacts that the rules of a test match."""


def rule(name: str = "old", action: str = ERASE, **when: Any) -> RetentionRule:
    """Return a rule for the test's contacts, and further tests of its condition."""
    return RetentionRule(name, action, parse_condition({"mailing_country": COUNTRY, **when}))


def policy(*rules: RetentionRule, ids: Any = (), keys: Any = ()) -> RetentionPolicy:
    """Return a policy of these rules, with a legal hold."""
    return RetentionPolicy(rules or [rule()], LegalHold(frozenset(ids), frozenset(keys)))


def run(given: RetentionPolicy, *, connection: Connection | None = None, **options: Any) -> RunResult:
    """Apply the rules."""
    chosen = RunOptions(**{"by": "operator:ops", "maximum": 1000, **options})
    if connection is not None:
        return apply_rules(connection, given, chosen)
    with pool.acquire() as acquired:
        return apply_rules(acquired, given, chosen)


def insert(connection: Connection, number: int = 1, **columns: Any) -> list[UUID]:
    """Insert contacts that the rules match, changed at different times, the oldest first; return their ids."""
    ids = [uuid.uuid4() for _ in range(number)]
    for position, email_id in enumerate(ids):
        row = {"email_id": email_id, "primary_email": f"{email_id.hex}@example.com", "mailing_country": COUNTRY}
        row |= columns
        connection.execute(
            f"INSERT INTO emails ({', '.join(row)}, create_timestamp, update_timestamp)"
            f" VALUES ({', '.join(['%s'] * len(row))}, '2020-01-01', '2020-01-01'::timestamptz + %s * interval '1 s')",
            [*row.values(), position],
        )
    return ids


def make(number: int = 1, **columns: Any) -> list[UUID]:
    """Insert contacts in the test's transaction."""
    with pool.acquire() as connection:
        return insert(connection, number, **columns)


def left(ids: Any) -> set[UUID]:
    """Return which of the contacts exist."""
    with pool.acquire() as connection:
        rows = connection.execute("SELECT email_id FROM emails WHERE email_id = ANY(%s)", (list(ids),)).fetchall()
    return {email_id for (email_id,) in rows}


def write(folder: Path, text: str, **lists: str) -> Path:
    """Write a retention file, and lists by name."""
    for name, content in lists.items():
        (folder / f"{name}.txt").write_text(content, encoding="utf-8")
    path = folder / "retention.toml"
    path.write_text(text, encoding="utf-8")
    return path


def configure(app: Flask, patches: pytest.MonkeyPatch, file: Path | None) -> None:
    """Set CTMS_RETENTION_FILE for an app."""
    patches.setitem(app.extensions, "ctms.settings", replace(app.extensions["ctms.settings"], retention_file=file))
