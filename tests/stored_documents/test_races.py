"""One writer against another, step by step: each order ends with a document that is valid only if it is the newest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from uuid import UUID, uuid4

import pytest

from ctms.contacts import document_store, stored_documents
from ctms.contacts.stored_documents import store_written
from ctms.database.pool import Connection
from ctms.testing.contacts import contact_body
from ctms.testing.http import ApiClient
from tests.contacts.factories import address
from tests.stored_documents.conftest import Connect, differing, fill_all, valid

CHANGE = "UPDATE emails SET first_name = 'new' WHERE email_id = %s"


@pytest.fixture
def contact(store: Connection) -> Any:
    """The id of a contact with a valid stored document."""
    found = store.execute("INSERT INTO emails (primary_email) VALUES (%s) RETURNING email_id", (address(),)).fetchone()
    assert found is not None
    assert fill_all(store) == 1
    assert valid(store) == 1
    return found[0]


def wait_for_lock(store: Connection, waiting: Connection) -> None:
    """Wait until a connection waits for a lock."""
    deadline = time.monotonic() + 30
    while (
        store.execute(
            "SELECT FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", (waiting.info.backend_pid,)
        ).rowcount
        != 1
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def held_up(store: Connection, connect: Connect, run: Callable[[Connection], object]) -> Iterator[Connection]:
    """Run a function that stores documents, which waits, after it has read, until the block ends; yield the holder."""
    holder, runner = connect(), connect()
    runner.execute("SET lock_timeout = '30s'")
    holder.execute("BEGIN")
    holder.execute("SELECT FROM contact_documents FOR UPDATE")
    thread = Thread(target=run, args=(runner,))
    thread.start()
    wait_for_lock(store, runner)
    yield holder
    holder.execute("COMMIT")
    thread.join(30)
    assert not thread.is_alive()


def outdate(store: Connection) -> None:
    """Have the next fill store all documents."""
    store.execute("UPDATE contact_documents SET format = 'another'")


def test_a_change_is_committed_after_a_fill_has_read(store: Connection, connect: Connect, contact: Any) -> None:
    outdate(store)
    with held_up(store, connect, lambda runner: stored_documents.fill(runner, [contact])):
        store.execute(CHANGE, (contact,))

    assert valid(store) == 0
    assert fill_all(store) == 1
    assert (valid(store), differing(store)) == (1, [])


def test_a_change_that_is_stored_before_an_older_fill_goes_on(
    store: Connection, connect: Connect, contact: Any
) -> None:
    outdate(store)
    with held_up(store, connect, lambda runner: stored_documents.fill(runner, [contact])) as holder:
        store.execute(CHANGE, (contact,))
        assert stored_documents.fill(holder, [contact]) == 1

    assert (valid(store), differing(store)) == (1, [])


def test_a_change_that_is_open_while_a_fill_runs(store: Connection, connect: Connect, contact: Any) -> None:
    other = connect()
    other.execute("BEGIN")
    other.execute(CHANGE, (contact,))
    outdate(store)

    assert stored_documents.fill(store, [contact]) == 1, "it does not wait"
    assert valid(store) == 1
    other.execute("COMMIT")

    assert valid(store) == 0


def test_a_change_that_waits_for_no_document(store: Connection, connect: Connect, contact: Any) -> None:
    filler, first, second = connect(), connect(), connect()
    outdate(store)
    filler.execute("BEGIN")
    assert stored_documents.fill(filler, [contact]) == 1
    for other, table in ((first, "newsletters"), (second, "waitlists")):
        other.execute("BEGIN")
        other.execute(f"INSERT INTO {table} (email_id, name, subscribed) VALUES (%s, 'a', true)", (contact,))
    for other in (filler, first, second):
        other.execute("COMMIT")

    assert valid(store) == 0


def test_a_writer_of_ours_does_not_overwrite_what_was_stored_meanwhile(
    store: Connection, store_app: Any, connect: Connect, contact: Any
) -> None:
    def write(runner: Connection) -> None:
        with store_app.app_context(), runner.transaction():
            runner.execute("UPDATE emails SET update_timestamp = clock_timestamp() WHERE email_id = %s", (contact,))
            store_written(runner, contact)

    with held_up(store, connect, write) as holder:
        store.execute("INSERT INTO newsletters (email_id, name, subscribed) VALUES (%s, 'a', true)", (contact,))
        assert stored_documents.fill(holder, [contact]) == 1

    assert differing(store) == []
    fill_all(store)
    assert (valid(store), differing(store)) == (1, [])


def test_a_change_that_an_older_document_lacks_stays_noted(store: Connection, connect: Connect, contact: Any) -> None:
    writer, filler = connect(), connect()
    filler.execute("SET lock_timeout = '30s'")
    writer.execute("BEGIN")
    writer.execute("SET LOCAL ctms.stamps = 'on'")
    writer.execute("UPDATE emails SET update_timestamp = clock_timestamp() WHERE email_id = %s", (contact,))
    store_written(writer, contact)
    store.execute("INSERT INTO newsletters (email_id, name, subscribed) VALUES (%s, 'a', true)", (contact,))
    thread = Thread(target=stored_documents.fill, args=(filler, [contact]))
    thread.start()
    wait_for_lock(store, filler)
    writer.execute("COMMIT")
    thread.join(30)

    assert differing(store) == []
    assert valid(store) == 0, "the document of the writer lacks the newsletter"
    fill_all(store)
    assert (valid(store), differing(store)) == (1, [])


def test_a_contact_that_is_being_deleted_is_skipped(store: Connection, connect: Connect, contact: Any) -> None:
    deleter = connect()
    outdate(store)
    deleter.execute("BEGIN")
    deleter.execute("SELECT FROM emails WHERE email_id = %s FOR UPDATE", (contact,))

    assert stored_documents.fill(store, [contact]) == 0
    deleter.execute("DELETE FROM emails WHERE email_id = %s", (contact,))
    deleter.execute("COMMIT")

    assert stored_documents.fill(store, [contact]) == 0
    assert store.execute("SELECT count(*) FROM contact_documents").fetchone() == (0,)


def test_a_deletion_waits_for_a_fill_and_removes_its_document(
    store: Connection, connect: Connect, contact: Any
) -> None:
    filler, deleter = connect(), connect()
    deleter.execute("SET lock_timeout = '30s'")
    outdate(store)
    filler.execute("BEGIN")
    stored_documents.fill(filler, [contact])
    thread = Thread(target=deleter.execute, args=("DELETE FROM emails WHERE email_id = %s", (contact,)))
    thread.start()
    wait_for_lock(store, deleter)
    filler.execute("COMMIT")
    thread.join(30)

    assert store.execute("SELECT count(*) FROM contact_documents").fetchone() == (0,)


def test_a_contact_is_created_again_while_it_is_being_deleted(
    store: Connection, store_api: ApiClient, connect: Connect
) -> None:
    body = contact_body()
    created = store_api.post("/ctms", body)
    body["email"]["email_id"] = created.json["email"]["email_id"]
    deleter = connect()
    deleter.execute("BEGIN")
    deleter.execute("SELECT FROM emails FOR UPDATE")

    assert store_api.post("/ctms", body).status_code == 200
    deleter.execute("DELETE FROM emails")
    deleter.execute("COMMIT")

    assert store.execute("SELECT count(*) FROM contact_documents").fetchone() == (0,)
    assert store_api.post("/ctms", body).status_code == 201
    assert valid(store) == 1


def test_documents_of_another_format_are_rendered_again(store: Connection, store_api: ApiClient, contact: Any) -> None:
    store.execute("UPDATE contact_documents SET format = 'older', document = '{}'")
    store.execute("UPDATE document_progress SET format = 'older'")

    assert store_api.get(f"/ctms/{contact}").json["email"]["email_id"] == str(contact)
    assert fill_all(store) == 1
    assert (valid(store), differing(store)) == (1, [])


@pytest.mark.parametrize("deletion", ["DELETE FROM emails", "TRUNCATE emails CASCADE"])
def test_a_deletion_removes_what_is_noted(store: Connection, contact: Any, deletion: str) -> None:
    store.execute("INSERT INTO newsletters (email_id, name, subscribed) VALUES (%s, 'a', true)", (contact,))
    assert store.execute("SELECT count(*) FROM outdated_documents").fetchone() == (1,)

    store.execute(deletion)

    assert store.execute("SELECT count(*) FROM outdated_documents").fetchone() == (0,)


@pytest.mark.usefixtures("contact")
def test_what_is_noted_of_an_id_that_is_gone_is_removed(store: Connection) -> None:
    """Writers of other software may change ids."""
    store.execute("UPDATE emails SET email_id = %s", (uuid4(),))
    assert store.execute("SELECT count(DISTINCT email_id) FROM outdated_documents").fetchone() == (2,)

    fill_all(store)

    assert store.execute("SELECT count(*) FROM outdated_documents").fetchone() == (0,)
    assert (valid(store), differing(store)) == (1, [])


@pytest.mark.usefixtures("contact")
def test_the_position_is_kept(store: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [result.seen for result in document_store.fill_missing(store)]
    assert seen == [], "nothing has changed"

    monkeypatch.setattr(document_store, "BATCH", 1)
    store.execute("SET ctms.stamps = 'on'")
    store.execute("UPDATE emails SET first_name = 'bulk', update_timestamp = clock_timestamp()")
    store.execute("RESET ctms.stamps")
    assert valid(store) == 0
    results = list(document_store.fill_missing(store))

    assert [(result.seen, result.stored) for result in results] == [(1, 1)]
    assert (valid(store), differing(store)) == (1, [])


def test_the_position_does_not_keep_the_id_of_a_deleted_contact(store: Connection, contact: Any) -> None:
    store.execute("DELETE FROM emails WHERE email_id = %s", (contact,))
    fill_all(store)

    assert store.execute("SELECT email_id FROM document_progress").fetchall() == [(UUID(int=0),)]
