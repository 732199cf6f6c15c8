"""Random writes over the API and by SQL of others, with slow transactions and slow fills beside each other."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from contextlib import suppress
from threading import Thread
from typing import Any

import psycopg
import pytest

from ctms.contacts import optouts, stored_documents
from ctms.contacts.optouts import OptOut
from ctms.database import pool
from ctms.database.pool import Connection
from ctms.history.context import set_actor
from ctms.testing.http import ApiClient
from tests.stored_documents.conftest import Connect, all_ids, differing, fill_all, valid

SEEDS = range(int(os.environ.get("CTMS_TEST_SEEDS", "6")))
STEPS = 60
IDS = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(1, 5)]

SQL = (
    "UPDATE emails SET first_name = %(text)s WHERE email_id = %(id)s",
    "UPDATE emails SET last_name = %(text)s, update_timestamp = create_timestamp WHERE email_id = %(id)s",
    "UPDATE emails SET email_id = %(other)s WHERE email_id = %(id)s",
    "INSERT INTO emails (email_id, primary_email) VALUES (%(id)s, %(text)s || '@example.com') ON CONFLICT DO NOTHING",
    "DELETE FROM emails WHERE email_id = %(id)s",
    *(
        f"INSERT INTO {table} (email_id, {column}) VALUES (%(id)s, %(text)s)"
        f" ON CONFLICT (email_id) DO UPDATE SET {column} = excluded.{column}"
        for table, column in (("fxa", "fxa_id"), ("amo", "username"), ("mofo", "mofo_email_id"))
    ),
    *(f"UPDATE {table} SET email_id = %(other)s WHERE email_id = %(id)s" for table in ("fxa", "amo", "mofo")),
    *(f"DELETE FROM {table} WHERE email_id = %(id)s" for table in ("fxa", "amo", "mofo", "newsletters", "waitlists")),
    *(f"TRUNCATE {table}" for table in ("fxa", "amo", "mofo", "newsletters", "waitlists")),
    *(
        sql.format(table)
        for table in ("newsletters", "waitlists")
        for sql in (
            "INSERT INTO {} (email_id, name, subscribed) VALUES (%(id)s, %(name)s, true) ON CONFLICT DO NOTHING",
            "UPDATE {} SET source = %(text)s WHERE email_id = %(id)s",
            "UPDATE {} SET name = %(name)s WHERE email_id = %(id)s AND name = 'a'",
            "UPDATE {} SET email_id = %(other)s WHERE email_id = %(id)s AND name = %(name)s",
            "UPDATE {} SET subscribed = NOT subscribed",
        )
    ),
)


class Writers:
    """The service, two writers of other software and one that stores documents slowly, all with random actions."""

    def __init__(self, seed: int, api: ApiClient, store: Connection, connect: Connect) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.api = api
        self.store = store
        self.others = [connect(), connect()]
        self.filler, self.holder = connect(), connect()
        self.applied = 0

    def values(self) -> dict[str, Any]:
        """Return random parameters of SQL."""
        first, other = self.random.sample(IDS, 2)
        return {"id": first, "other": other, "text": self.random.randbytes(4).hex(), "name": self.random.choice("abc")}

    def body(self, contact: str | None) -> dict[str, Any]:
        """Return the body of a request."""
        chance = self.random.random
        entries = [{"name": name, "subscribed": chance() < 0.7} for name in "ab" if chance() < 0.5]
        email: dict[str, Any] = {"first_name": self.random.randbytes(4).hex()}
        if contact:
            email |= {"email_id": contact, "primary_email": f"{contact}@example.com"}
        body: dict[str, Any] = {"email": email, "newsletters": entries, "waitlists": entries}
        if self.random.random() < 0.3:
            body["amo"] = {"username": self.random.randbytes(4).hex()}
        return body

    def item(self, contact: str) -> dict[str, Any]:
        """Return an item of a batch."""
        address = f"{contact}@example.com"
        return {"match": {"primary_email": address}, "contact": {**self.body(None), "email": {"first_name": "batch"}}}

    def run_sql(self) -> None:
        """Execute a statement in a transaction that may stay open, some of them in a savepoint that is rolled back."""
        connection = self.random.choice(self.others)
        try:
            if connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                connection.execute("BEGIN")
            if self.random.random() < 0.2:
                with connection.transaction(force_rollback=True):
                    connection.execute(self.random.choice(SQL), self.values())
            sql = self.random.choice(SQL)
            self.applied += max(connection.execute(sql, self.values()).rowcount, 0)
            if sql.startswith("TRUNCATE"):  # the readers would wait
                connection.execute("COMMIT")
        except psycopg.Error:
            connection.execute("ROLLBACK")

    def end_one(self) -> None:
        """Commit or roll back the transaction of a writer, or of a slow fill."""
        connection = self.random.choice([*self.others, self.filler])
        if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            connection.execute(self.random.choice(["COMMIT", "COMMIT", "ROLLBACK"]))

    def end_all(self) -> None:
        """Commit all transactions."""
        for connection in (*self.others, self.filler):
            if connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                connection.execute("COMMIT")

    def call_api(self) -> None:
        """Send a request that writes."""
        if self.random.random() < 0.9:  # else it may wait for the others, and give up
            self.end_all()
        contact, other = self.random.sample(IDS, 2)
        calls: list[Callable[[], Any]] = [
            lambda: self.api.post("/ctms", self.body(contact)),
            lambda: self.api.put(f"/ctms/{contact}", self.body(contact)),
            lambda: self.api.patch(f"/ctms/{contact}", self.body(None)),
            lambda: self.api.delete(f"/ctms/{contact}@example.com"),
            lambda: self.api.post(f"/ctms/{contact}/merge", {"from": other}),
            lambda: self.api.post("/ctms/batch", {"items": [self.item(one) for one in (contact, other)]}),
        ]
        response = self.random.choice([calls[0], *calls])()
        assert response.status_code in {200, 201, 207, 404, 409, 503}, response.text
        self.applied += response.status_code < 300

    def create(self) -> None:
        """Create the contacts that do not exist."""
        self.end_all()
        for contact in IDS:
            self.applied += self.api.post("/ctms", self.body(contact)).status_code == 201

    def opt_out(self) -> None:
        """Opt out as a bulk command does."""
        self.end_all()
        with pool.writing() as connection:
            set_actor(connection, "operator:test")
            optouts.opt_out(connection, [OptOut(f"{contact}@example.com", None, None) for contact in IDS[:2]])

    def fill(self) -> None:
        """Store documents in a transaction that may stay open."""
        try:
            if self.filler.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
                self.filler.execute("BEGIN")
            stored_documents.fill(self.filler, IDS)  # type: ignore[arg-type]
        except psycopg.Error:
            self.filler.execute("ROLLBACK")

    def fill_missing(self) -> None:
        """Store documents as the worker does, beside the transactions of others."""
        if self.filler.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            self.filler.execute("COMMIT")
        fill_all(self.store)

    def fill_beside_changes(self) -> None:
        """Have a fill wait after it has read what to store, while others change, and store, the same contacts."""
        self.end_all()
        self.filler.execute("SET lock_timeout = '5s'")
        self.holder.execute("BEGIN")
        self.holder.execute("SELECT FROM contact_documents ORDER BY email_id FOR UPDATE")
        thread = Thread(target=self.fill)
        thread.start()
        time.sleep(0.02)
        for _ in range(3):
            self.run_sql()
        for connection in self.others:
            connection.execute("COMMIT")
        if self.random.random() < 0.5:
            with suppress(psycopg.errors.LockNotAvailable):  # if the other was faster
                stored_documents.fill(self.holder, IDS)  # type: ignore[arg-type]
        self.holder.execute(self.random.choice(["COMMIT", "ROLLBACK"]))
        thread.join(30)
        self.filler.execute("COMMIT")
        self.filler.execute("SET lock_timeout = '200ms'")

    def step(self) -> None:
        """Run a random action."""
        actions = (
            [self.run_sql] * 6 + [self.end_one] * 3 + [self.call_api] * 4 + [self.fill] * 2 + [self.fill_missing] * 2
        )
        self.random.choice([*actions, self.opt_out, self.fill_beside_changes])()


@pytest.mark.parametrize("seed", SEEDS)
def test_valid_documents_are_the_rendered_ones(
    seed: int, store_api: ApiClient, store: Connection, connect: Connect
) -> None:
    writers = Writers(seed, store_api, store, connect)
    seen = 0

    writers.create()
    for _ in range(STEPS):
        writers.step()
        assert differing(store) == []
        seen += valid(store)
    writers.end_all()
    fill_all(store)

    assert differing(store) == []
    assert valid(store) == len(all_ids(store)), "each contact has a stored document"
    assert store.execute("SELECT count(*) FROM outdated_documents").fetchone() == (0,)
    assert seen > 10
    assert writers.applied > 10
