"""The benchmark itself, on fifty contacts: that it runs, that it compares like with like, that it notices errors."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from werkzeug.test import EnvironBuilder

from benchmarks import api, baseline, batch, data, growth, imports, load, servers
from benchmarks.kinds import KINDS, Kind, Request
from ctms.app import create_app
from ctms.clients.tokens import tokens
from ctms.settings import Settings
from tests.conftest import SECRET_KEY
from tests.serving import Served

pytestmark = pytest.mark.long

needs_wrk = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not installed")


@pytest.fixture(scope="module")
def contacts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[data.Contacts]:
    with data.prepared(tmp_path_factory.mktemp("benchmark"), 50) as prepared:
        yield prepared


@pytest.fixture(scope="module")
def service(contacts: data.Contacts) -> Iterator[Flask]:
    """The service on the benchmark's database, in this process."""
    app = create_app(Settings(db_url=contacts.url, secret_key=SECRET_KEY, use_mozlog=False))
    yield app
    app.extensions["ctms.pool"].dispose()


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements that are executed in this process from now on."""
    statements: list[str] = []
    execute = psycopg.Cursor.execute

    def record(cursor: psycopg.Cursor[Any], query: str, *args: Any, **kwargs: Any) -> psycopg.Cursor[Any]:
        statements.append(query)
        return execute(cursor, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.Cursor, "execute", record)
    return statements


def test_contacts_are_spread_over_the_last_thirty_days(contacts: data.Contacts) -> None:
    """However many they are: none is in the future, where no page and no stored document would have it."""
    now = datetime.now(UTC)

    assert max(contacts.moments) <= now
    assert now - max(contacts.moments) < timedelta(days=1)
    assert timedelta(days=29) < now - min(contacts.moments) < timedelta(days=30)


def ask_service(app: Flask, request: Request) -> tuple[int, Any]:
    with app.app_context():
        token = tokens().issue(data.CLIENT_ID)
    response = app.test_client().open(
        request.path,
        method=request.method,
        headers={"Authorization": f"Bearer {token}"},
        data=request.body or None,
        content_type="application/json" if request.body else None,
    )
    return response.status_code, response.json


def ask_bare_app(contacts: data.Contacts, request: Request) -> tuple[int, Any]:
    environ = EnvironBuilder(request.path, method=request.method, data=request.body or None).get_environ()
    with contacts.connect() as connection, baseline.make_context(contacts.settings).app_context():
        status, text = baseline.answer(connection, environ)
    return int(status[:3]), json.loads(text)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
def test_the_bare_app_answers_as_the_service_with_the_same_statements(
    kind: Kind, contacts: data.Contacts, service: Flask, executed: list[str]
) -> None:
    first, *_, last = kind.requests(contacts, 2) * 2
    executed.clear()
    status, answer = ask_service(service, first)
    ours = executed.copy()
    executed.clear()
    bare_status, bare_answer = ask_bare_app(contacts, last if kind.once else first)
    its = executed.copy()

    assert status == bare_status == kind.status
    assert api.comparable(kind, answer) == api.comparable(kind, bare_answer)
    assert answer  # neither empty
    # A read is one statement together with the authorization; the service executes no other.
    assert all(any(statement in sql for sql in ours) for statement in its)
    assert all("api_client" in sql for sql in ours if sql not in its)


def test_a_database_of_the_right_size_is_reused_without_additions(contacts: data.Contacts) -> None:
    contacts.doomed(3)

    with data.prepared(contacts.settings.data_dir, 50) as again, again.connect() as connection:
        found = {email_id for (email_id,) in connection.execute("SELECT email_id FROM emails")}

    assert found == set(contacts.ids)


@needs_wrk
def test_the_figures_of_both_are_printed_and_written(
    tmp_path: Path, contacts: data.Contacts, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = tmp_path / "figures.json"
    place = ["--data-dir", str(contacts.settings.data_dir), "--contacts", "50", "--json", str(figures)]
    quick = ["--seconds", "3", "--warm-up", "0", "--rounds", "1", "--connections", "2", "--workers", "1"]

    api.main([*place, *quick, "--kinds", "read", "delete"])

    written = json.loads(figures.read_text())["kinds"]
    assert list(written) == ["read", "delete"]
    for kind in written.values():
        assert kind["ratio"] == pytest.approx(kind["service"]["rate"] / kind["baseline"]["rate"])
        assert 0 < kind["service"]["p50"] <= kind["service"]["p99"]
        if sys.platform == "linux":
            assert kind["baseline"]["server"] > 0
            assert kind["baseline"]["database"] > 0
    printed = capsys.readouterr().out
    assert "read by id" in printed
    assert f"{written['delete']['ratio']:.2f}" in printed


@needs_wrk
def test_batches_are_compared_with_single_requests(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    batch.main(["--data-dir", str(tmp_path), "--contacts", "50", "--rounds", "2", "--number", "20"])

    printed = capsys.readouterr().out
    for mode in batch.MODES:
        assert re.search(rf"^{mode}: [\d,]+ contacts/s", printed, re.MULTILINE), printed
    assert re.search(r"^ratio \d+\.\d \(", printed, re.MULTILINE), printed


def test_imports_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    imports.main(["--data-dir", str(tmp_path), "--contacts", "50", "--number", "40"])

    printed = capsys.readouterr().out
    for name in ("new", "the same again", "other names", "all parts"):
        assert re.search(rf"^{name}: [\d,]+ contacts/s", printed, re.MULTILINE), printed


@needs_wrk
def test_the_growth_of_the_cost_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = load.measure

    def measure_longer(*args: Any, seconds: int, **options: Any) -> load.Measurement:
        """Warm up for longer than the second in which a busy machine may not answer at all."""
        return measure(*args, seconds=max(seconds, 3), **options)

    monkeypatch.setattr(load, "measure", measure_longer)
    figures = tmp_path / "figures.json"
    place = ["--data-dir", str(tmp_path), "--sizes", "100", "50", "--json", str(figures)]
    quick = ["--seconds", "3", "--rounds", "1", "--connections", "2", "--workers", "1"]

    growth.main([*place, *quick, "--kinds", "read", "search"])

    small, large = json.loads(figures.read_text())
    assert (small["contacts"], large["contacts"]) == (50, 100)
    printed = capsys.readouterr().out
    for kind in ("read", "search"):
        assert large["kinds"][kind]["rate"] > 0
        if sys.platform == "linux":
            cost = [one["kinds"][kind]["server"] + one["kinds"][kind]["database"] for one in (small, large)]
            ratio = re.escape(f"{cost[1] / cost[0]:.2f} (")
            assert re.search(rf"^{growth.ALL_KINDS[kind].title} .*  1\.00 \(.* {ratio}", printed, re.MULTILINE), printed
    for name in ("emails", "newsletters", "subscription_events"):
        used = large["space"][name]
        per_contact = f"{used['table'] / 100:,.0f} + {used['indexes'] / 100:,.0f}"
        assert re.search(rf"^{name} .*  {re.escape(per_contact)}$", printed, re.MULTILINE)


def test_a_wrong_status_fails_the_benchmark(served: Served, contacts: data.Contacts) -> None:
    without_token = servers.Server("service", served.url, served.process.pid)

    with pytest.raises(load.WrongAnswer, match="did not have the status 200"):
        load.measure(without_token, KINDS["read"], contacts, seconds=3, connections=2)


@needs_wrk
def test_too_few_requests_fail_the_benchmark(
    served: Served, contacts: data.Contacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "MAX_REQUESTS_PER_SECOND", 1)
    service = servers.Server("service", served.url, served.process.pid, served.token())

    with pytest.raises(load.WrongAnswer, match="3 requests were too few"):
        # There are more connections than requests, so that it does not depend on how fast they are answered.
        load.measure(service, KINDS["post"], contacts, seconds=3, connections=8)


def test_the_profile_lists_packages(contacts: data.Contacts) -> None:
    place = ["--data-dir", str(contacts.settings.data_dir), "--contacts", "50"]

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.profile", *place, "--requests", "300", "--kinds", "read", "post"],
        cwd=servers.PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "read by id" in done.stdout
    assert "POST" in done.stdout
    # Its samples are shared out to its work and to its waiting: on a busy machine there is nothing but waiting.
    assert re.search("ms  (psycopg|waiting)", done.stdout)


@needs_wrk
def test_the_cost_of_telemetry(contacts: data.Contacts) -> None:
    place = ["--data-dir", str(contacts.settings.data_dir), "--contacts", "50"]
    quick = ["--warm-up", "0", "--seconds", "3", "--rounds", "2", "--connections", "2", "--workers", "1"]

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.telemetry", *place, *quick],
        cwd=servers.PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert re.search(r"buffering a request +\d", done.stdout)
    assert re.search(r"read by id: [\d,]+ requests/s, [\d,]+ without telemetry", done.stdout)
