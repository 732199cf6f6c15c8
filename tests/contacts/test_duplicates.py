"""Contacts that share an identity: which are found, once each, and which of them is proposed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from flask import Flask

from ctms.contacts import duplicates
from ctms.contacts.duplicates import Duplicates, find_duplicates, propose
from ctms.database import pool
from ctms.database.pool import Connection
from tests.contacts.rows import execute, insert, insert_contact
from tests.plans import fill_contacts, plan_of


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:  # noqa: ARG001  inside the app's transaction
    execute("DELETE FROM emails")
    with pool.acquire() as acquired:
        yield acquired


def contact(address: str | None = None, account: str | None = None, **parts: dict[str, Any]) -> str:
    """Insert a contact with these addresses and parts, and return its id."""
    own = {"primary_email": address} if address else {}
    email_id = insert_contact(**own, **parts.pop("email", {}))
    if account:
        insert("fxa", email_id=email_id, primary_email=account)
    for table, columns in parts.items():
        insert(table, email_id=email_id, **columns)
    return email_id


def found(connection: Connection) -> list[tuple[str, set[str]]]:
    """Return the identity and the contacts of all duplicates; each has its true number."""
    rows = list(find_duplicates(connection))
    assert [row.number for row in rows] == [len(row.email_ids) for row in rows]
    return [(row.identity, set(map(str, row.email_ids))) for row in rows]


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("sfdc_id", {"email": {"sfdc_id": "s"}}),
        ("amo_user_id", {"amo": {"user_id": "u"}}),
        ("mofo_contact_id", {"mofo": {"mofo_contact_id": "c"}}),
    ],
)
def test_a_shared_identity(connection: Connection, name: str, part: dict[str, Any]) -> None:
    both = {contact(**part), contact(**part)}
    contact()

    assert found(connection) == [(name, both)]


def test_blank_identities_are_not_shared(connection: Connection) -> None:
    for _ in range(2):
        contact(email={"sfdc_id": ""}, account="", amo={"user_id": None})

    assert found(connection) == []


def test_an_account_address_in_another_case_and_as_own_address(connection: Connection) -> None:
    shared = {contact(account="Jane@example.com"), contact(account="jane@EXAMPLE.com"), contact("JANE@example.com")}
    contact("joe@example.com", account="joe@example.com")

    assert found(connection) == [("fxa_primary_email", shared)]


def test_spellings_of_an_address_are_found_once(connection: Connection) -> None:
    own = {contact("ines@münchen.example.com"), contact("INES@xn--mnchen-3ya.example.com")}
    mixed = {contact("rené@example.com"), contact(account="rene\N{COMBINING ACUTE ACCENT}@example.com")}
    accounts = {contact(account="a@bücher.example.com"), contact(account="a@xn--bcher-kva.example.com")}
    contact("alone@bücher.example.com", account="alone@xn--bcher-kva.example.com")

    assert sorted((name, sorted(ids)) for name, ids in found(connection)) == sorted(
        [("primary_email", sorted(own)), ("primary_email", sorted(mixed)), ("fxa_primary_email", sorted(accounts))]
    )


def test_all_are_found_in_ranges_of_any_size(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    shared = [(f"s{number}", {contact(email={"sfdc_id": f"s{number}"}) for _ in range(number)}) for number in range(5)]
    wanted = [("sfdc_id", ids) for _, ids in shared if len(ids) > 1]

    for batch in (1, 2, 3, 7, 100):
        monkeypatch.setattr(duplicates, "BATCH", batch)
        assert found(connection) == wanted


def test_of_many_contacts_the_first_are_listed(connection: Connection) -> None:
    execute(
        "INSERT INTO emails (primary_email, sfdc_id) SELECT n || '@example.com', 'same' FROM generate_series(1, 300) n"
    )

    (row,) = find_duplicates(connection)

    assert (row.number, len(row.email_ids)) == (300, duplicates.MAX_LISTED)


def test_statements_read_indexes(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every statement of the search for shared values is a range of an index, even before the first duplicate."""
    fill_contacts(connection)
    connection.execute("UPDATE emails SET sfdc_id = primary_email")
    connection.execute("INSERT INTO amo (email_id, user_id) SELECT email_id, left(primary_email, 40) FROM emails")
    connection.execute("INSERT INTO mofo (email_id, mofo_contact_id) SELECT email_id, primary_email FROM emails")
    connection.execute("ANALYZE emails, amo, mofo, fxa")
    monkeypatch.setattr(duplicates, "BATCH", 100)
    plans: list[str] = []

    class Explaining:
        """A connection that records the plans of statements about ranges."""

        def execute(self, sql: str, values: Any = ()) -> Any:
            if "boundary" in values:
                plans.append(plan_of(connection, sql, values))
            return connection.execute(sql, values)

    assert list(find_duplicates(Explaining())) == []  # type: ignore[arg-type]

    assert len(plans) == 4 * 2 * 50
    assert not [plan for plan in plans if "Seq Scan" in plan][:1]


class TestProposal:
    @pytest.mark.parametrize(
        ("better", "reason"),
        [
            ({"fxa": {"fxa_id": "f"}}, "has an account"),
            ({"email": {"double_opt_in": True}}, "has a confirmed address"),
            ({"email": {"update_timestamp": datetime(2030, 1, 1, tzinfo=UTC)}}, "changed last"),
        ],
    )
    def test_the_better_one(self, connection: Connection, better: dict[str, Any], reason: str) -> None:
        moment = {"update_timestamp": datetime(2020, 1, 1, tzinfo=UTC)}
        others = [contact(email=moment, fxa={"fxa_id": "deleted", "account_deleted": True}), contact(email=moment)]
        best = contact(**{**better, "email": {**moment, **better.get("email", {})}})

        proposal = propose(connection, Duplicates("sfdc_id", 3, [uuid.UUID(one) for one in (*others, best)]))

        assert proposal is not None
        assert (str(proposal.target), proposal.reason) == (best, reason)
        assert set(map(str, proposal.others)) == set(others)

    def test_equal_ones(self, connection: Connection) -> None:
        moment = {"update_timestamp": datetime(2020, 1, 1, tzinfo=UTC)}
        ids = sorted(contact(email=moment) for _ in range(3))

        proposal = propose(connection, Duplicates("sfdc_id", 3, [uuid.UUID(one) for one in ids]))

        assert proposal is not None
        assert (str(proposal.target), proposal.reason) == (ids[0], "first by id")

    def test_contacts_that_have_gone(self, connection: Connection) -> None:
        assert propose(connection, Duplicates("sfdc_id", 2, [uuid.UUID(contact()), uuid.uuid4()])) is None
