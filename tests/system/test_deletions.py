"""`/updates?deleted=true` over HTTP: a mirror beside random writers and slow transactions has what the database has."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
import requests

from tests.contacts.factories import address, minimal
from tests.history.mirror import Mirror
from tests.serving import Served
from tests.system.conftest import Connect
from tests.system.test_updates import get, now

RELEVANT = {"mofo": {"mofo_relevant": True}}


class Writer:
    """Random writes by one client: over HTTP, and by SQL in transactions that stay open."""

    def __init__(self, chance: random.Random, session: requests.Session, url: str, connect: Connect) -> None:
        self.chance = chance
        self.known: dict[str, str] = {}
        self._session = session
        self._url = url
        self._reader = connect()
        self._reader.autocommit = True
        self._connect = connect
        self._idle: list[psycopg.Connection] = []
        self._open: dict[psycopg.Connection, set[str]] = {}

    def write(self) -> None:
        """Write over HTTP, or write in, begin or end a slow transaction."""
        kind = self.chance.random()
        if kind < 0.5:
            self._write_over_http()
        elif kind < 0.75:
            self._write_slowly()
        elif self._open:
            self._end(self.chance.choice(list(self._open)), commits=self.chance.random() < 0.8)

    def end_all(self) -> None:
        """Commit the open transactions."""
        for connection in list(self._open):
            self._end(connection, commits=True)

    def _end(self, connection: psycopg.Connection, *, commits: bool) -> None:
        connection.commit() if commits else connection.rollback()
        del self._open[connection]
        self._idle.append(connection)

    def _pick(self, *, exists: bool) -> str | None:
        """Choose a contact that no open transaction has locked."""
        locked: set[str] = set().union(*self._open.values())
        query = "SELECT email_id::text FROM emails WHERE email_id = ANY(%s::uuid[])"
        there = {email_id for (email_id,) in self._reader.execute(query, (list(self.known),)).fetchall()}
        found = [email_id for email_id in self.known if (email_id in there) is exists and email_id not in locked]
        return self.chance.choice(found) if found else None

    def _new(self) -> str:
        email_id = str(uuid.uuid4())
        self.known[email_id] = address()
        return email_id

    def _call(self, method: str, path: str, body: Any = None) -> None:
        answer = self._session.request(method, f"{self._url}/ctms/{path}".rstrip("/"), json=body, timeout=60)
        assert answer.status_code in {200, 201}, answer.text

    def _write_over_http(self) -> None:
        group = RELEVANT if self.chance.random() < 0.5 else {}
        action = self.chance.choice(
            ["create", "change", "change", "leave", "replace", "delete", "recreate", "recreate", "merge"]
        )
        email_id = self._new() if action == "create" else self._pick(exists=action != "recreate")
        if email_id is None:
            return
        contact = minimal(email_id=email_id, primary_email=self.known[email_id], first_name=uuid.uuid4().hex)
        if action in {"create", "recreate", "replace"}:
            self._call("PUT", email_id, contact | group)
        elif action == "change":
            self._call("PATCH", email_id, {"email": {"first_name": uuid.uuid4().hex}} | group)
        elif action == "leave":
            leave: list[Any] = ["DELETE", {"mofo_relevant": False}, {"mofo_relevant": False, "mofo_contact_id": "c"}]
            self._call("PATCH", email_id, {"mofo": self.chance.choice(leave)})
        elif action == "delete":
            self._call("DELETE", self.known[email_id])
        elif (source := self._pick(exists=True)) not in {email_id, None}:
            self._call("POST", f"{email_id}/merge", {"from": source})

    def _write_slowly(self) -> None:
        """Write in an open transaction, or in a new one."""
        if self._open and self.chance.random() < 0.5:
            connection = self.chance.choice(list(self._open))
        elif len(self._open) < 4:
            connection = self._idle.pop() if self._idle else self._connect()
            self._open[connection] = set()
            connection.execute("SELECT 1")  # the transaction begins before it writes
            if self.chance.random() < 0.3:
                return
        else:
            return
        action = self.chance.choice(list(SLOWLY))
        email_id = self._new() if action == "create" else self._pick(exists=action != "recreate")
        if email_id is not None:
            self._open[connection].add(email_id)
            for statement in SLOWLY[action]:
                connection.execute(statement, {"id": email_id, "address": self.known[email_id]})


_INSERT = "INSERT INTO emails (email_id, primary_email) VALUES (%(id)s, %(address)s)"
_TOUCH = "UPDATE emails SET update_timestamp = clock_timestamp() WHERE email_id = %(id)s"
_RELEVANT = """
    INSERT INTO mofo (email_id, mofo_relevant) VALUES (%(id)s, true)
    ON CONFLICT (email_id) DO UPDATE SET mofo_relevant = true"""

SLOWLY: Mapping[str, tuple[str, ...]] = {
    "create": (_INSERT, _TOUCH),
    "recreate": (_INSERT, _TOUCH, _RELEVANT),
    "change": (_TOUCH,),
    "enter": (_TOUCH, _RELEVANT),
    "leave": (_TOUCH, "UPDATE mofo SET mofo_relevant = NULL WHERE email_id = %(id)s"),
    "leave without a row": (_TOUCH, "DELETE FROM mofo WHERE email_id = %(id)s"),
    "delete": ("DELETE FROM emails WHERE email_id = %(id)s",),
    "delete and recreate": ("DELETE FROM emails WHERE email_id = %(id)s", _INSERT, _TOUCH),
}


@pytest.fixture
def mirrors(served: Served, session: requests.Session, database: Connect) -> list[Mirror]:
    """Mirrors of all contacts and of filtered ones, with short and long pages."""

    def read(link: str, query: Mapping[str, Any] | None) -> Any:
        return get(session, link if query is None else f"{served.url}{link}", **(query or {}))

    start = now(database)
    return [
        Mirror(read, start, 3),
        Mirror(read, start, 1000),
        Mirror(read, start, 2, mofo_relevant=True),
        Mirror(read, start, 4, mofo_relevant=False),
    ]


@pytest.mark.parametrize("seed", range(4))
def test_a_mirror_has_what_the_database_has(
    served: Served, session: requests.Session, database: Connect, mirrors: list[Mirror], seed: int
) -> None:
    """Pages are read between the writes, so that contacts change and transactions end in the middle of walks."""
    chance = random.Random(seed)  # noqa: S311
    writer = Writer(chance, session, served.url, database)
    reader = database()
    reader.autocommit = True
    walks = 0

    for step in range(300):
        writer.write()
        mirror = chance.choice(mirrors)
        if chance.random() < 0.7 and mirror.read_page():
            mirror.check(reader, writer.known)
            walks += 1
        if step % 100 == 99:
            writer.end_all()
            for mirror in mirrors:
                mirror.walk()
                mirror.check(reader, writer.known, is_quiet=True)

    assert walks > 20
    assert_copies_are_whole(mirrors, lambda email_id: get(session, f"{served.url}/ctms/{email_id}"))


def assert_copies_are_whole(mirrors: list[Mirror], read: Callable[[str], Any]) -> None:
    whole, *others = mirrors
    assert whole.copies
    for email_id, document in whole.copies.items():
        assert document | {"status": "ok"} == read(email_id)
    for mirror in others:
        assert mirror.copies == {
            email_id: document
            for email_id, document in whole.copies.items()
            if mirror.mofo_relevant in {None, document["mofo"]["mofo_relevant"]}
        }


def test_a_slow_change_of_relevance_alone_is_not_missed(
    served: Served, session: requests.Session, database: Connect
) -> None:
    """It locks `mofo`, not `emails`."""
    contact = session.post(f"{served.url}/ctms", json=minimal() | RELEVANT, timeout=60).json()["email"]["email_id"]
    query = {"mofo_relevant": "true", "deleted": "true"}
    slow = database()
    start = now(database)
    slow.execute("UPDATE mofo SET mofo_relevant = false WHERE email_id = %s", (contact,))

    first = get(session, f"{served.url}/updates", start=start, **query)
    slow.commit()
    second = get(session, f"{served.url}/updates", start=first["end"], **query)

    assert first["left"] == []
    assert [entry["email_id"] for entry in second["left"]] == [contact]


def test_a_mirror_beside_concurrent_writers(
    served: Served, token: str, session: requests.Session, database: Connect, mirrors: list[Mirror]
) -> None:
    reader = database()
    reader.autocommit = True
    with ExitStack() as opened:
        sessions = [opened.enter_context(requests.Session()) for _ in range(3)]
        for own in sessions:
            own.headers["Authorization"] = f"Bearer {token}"
        writers = [Writer(random.Random(seed), own, served.url, database) for seed, own in enumerate(sessions)]  # noqa: S311
        with ThreadPoolExecutor(len(writers)) as threads:
            running = [threads.submit(write_and_end, writer) for writer in writers]
            while not all(one.done() for one in running):
                for mirror in mirrors:
                    if mirror.read_page():
                        mirror.check(reader, known_to(writers) | mirror.copies.keys())
        for one in running:
            one.result()

    for mirror in mirrors:
        mirror.walk()
        mirror.check(reader, known_to(writers), is_quiet=True)
    assert_copies_are_whole(mirrors, lambda email_id: get(session, f"{served.url}/ctms/{email_id}"))


def write_and_end(writer: Writer) -> None:
    for _ in range(100):
        writer.write()
    writer.end_all()


def known_to(writers: Iterable[Writer]) -> set[str]:
    return {email_id for writer in writers for email_id in list(writer.known)}
