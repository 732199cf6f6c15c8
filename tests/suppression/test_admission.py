"""Who writes an address and who suppresses it take turns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotInTime
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask

from ctms.errors import Forbidden
from ctms.pool import Connection, libpq_url
from ctms.suppression.admission import Admission, keep_all_out, keep_out
from ctms.suppression.fingerprints import fingerprints
from ctms.suppression.suppressions import BY_COMMAND, let_back, suppress

ADDRESS = "jane@example.com"
A_MOMENT = 0.2


@pytest.fixture
def connect(database_url: str) -> Callable[[], Any]:
    """Begin a transaction that is rolled back in the end."""

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
    def test_who_suppresses_waits_for_who_writes(self, connect: Callable[[], Any], which: str) -> None:
        found = fingerprint()
        with connect() as writer, connect() as other, ThreadPoolExecutor(1) as threads:
            Admission(writer, ADDRESS).require()
            lock = (lambda: keep_out(other, [found])) if which == "this one" else (lambda: keep_all_out(other))
            suppressing = threads.submit(lock)
            assert waits(suppressing)
            writer.commit()
            suppressing.result(60)

    def test_who_writes_waits_for_who_suppresses_and_is_refused(self, app: Flask, connect: Callable[[], Any]) -> None:
        found = fingerprint()

        def write() -> None:
            with app.app_context():
                Admission(writer, ADDRESS).require()

        with connect() as writer, connect() as other, ThreadPoolExecutor(1) as threads:
            keep_out(other, [found])
            suppress(other, [found], BY_COMMAND)
            writing = threads.submit(write)
            assert waits(writing)
            other.commit()
            try:
                with pytest.raises(Forbidden):
                    writing.result(60)
            finally:
                assert let_back(other, [found])
                other.commit()

    def test_writers_do_not_wait_for_each_other(self, connect: Callable[[], Any]) -> None:
        with connect() as one, connect() as other:
            other.execute("SET LOCAL lock_timeout = '1s'")
            Admission(one, ADDRESS).require()
            Admission(other, ADDRESS).require()

    def test_nor_for_who_suppresses_another_address(self, connect: Callable[[], Any]) -> None:
        bucket = fingerprint()[0] % 64
        elsewhere = next(name for name in map(str, range(1000)) if fingerprint(name)[0] % 64 != bucket)
        with connect() as one, connect() as other:
            other.execute("SET LOCAL lock_timeout = '1s'")
            keep_out(one, [fingerprint()])
            Admission(other, elsewhere).require()


@pytest.mark.usefixtures("app")
def test_without_a_key_or_an_address_nothing_is_asked(connect: Callable[[], Any]) -> None:
    with connect() as connection:
        connection.execute("SELECT 1")
        connection.close()  # whoever asked would raise
        Admission(connection, ADDRESS).require()
        Admission(connection, None).require()
