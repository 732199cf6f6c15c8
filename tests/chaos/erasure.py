"""`flask ctms delete-bulk`, the workers and PostgreSQL are killed at random moments: is everybody forgotten at the end?

python -m tests.chaos.erasure --kills 20 --contacts 20000
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import requests

from ctms.database.pool import Connection
from ctms.testing.servers import let_server_enter
from tests.chaos.faulty_server import FaultyServer, plugin, run_faulty_server
from tests.chaos.postgresql import kill, wait_until_it_answers
from tests.chaos.workers import Workers, workers
from tests.forked import ForkedFlask
from tests.serving import Served, serve

_FILL = """
    INSERT INTO emails (email_id, primary_email, email_format, email_lang, has_opted_out_of_email, double_opt_in)
    SELECT gen_random_uuid(), kind || i || '@example.com', 'H', 'en', false, false
    FROM generate_series(1, %s) i, unnest(%s::text[]) kind"""
_CHILDREN = """
    INSERT INTO newsletters (email_id, name, subscribed, format, lang)
    SELECT email_id, 'weekly', true, 'H', 'en' FROM emails"""
_LEFT = """
    SELECT (SELECT count(*) FROM erasure_tasks), (SELECT coalesce(sum(pending), 0) FROM erasure_handlers),
        (SELECT count(*) FROM erasure_deletions), (SELECT coalesce(sum(pending), 0) FROM erasure_backends)"""
_RECORDS = """
    SELECT (SELECT sum(contacts) FROM erasures), (SELECT sum(done + verified) FROM erasure_handlers),
        (SELECT sum(parked) FROM erasure_handlers), (SELECT count(*) FROM erasure_addresses),
        (SELECT sum(done) FROM erasure_backends), (SELECT sum(parked) FROM erasure_backends)"""
_DOOMED, _KEPT = "doomed-", "kept-"


@dataclass
class Round:
    """The failures to inject, their number, and the folder."""

    served: Served
    running: Workers
    folder: Path
    url: str
    chance: random.Random
    killed: dict[str, int]
    number: int = 0

    def bulk(self) -> ForkedFlask:
        """Start an erasure."""
        self.number += 1
        command = ["ctms", "delete-bulk", "--email-file", str(self.folder / "doomed.txt"), "--yes"]
        slowly = ["--batch-size", "100", "--pause", "0.05", "--report", str(self.folder / f"report-{self.number}.csv")]
        output = self.folder / "bulk.txt"
        return ForkedFlask(*command, *slowly, environment=self.served.environment, output=output)

    def kill_something(self, bulk: ForkedFlask) -> None:
        """Kill the command, a worker or PostgreSQL with -9: the least killed, or a random one of those."""
        least = min(self.killed.values())
        what = self.chance.choice([name for name, number in self.killed.items() if number == least])
        self.killed[what] += 1
        if what == "command":
            bulk.kill()
        elif what == "worker":
            self.running.kill_one()
        else:
            kill(self.folder)
            wait_until_it_answers(self.url)  # its users start it again


def run(folder: Path, *, kills: int, contacts: int, seed: int) -> dict[str, Any]:
    """Erase, kill and check; return the figures. Raises `AssertionError` if anything is left or lost."""
    chance = random.Random(seed)  # noqa: S311
    (folder / "doomed.txt").write_text("".join(f"{_DOOMED}{i}@example.com\n" for i in range(1, contacts + 1)))
    with run_faulty_server(0.1) as other:
        library = plugin(folder, other.url, backend=True, handler=True)
        with serve(folder, CTMS_WORKERS="2", PYTHONPATH=str(library), CTMS_LOGGING_LEVEL="WARNING") as served:
            url = served.database_url()
            with psycopg.connect(url, autocommit=True) as connection:
                connection.execute(_FILL, (contacts, [_DOOMED, _KEPT]))
                connection.execute(_CHILDREN)
                ids = _ids(connection, _DOOMED)
                kept = _kept(connection)
            other.copies = dict.fromkeys(ids)
            with workers(2, served.environment, folder, seed) as running:
                running.spare()  # here they are killed in turn with the others
                one = Round(served, running, folder, url, chance, {"command": 0, "worker": 0, "postgresql": 0})
                _kill_in_rounds(one, kills)
                assert one.bulk().wait(timeout=300) == 0, (folder / "bulk.txt").read_text()[-3000:]
                _wait_until_erased(url)
            assert "Deadlock" not in running.text(), "workers and erasures take locks in one order"
            with psycopg.connect(url, autocommit=True) as connection:
                _look(connection, other, ids, kept)
            _grep(served, url, folder)
    return {"contacts": contacts, **{f"killed: {name}": number for name, number in one.killed.items()}}


def _kill_in_rounds(one: Round, kills: int) -> None:
    bulk = one.bulk()
    try:
        for _ in range(kills):
            time.sleep(one.chance.uniform(0.5, 3))
            if bulk.poll() is not None:
                bulk = one.bulk()
                time.sleep(one.chance.uniform(0.5, 3))
            one.kill_something(bulk)
    finally:
        bulk.kill()
        bulk.wait()


def _ids(connection: Connection, kind: str) -> set[str]:
    rows = connection.execute("SELECT email_id FROM emails WHERE primary_email LIKE %s", (f"{kind}%",)).fetchall()
    return {str(email_id) for (email_id,) in rows}


def _kept(connection: Connection) -> Any:
    return connection.execute(
        "SELECT md5(string_agg(e::text || n::text, '' ORDER BY e.email_id)) FROM emails e JOIN newsletters n"
        " USING (email_id) WHERE primary_email LIKE %s",
        (f"{_KEPT}%",),
    ).fetchone()


def _wait_until_erased(url: str) -> None:
    give_up = time.monotonic() + 600
    with psycopg.connect(url, autocommit=True) as connection:
        while (left := connection.execute(_LEFT).fetchone()) != (0, 0, 0, 0):
            assert time.monotonic() < give_up, f"left over (tasks, pending, deletions, pending): {left}"
            time.sleep(0.1)


def _look(connection: Connection, other: FaultyServer, ids: set[str], kept: Any) -> None:
    assert not _ids(connection, _DOOMED)
    assert _kept(connection) == kept, "others were touched"
    assert set(other.erased) == ids, f"the handler has not seen {len(ids - set(other.erased))}"
    assert other.gone == ids, f"the backend has not deleted {len(ids - other.gone)}"
    assert not other.copies
    assert connection.execute(_RECORDS).fetchone() == (len(ids), len(ids), 0, len(ids), len(ids), 0)


def _grep(served: Served, url: str, folder: Path) -> None:
    """Check that no table, log or metric contains an erased address."""
    with psycopg.connect(url, autocommit=True) as connection:
        names = connection.execute(
            "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (name,) in names:
            found = connection.execute(f"SELECT count(*) FROM {name} t WHERE t::text LIKE %s", (f"%{_DOOMED}%",))
            assert found.fetchone() == (0,), f"{name} holds erased addresses"
    for file in (folder / "output.txt", folder / "workers.txt", folder / "bulk.txt"):
        assert f"{_DOOMED}1" not in file.read_text(), f"{file.name} holds erased addresses"
    assert _DOOMED not in requests.get(f"{served.url}/metrics", timeout=30).text


def main() -> None:
    """Run it with the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--contacts", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311
    given = parser.parse_args()
    print(f"seed {given.seed}")
    with tempfile.TemporaryDirectory(prefix="c") as folder:
        let_server_enter(Path(folder))
        for name, value in run(Path(folder), **vars(given)).items():
            print(f"{name}: {value:,}")


if __name__ == "__main__":
    main()
