"""Which server is read, and what happens when a replica does not finish a read. The server of the tests plays both."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg import errors
from psycopg.pq import TransactionStatus

from ctms.database import pool, replicas
from ctms.database.pool import Connection
from ctms.database.replicas import ReplicaRead, Replicas
from ctms.settings import Settings

POSITION = replicas._POSITION
KNOWN = "SELECT '0/1'"
REPLAYED = "SELECT true, '0/2'::pg_lsn >= %s::pg_lsn"


class Reads:
    """Replicas and the results of their reads; `used` are the connections that reads got."""

    def __init__(self, settings: Settings, url: str) -> None:
        self.replicas = Replicas(settings, url)
        self.results: list[ReplicaRead] = []
        self.used: list[Connection] = []
        self.replicas.observe = self.results.append

    def read(self, primary: Connection, *raised: BaseException) -> Any:
        """Read, and raise these exceptions, one for each time that the function is called."""
        left = list(raised)

        def run(connection: Connection) -> str:
            self.used.append(connection)
            if left:
                raise left.pop(0)
            return "found"

        return self.replicas.read(primary, run)


@pytest.fixture
def reads(migrated_app: Flask, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reads]:
    """Reads with a server that says that it is a replica which has replayed everything."""
    monkeypatch.setattr(replicas, "_POSITION", KNOWN)
    monkeypatch.setattr(replicas, "_HAS_REPLAYED", REPLAYED)
    monkeypatch.setitem(pool.FAILOVER_ARGUMENTS, "connect_timeout", 60)
    reads = Reads(replace(settings, db_read_max_lag=0), str(settings.db_url))
    with migrated_app.app_context():
        yield reads
    reads.replicas.pool.dispose()


@pytest.fixture
def primary(reads: Reads) -> Iterator[Connection]:  # noqa: ARG001  inside the app context
    with pool.reading() as connection:
        yield connection


def test_a_replica_is_read(reads: Reads, primary: Connection) -> None:
    assert reads.read(primary) == "found"

    assert reads.results == [ReplicaRead.REPLICA]
    assert reads.used[0] is not primary


@pytest.mark.parametrize(
    ("statement", "answer", "result"),
    [
        ("_POSITION", "SELECT NULL::text", ReplicaRead.ASYNCHRONOUS),
        ("_HAS_REPLAYED", "SELECT true, '0/0'::pg_lsn >= %s::pg_lsn", ReplicaRead.BEHIND),
        ("_HAS_REPLAYED", "SELECT true, NULL >= %s::pg_lsn", ReplicaRead.BEHIND),
        ("_HAS_REPLAYED", "SELECT false, '0/2'::pg_lsn >= %s::pg_lsn", ReplicaRead.PROMOTED),
    ],
)
def test_the_primary_is_read_and_then_for_a_while(  # noqa: PLR0917  a case and its fixtures
    reads: Reads,
    primary: Connection,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    statement: str,
    answer: str,
    result: ReplicaRead,
) -> None:
    with caplog.at_level(logging.INFO, "ctms.database.replicas"):
        monkeypatch.setattr(replicas, statement, answer)
        assert [reads.read(primary), reads.read(primary)] == ["found", "found"]
        assert reads.results == [result, ReplicaRead.COOLING_DOWN]
        assert reads.used == [primary, primary]

        for name, ready in (("_POSITION", KNOWN), ("_HAS_REPLAYED", REPLAYED)):
            monkeypatch.setattr(replicas, name, ready)
        monkeypatch.setattr(reads.replicas, "_retry_at", 0.0)
        assert [reads.read(primary), reads.read(primary)] == ["found", "found"]
        assert reads.results[2:] == [ReplicaRead.REPLICA] * 2

    reason = f"reads use the primary instead of the replica: {replicas.REASONS[result]}"
    assert [record.getMessage() for record in caplog.records] == [reason, "reads use the replica again"]


def test_a_replica_that_cannot_be_reached(settings: Settings, primary: Connection) -> None:
    reads = Reads(settings, "postgresql+psycopg://nobody@127.0.0.1:1/none")

    assert reads.read(primary) == "found"
    assert reads.results == [ReplicaRead.UNREACHABLE]


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (errors.SerializationFailure("conflict with recovery"), ReplicaRead.CANCELED),
        (errors.AdminShutdown("terminated"), ReplicaRead.UNREACHABLE),
        (errors.ReadOnlySqlTransaction("cannot execute"), ReplicaRead.UNREACHABLE),
    ],
)
def test_a_read_that_the_replica_ends_is_repeated_on_the_primary(
    reads: Reads, primary: Connection, error: psycopg.Error, result: ReplicaRead
) -> None:
    assert reads.read(primary, error) == "found"

    assert reads.results == [result]
    assert reads.used[-1] is primary


@pytest.mark.parametrize("error", [errors.QueryCanceled("timeout"), errors.UndefinedTable("bug"), ValueError("bug")])
def test_another_error_is_raised(reads: Reads, primary: Connection, error: Exception) -> None:
    """A statement that takes too long would take too long on the primary, too."""
    with pytest.raises(type(error)):
        reads.read(primary, error)

    assert primary not in reads.used


def test_a_canceled_read_is_no_reason_to_avoid_the_replica(reads: Reads, primary: Connection) -> None:
    reads.read(primary, errors.SerializationFailure("conflict with recovery"))
    reads.read(primary)

    assert reads.results == [ReplicaRead.CANCELED, ReplicaRead.REPLICA]


def test_the_position_is_that_of_the_log(primary: Connection) -> None:
    """Unless commits do not wait for it."""
    position = f"SELECT position::pg_lsn <= pg_current_wal_insert_lsn() FROM ({POSITION}) p (position)"
    primary.execute("SET synchronous_commit = on")
    assert primary.execute(position).fetchone() == (True,)
    primary.execute("SET synchronous_commit = off")
    assert primary.execute(position).fetchone() == (None,)
    primary.execute("RESET synchronous_commit")


def test_a_promoted_replica_gets_no_more_reads(
    reads: Reads, primary: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new connection may reach another one of the servers that the URL names."""
    reads.read(primary)
    reads.read(primary)
    monkeypatch.setattr(replicas, "_HAS_REPLAYED", "SELECT false, '0/2'::pg_lsn >= %s::pg_lsn")
    reads.read(primary)
    monkeypatch.setattr(replicas, "_HAS_REPLAYED", REPLAYED)
    monkeypatch.setattr(reads.replicas, "_retry_at", 0.0)
    reads.read(primary)

    first, same, _, other = reads.used
    assert first is same
    assert other not in {first, primary}


def test_one_read_tries_again(reads: Reads, primary: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others do not wait for a replica that may still be away."""
    monkeypatch.setattr(replicas, "_HAS_REPLAYED", "SELECT true, '0/0'::pg_lsn >= %s::pg_lsn")
    reads.read(primary)
    monkeypatch.setattr(replicas, "_HAS_REPLAYED", REPLAYED)
    monkeypatch.setattr(reads.replicas, "_retry_at", 0.0)

    assert reads.replicas.read(primary, lambda _: reads.read(primary)) == "found"
    assert reads.results == [ReplicaRead.BEHIND, ReplicaRead.COOLING_DOWN, ReplicaRead.REPLICA]


def test_a_separate_connection(reads: Reads, primary: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    replica = reads.replicas.open_connection(primary, application_name="ctms export", autocommit=True)
    assert replica is not None
    assert replica.info.get_parameters()["application_name"] == "ctms export"
    replica.close()

    monkeypatch.setattr(replicas, "_HAS_REPLAYED", "SELECT true, '0/0'::pg_lsn >= %s::pg_lsn")
    assert reads.replicas.open_connection(primary) is None
    monkeypatch.setattr(reads.replicas, "url", "postgresql+psycopg://nobody@127.0.0.1:1/none")
    assert reads.replicas.open_connection(primary) is None
    assert reads.results == [ReplicaRead.REPLICA, ReplicaRead.BEHIND, ReplicaRead.UNREACHABLE]


def test_no_transaction_is_open_while_it_waits(
    reads: Reads, primary: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The replay may wait for the end of a transaction that waits for it."""
    looks: list[Connection] = []
    waits: list[TransactionStatus] = []

    def state(replica: Connection, _position: str) -> ReplicaRead:
        looks.append(replica)
        return ReplicaRead.BEHIND if len(looks) < 3 else ReplicaRead.REPLICA

    def sleep(_seconds: float) -> None:
        waits.append(looks[-1].info.transaction_status)

    monkeypatch.setattr(reads.replicas, "_max_lag", 60)
    monkeypatch.setattr(replicas, "_state", state)
    monkeypatch.setattr(replicas, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))

    assert reads.read(primary) == "found"
    assert waits == [TransactionStatus.IDLE] * 2
    assert reads.used == [looks[-1]]
