"""Work lists, their processing in batches, and bulk deletion."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from ctms.bulk.batches import BAD_LINE, FAILED, FOUND, MAX_ATTEMPTS, UNKNOWN, ItemOutcome, process_batches
from ctms.bulk.entries import Entry
from ctms.bulk.report import BulkReport
from ctms.bulk.worklist import WorkItem
from ctms.contacts import removal
from ctms.database.pool import Connection
from ctms.erasure.deletion import ERASED, ERASED_BEFORE, BulkDeletion
from ctms.erasure.erase import ORIGIN_COMMAND, ErasureRequest
from ctms.errors import ConflictError, OperatorError
from ctms.plugins import Backend, DeletionHandler, hookimpl
from tests.contacts.factories import full, minimal
from tests.contacts.rows import execute
from tests.erasure.listed import connection, erasure_key, named, nothing, outcomes, work_list
from tests.http import ApiClient
from tests.plans import fill_contacts, plan_of

__all__ = ["connection", "erasure_key"]


class Receivers:
    """A plugin whose receivers these tests never call."""

    def push(self, contacts: Any, idempotency_key: str) -> None: ...

    def erase(self, identities: Any) -> None: ...

    @hookimpl
    def ctms_backends(self) -> Iterator[Backend]:
        yield Backend(name="mirror", implementation=self)

    @hookimpl
    def ctms_deletion_handlers(self) -> Iterator[DeletionHandler]:
        yield DeletionHandler(name="newsletter", implementation=self)
        yield DeletionHandler(name="shop", implementation=self)


@pytest.fixture
def ctms_plugins(ctms_plugins: list[object]) -> list[object]:
    return [*ctms_plugins, Receivers()]


@pytest.fixture
def erasure_request() -> ErasureRequest:
    return ErasureRequest(by="operator:ops", origin=ORIGIN_COMMAND)


def entry(address: str, **more: Any) -> Entry:
    return Entry(None, address, **more)


def test_an_address_is_left_once_the_first(connection: Connection) -> None:
    entries = [
        Entry(1, "b@x"),
        Entry(2, "A@x"),
        Entry(3, None, problem="bad"),
        Entry(4, "a@X"),
        Entry(5, None, problem="bad"),
    ]

    worklist = work_list(connection, entries)

    items = next(worklist.batches(10))
    assert [(item.line, item.address, item.problem) for item in items] == [
        (1, "b@x", None),
        (2, "A@x", None),
        (3, None, "bad"),
        (5, None, "bad"),
    ]
    assert (worklist.read, worklist.total, worklist.duplicates, worklist.problems) == (5, 4, 1, 2)


def test_contacts_come_as_they_lie_on_the_disk(connection: Connection, make_contact: Callable[..., Any]) -> None:
    addresses = [make_contact()["email"]["primary_email"] for _ in range(5)]

    (items,) = work_list(connection, [entry("nobody@x"), *(entry(address) for address in reversed(addresses))]).batches(
        9
    )

    assert [item.address for item in items] == [*addresses, "nobody@x"]


def test_of_two_with_times_the_later_counts_of_equals_the_last(connection: Connection) -> None:
    early, late = datetime(2023, 1, 5, tzinfo=UTC), datetime(2023, 1, 6, tzinfo=UTC)
    entries = [
        *(entry("a@x", at=at, reason=reason) for at, reason in ((late, "1"), (early, "2"), (None, "3"))),
        *(entry("b@x", at=at, reason=reason) for at, reason in ((late, "1"), (late, "2"))),
        *(entry("c@x", reason=reason) for reason in ("1", "2")),
    ]

    (items,) = work_list(connection, entries, last_wins=True).batches(10)

    assert {item.address: (item.at, item.reason) for item in items} == {
        "a@x": (late, "1"),
        "b@x": (late, "2"),
        "c@x": (None, "2"),
    }


def test_batches_have_every_item_once(connection: Connection) -> None:
    worklist = work_list(connection, [entry(f"{number % 70}@x") for number in range(100)])

    batches = list(worklist.batches(30))

    assert [len(batch) for batch in batches] == [30, 30, 10]
    assert [item.address for batch in batches for item in batch] == [f"{number}@x" for number in range(70)]
    assert not list(work_list(connection, []).batches(10))


def test_known_addresses_are_counted(api: ApiClient, connection: Connection) -> None:
    contact = full()
    api.post("/ctms", contact)
    account = contact["fxa"]["primary_email"].upper()
    entries = [entry(contact["email"]["primary_email"].upper()), entry(account), entry("x@x")]

    assert work_list(connection, entries).known == 1
    assert work_list(connection, entries, of_accounts=True).known == 2


def test_reported_batches_are_complete_and_committed(connection: Connection) -> None:
    happened = []

    @contextmanager
    def defer_signals() -> Iterator[None]:
        happened.append("begin")
        yield
        happened.append("end")

    def on_commit(found: list[ItemOutcome]) -> None:
        happened.append(",".join(str(one.item.address or one.outcome) for one in found))

    entries = [entry("a@x"), Entry(2, None, problem="bad"), entry("b@x")]
    worklist = work_list(connection, entries)
    process_batches(worklist, nothing, on_commit, batch_size=2, pause=0, defer_signals=defer_signals)

    assert happened == ["begin", f"a@x,{BAD_LINE}", "end", "begin", "b@x", "end"]


def test_one_that_cannot_be_done_stops_no_other(connection: Connection) -> None:
    connection.execute("CREATE TEMPORARY TABLE parity (number bigint CONSTRAINT even CHECK (number % 50 <> 7))")

    def work(connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
        for item in items:
            connection.execute("INSERT INTO parity VALUES (%s)", (int((item.address or "").split("@")[0]),))
        return nothing(connection, items)

    found = outcomes(work_list(connection, [entry(f"{number}@x") for number in range(100)]), work, 64)

    assert [one.item.address for one in found if one.outcome == FAILED] == ["7@x", "57@x"]
    assert {one.problem for one in found if one.problem} == {"the database does not allow it: even"}
    assert connection.execute("SELECT count(*) FROM parity").fetchone() == (98,)
    assert [one.item.address for one in found] == [f"{number}@x" for number in range(100)]


def test_short_locks_are_waited_for(connection: Connection) -> None:
    tried = []

    def work(connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
        tried.append(len(items))
        if len(tried) < MAX_ATTEMPTS:
            raise errors.DeadlockDetected
        return nothing(connection, items)

    assert len(outcomes(work_list(connection, [entry("a@x"), entry("b@x")]), work)) == 2
    assert tried == [2] * MAX_ATTEMPTS


def test_a_locked_contact_fails_without_the_others(connection: Connection) -> None:
    def work(connection: Connection, items: Sequence[WorkItem]) -> list[ItemOutcome]:
        if any(item.address == "3@x" for item in items):
            raise errors.LockNotAvailable
        return nothing(connection, items)

    found = named(outcomes(work_list(connection, [entry(f"{number}@x") for number in range(5)]), work))

    assert found == {**{f"{number}@x": "seen" for number in range(5)}, "3@x": FAILED}


def test_an_error_that_no_retry_fixes_ends_the_run(connection: Connection) -> None:
    def work(_connection: Connection, _items: Sequence[WorkItem]) -> list[ItemOutcome]:
        raise errors.InsufficientPrivilege

    with pytest.raises(psycopg.Error):
        outcomes(work_list(connection, [entry("a@x")]), work)


@pytest.mark.usefixtures("erasure_key")
def test_only_listed_contacts_are_deleted(
    api: ApiClient, connection: Connection, erasure_request: ErasureRequest, make_contact: Callable[..., Any]
) -> None:
    kept = make_contact()
    contacts = [api.post("/ctms", body).json for body in (full(), minimal(), full())]
    addresses = [contact["email"]["primary_email"] for contact in contacts]
    execute("DELETE FROM outbox")
    worklist = work_list(connection, [entry(address.upper()) for address in (*addresses, "nobody@example.com")])

    found = outcomes(worklist, BulkDeletion(erasure_request).erase, batch_size=2)

    assert [one.outcome for one in found] == [ERASED, ERASED, ERASED, UNKNOWN]
    assert [str(one.email_id) for one in found[:3]] == [contact["email"]["email_id"] for contact in contacts]
    assert [(one.had_fxa, one.had_mofo) for one in found] == [(True, True), (False, False), (True, True), (None, None)]
    assert [execute(f"SELECT count(*) FROM {table}") for table in ("emails", "fxa", "newsletters")] == [1, 0, 0]
    assert api.get(f"/ctms/{kept['email']['email_id']}").status_code == 200
    assert execute("SELECT (id, requested_by, origin, forget, contacts, unknown)::text FROM erasures") == (
        f"({erasure_request.id},operator:ops,command,f,3,1)"
    )
    assert execute("SELECT count(*) FROM erasure_handlers WHERE pending = 3") == 2
    assert execute("SELECT count(*) FROM erasure_tasks") == 6
    assert execute("SELECT count(*) FROM outbox") == 3
    assert execute("SELECT count(*) FROM suppressions") == 0

    again = outcomes(worklist, BulkDeletion(ErasureRequest(by="operator:ops", origin=ORIGIN_COMMAND)).erase)

    assert [one.outcome for one in again] == [ERASED_BEFORE, ERASED_BEFORE, ERASED_BEFORE, UNKNOWN]
    assert execute("SELECT array_agg(unknown ORDER BY contacts) FROM erasures") == [1, 1], "nobody, each time"
    assert execute("SELECT count(*) FROM erasure_tasks") == 6


@pytest.mark.usefixtures("erasure_key")
def test_the_account_address_of_an_erased_contact_is_not_unknown(connection: Connection, api: ApiClient) -> None:
    contact = full()
    api.post("/ctms", contact)
    addresses = [contact["email"]["primary_email"], contact["fxa"]["primary_email"]]

    worklist = work_list(connection, map(entry, addresses))
    deletion = BulkDeletion(ErasureRequest(by="operator:ops", origin=ORIGIN_COMMAND))

    previewed, found = outcomes(worklist, deletion.preview), outcomes(worklist, deletion.erase)

    assert [one.outcome for one in previewed] == [FOUND, ERASED_BEFORE]
    assert [one.outcome for one in found] == [ERASED, ERASED_BEFORE]
    assert execute("SELECT (contacts, unknown)::text FROM erasures") == "(1,0)"


def test_without_a_key_an_address_erased_before_is_unknown(
    connection: Connection, erasure_request: ErasureRequest, make_contact: Callable[..., Any]
) -> None:
    worklist = work_list(connection, [entry(make_contact()["email"]["primary_email"])])

    assert [one.outcome for one in outcomes(worklist, BulkDeletion(erasure_request).erase)] == [ERASED]
    assert [one.outcome for one in outcomes(worklist, BulkDeletion(erasure_request).erase)] == [UNKNOWN]


@pytest.mark.usefixtures("erasure_key")
def test_forgotten_addresses_are_suppressed_even_without_a_contact(
    api: ApiClient, connection: Connection, make_contact: Callable[..., Any]
) -> None:
    address = make_contact()["email"]["primary_email"]
    erasure_request = ErasureRequest(by="operator:ops", origin=ORIGIN_COMMAND, forget=True)

    outcomes(work_list(connection, [entry(address), entry("nobody@example.com")]), BulkDeletion(erasure_request).erase)

    for forgotten in (address, "nobody@example.com"):
        assert api.post("/ctms", {"email": {"primary_email": forgotten.title()}}).status_code == 403


@pytest.mark.usefixtures("erasure_key")
def test_a_preview_changes_nothing(api: ApiClient, connection: Connection, erasure_request: ErasureRequest) -> None:
    contact = full()
    api.post("/ctms", contact)
    worklist = work_list(connection, [entry("x@x"), entry(contact["email"]["primary_email"].upper())])

    found = outcomes(worklist, BulkDeletion(erasure_request).preview)

    assert [(one.outcome, one.had_fxa, one.had_mofo) for one in found] == [
        ("found", True, True),
        ("unknown", None, None),
    ]
    assert [execute(f"SELECT count(*) FROM {table}") for table in ("emails", "erasures")] == [1, 0]


def test_a_preview_looks_up_no_address_that_was_unknown(
    api: ApiClient, connection: Connection, erasure_request: ErasureRequest
) -> None:
    before = [entry("first@example.com"), entry("second@example.com")]
    worklist = work_list(connection, before)
    assert [item.known for items in worklist.batches(10) for item in items] == [False, False]
    for one in before:
        assert api.post("/ctms", {"email": {"primary_email": one.address}}).status_code == 201

    assert [one.outcome for one in outcomes(worklist, BulkDeletion(erasure_request).preview)] == ["unknown"] * 2


def test_a_statement_for_a_batch_not_for_each_contact(
    connection: Connection,
    erasure_request: ErasureRequest,
    make_contact: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items = [WorkItem(number, None, make_contact()["email"]["primary_email"], None, None, None) for number in range(12)]
    counted = []
    run = psycopg.Connection.execute

    def count(*given: Any, **named: Any) -> Any:
        counted.append(given)
        return run(*given, **named)

    monkeypatch.setattr(psycopg.Connection, "execute", count)

    with connection.transaction():
        BulkDeletion(erasure_request).erase(connection, items[:1])
    of_one = len(counted)
    with connection.transaction():
        BulkDeletion(erasure_request).erase(connection, items[1:])

    assert len(counted) == 2 * of_one


def test_addresses_are_found_by_the_indexes(connection: Connection) -> None:
    fill_contacts(connection)

    plan = plan_of(connection, removal._MATCH_ADDRESS["primary_email"], ([0], ["a@x"]))

    assert "idx_email_primary_unique_email_lower" in plan
    assert "Seq Scan" not in plan


def outcome(number: int) -> ItemOutcome:
    return ItemOutcome(WorkItem(number, number, f'"{number},"@x', None, None, None), "unknown")


def columns_of() -> list[str]:
    return ["address", "outcome", "had_fxa"]


@pytest.mark.parametrize(
    ("name", "first", "row"),
    [
        ("r.csv", "address,outcome,had_fxa\n", '"""{},""@x",unknown,\n'),
        ("r.jsonl", "", '{{"address": "\\"{},\\"@x", "outcome": "unknown", "had_fxa": null}}\n'),
    ],
)
def test_a_report_is_written_batch_by_batch_and_can_be_appended_to(
    tmp_path: Path, name: str, first: str, row: str
) -> None:
    path = tmp_path / name
    report = BulkReport(path, columns_of(), append=False)
    report.write([outcome(1)])
    assert path.read_text() == first + row.format(1)
    report.write([outcome(2)])
    assert path.read_text() == first + row.format(1) + row.format(2)
    report.close()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text()[:-3])  # it was killed while it wrote

    with pytest.raises(ConflictError, match="--append"):
        BulkReport(path, columns_of(), append=False)
    report = BulkReport(path, columns_of(), append=True)
    report.write([outcome(3)])
    report.close()

    assert path.read_text() == first + row.format(1) + row.format(3)


def test_a_report_of_nothing_is_no_file(tmp_path: Path) -> None:
    BulkReport(tmp_path / "r.csv", columns_of(), append=False).close()

    assert not list(tmp_path.iterdir())


def test_a_report_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="cannot be written"):
        BulkReport(tmp_path / "missing" / "r.csv", columns_of(), append=False)
