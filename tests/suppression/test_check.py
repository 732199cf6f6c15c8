"""Writing an address and suppressing it take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.database.pool import Connection, libpq_url
from ctms.errors import Forbidden
from ctms.suppression.check import SuppressionCheck, block_all_writers, block_writers
from ctms.suppression.fingerprints import fingerprints
from ctms.suppression.suppressions import SOURCE_COMMAND, suppress, unsuppress

ADDRESS = "jane@example.com"
A_MOMENT = 0.2


@pytest.fixture
def connect(database_url: str) -> Callable[[], Any]:
    """Return a function that begins a transaction, which is rolled back at the end."""

    @contextmanager
    def connect() -> Iterator[Connection]:
        with psycopg.connect(libpq_url(database_url)) as connection:
            yield connection
            if not connection.closed:
                connection.rollback()

    return connect


def fingerprint(address: str = ADDRESS) -> bytes:
    found = fingerprints().of(address)
    assert found is not None
    return found


def waits(work: Future[Any]) -> bool:
    try:
        work.result(A_MOMENT)
    except NotInTime:
        return True
    return False


@pytest.mark.usefixtures("erasure_key")
class TestTurns:
    @pytest.mark.parametrize("which", ["this one", "any"])
    def test_a_suppression_waits_for_writers(self, connect: Callable[[], Any], which: str) -> None:
        found = fingerprint()
        with connect() as writer, connect() as other, ThreadPoolExecutor(1) as threads:
            SuppressionCheck(writer, ADDRESS).raise_if_suppressed()
            lock = (
                (lambda: block_writers(other, [found])) if which == "this one" else (lambda: block_all_writers(other))
            )
            suppressing = threads.submit(lock)
            assert waits(suppressing)
            writer.commit()
            suppressing.result(60)

    def test_a_writer_waits_for_a_suppression_and_is_refused(self, app: Flask, connect: Callable[[], Any]) -> None:
        found = fingerprint()

        def write() -> None:
            with app.app_context():
                SuppressionCheck(writer, ADDRESS).raise_if_suppressed()

        with connect() as writer, connect() as other, ThreadPoolExecutor(1) as threads:
            block_writers(other, [found])
            suppress(other, [found], SOURCE_COMMAND)
            writing = threads.submit(write)
            assert waits(writing)
            other.commit()
            try:
                with pytest.raises(Forbidden):
                    writing.result(60)
            finally:
                assert unsuppress(other, [found])
                other.commit()

    def test_writers_do_not_wait_for_each_other(self, connect: Callable[[], Any]) -> None:
        with connect() as one, connect() as other:
            other.execute("SET LOCAL lock_timeout = '1s'")
            SuppressionCheck(one, ADDRESS).raise_if_suppressed()
            SuppressionCheck(other, ADDRESS).raise_if_suppressed()

    def test_nor_for_the_suppression_of_another_address(self, connect: Callable[[], Any]) -> None:
        bucket = fingerprint()[0] % 64
        elsewhere = next(name for name in map(str, range(1000)) if fingerprint(name)[0] % 64 != bucket)
        with connect() as one, connect() as other:
            other.execute("SET LOCAL lock_timeout = '1s'")
            block_writers(one, [fingerprint()])
            SuppressionCheck(other, elsewhere).raise_if_suppressed()


@pytest.mark.usefixtures("app")
def test_without_a_key_or_an_address_no_query_is_sent(connect: Callable[[], Any]) -> None:
    with connect() as connection:
        connection.execute("SELECT 1")
        connection.close()  # a query would raise
        SuppressionCheck(connection, ADDRESS).raise_if_suppressed()
        SuppressionCheck(connection, None).raise_if_suppressed()
