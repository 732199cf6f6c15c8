"""Rate limits of API clients: leases of tokens, responses, changes, and failures of the database."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from flask import Flask
from sqlalchemy import text

from ctms.clients import rate_limits, registry
from ctms.clients.rate_limits import Quota, RateLimit, RateLimiter
from ctms.clients.tokens import tokens
from ctms.database.engine import db
from ctms.errors import TooManyRequests, Unavailable
from tests.clients.factories import create_client
from tests.contacts.factories import minimal
from tests.counted import count_connections
from tests.http import ApiClient, assert_error
from tests.telemetry.scraped import values

ID = "id_limited"
SEARCH = "/ctms?primary_email=jane@example.com"
SLOW = RateLimit(10, 3600, 3)
"""A limit that refills nothing while a test runs."""

POLICY = '"default";q=3;w=1080'


@pytest.fixture
def limited(app: Flask, monkeypatch: pytest.MonkeyPatch) -> ApiClient:
    """Return a client with the limit `SLOW`, which the process does not know yet."""
    monkeypatch.setitem(app.extensions, "ctms.rate_limiter", RateLimiter())
    client = ApiClient(app.test_client(), tokens().issue(create_client(ID, roles=["editor"])))
    set_limit(SLOW)
    return client


@pytest.fixture
def never_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the database again at each request of a client without tokens."""
    monkeypatch.setattr(rate_limits, "MAX_DENIED_SECONDS", 0)


@pytest.fixture
def leases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list with an entry for each lease."""
    return count_connections(monkeypatch, rate_limits, "reading")


def set_limit(limit: RateLimit | None) -> None:
    with db.session.begin():
        registry.set_rate_limit(ID, limit)


def pass_time(seconds: float) -> None:
    """Let the bucket be refilled as if time had passed."""
    with db.session.begin():
        db.session.execute(
            text("UPDATE rate_limit_buckets SET refilled_at = refilled_at - make_interval(secs => :seconds)"),
            {"seconds": seconds},
        )


def statuses(client: ApiClient, number: int) -> list[int]:
    return [client.get(SEARCH).status_code for _ in range(number)]


class TestResponses:
    def test_the_burst_is_admitted_and_the_next_request_is_refused(self, limited: ApiClient) -> None:
        assert statuses(limited, 3) == [200, 200, 200]

        refused = limited.get(SEARCH)

        assert_error(refused, 429, "Too many requests: the limit of the client is 10/h")
        wait = refused.headers["Retry-After"]
        assert 300 <= int(wait) <= 360
        assert refused.headers["RateLimit-Policy"] == POLICY
        assert refused.headers["RateLimit"] == f'"default";r=0;t={wait}'

    def test_admitted_requests_show_what_is_left(self, limited: ApiClient) -> None:
        limited.get(SEARCH)

        second, third = limited.get(SEARCH), limited.get(SEARCH)

        assert second.headers["RateLimit"] == '"default";r=1'
        assert third.headers["RateLimit"].startswith('"default";r=0;t=')
        assert {answer.headers["RateLimit-Policy"] for answer in (second, third)} == {POLICY}

    def test_time_refills_the_bucket_up_to_the_burst(self, limited: ApiClient, never_denied: None) -> None:
        assert statuses(limited, 4) == [200, 200, 200, 429]

        pass_time(361)
        assert statuses(limited, 2) == [200, 429]
        pass_time(36_000)
        assert statuses(limited, 4) == [200, 200, 200, 429]

    def test_a_client_without_a_limit_sees_no_difference(self, api: ApiClient, leases: list[str]) -> None:
        answers = [api.get(SEARCH) for _ in range(10)]

        assert {answer.status_code for answer in answers} == {200}
        assert not any(name.startswith("RateLimit") for answer in answers for name in answer.headers.keys())  # noqa: SIM118
        assert leases == []

    def test_refused_and_failed_requests_count(self, limited: ApiClient) -> None:
        assert limited.get("/events").status_code == 403
        assert limited.get("/ctms/332de237-cab7-4461-bcc3-48e68f42bd5c").status_code == 404
        assert limited.post("/ctms", {}).status_code == 422

        assert limited.get(SEARCH).status_code == 429

    def test_a_refused_write_changes_nothing(self, limited: ApiClient, api: ApiClient) -> None:
        statuses(limited, 3)

        assert limited.post("/ctms", minimal()).status_code == 429

        assert api.get(f"/ctms?primary_email={minimal()['email']['primary_email']}").json == []

    def test_a_removed_client_is_not_told_of_a_limit(self, limited: ApiClient, never_denied: None) -> None:
        statuses(limited, 4)
        with db.session.begin():
            registry.delete_client(ID)

        assert_error(limited.get(SEARCH), 401, "Could not validate credentials")


class TestChanges:
    def test_a_removed_limit_no_longer_refuses(self, limited: ApiClient, never_denied: None) -> None:
        assert statuses(limited, 4)[-1] == 429
        set_limit(None)

        answers = [limited.get(SEARCH) for _ in range(5)]

        assert {answer.status_code for answer in answers} == {200}
        assert "RateLimit" not in answers[-1].headers

    def test_a_process_refuses_without_a_query_for_a_second_at_most(
        self, limited: ApiClient, leases: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now)
        assert statuses(limited, 4)[-1] == 429
        set_limit(None)
        before = len(leases)

        assert statuses(limited, 5) == [429] * 5
        assert len(leases) == before
        now += 1
        assert statuses(limited, 5) == [200] * 5

    def test_a_new_limit_applies_from_the_next_request_on(self, limited: ApiClient) -> None:
        limited.get(SEARCH)
        set_limit(RateLimit(100, 1, 200))
        limited.get(SEARCH)

        answer = limited.get(SEARCH)

        assert answer.headers["RateLimit-Policy"] == '"default";q=200;w=2'
        assert statuses(limited, 10) == [200] * 10

    def test_a_refused_client_is_told_of_a_new_limit(self, limited: ApiClient, never_denied: None) -> None:
        assert statuses(limited, 4)[-1] == 429

        set_limit(RateLimit(1, 3600, 2))
        refused = limited.get(SEARCH)

        assert refused.headers["RateLimit-Policy"] == '"default";q=2;w=7200'
        assert 3500 < int(refused.headers["Retry-After"]) <= 3600

    def test_a_clock_that_was_set_back_refuses_no_longer(self, limited: ApiClient, never_denied: None) -> None:
        assert statuses(limited, 4)[-1] == 429

        pass_time(-7200)
        assert statuses(limited, 1) == [429]
        pass_time(361)
        assert statuses(limited, 2) == [200, 429]

    def test_a_lower_burst_caps_what_was_saved(self, limited: ApiClient, never_denied: None) -> None:
        set_limit(RateLimit(10, 3600, 100))
        statuses(limited, 5)
        set_limit(SLOW)

        # One is admitted before the process learns of the new limit, and is charged to the new bucket afterwards.
        assert statuses(limited, 5).count(200) in {3, 4}


class TestLeases:
    def test_a_lease_serves_many_requests(self, limited: ApiClient, leases: list[str]) -> None:
        set_limit(RateLimit(1000, 1, 1000))

        assert statuses(limited, 100) == [200] * 100

        assert RateLimit(1000, 1, 1000).chunk == 100
        assert len(leases) == 1

    @pytest.mark.parametrize(
        ("limit", "chunk"),
        [((100, 1, 200), 10), ((100, 1, 10), 2), ((1, 3600, 1), 1), ((100, 1, 1), 1), ((6000, 60, 1000), 10)],
    )
    def test_a_process_holds_a_small_part(self, limit: tuple[int, int, int], chunk: int) -> None:
        assert RateLimit(*limit).chunk == chunk

    def test_processes_share_the_bucket(self, app: Flask, limited: ApiClient, never_denied: None) -> None:
        limit = RateLimit(10, 3600, 50)
        set_limit(limit)
        processes = [RateLimiter() for _ in range(4)]
        for process in processes:
            process.update(ID, limit, has_token=True)

        def admitted(process: RateLimiter) -> bool:
            try:
                return process.take(ID) is not None
            except TooManyRequests:
                return False

        number = sum(admitted(processes[turn % 4]) for turn in range(400))

        assert 50 - 4 * limit.chunk <= number <= 51  # a minute refills less than one

    def test_requests_before_the_limit_was_known_are_charged(self, limited: ApiClient, never_denied: None) -> None:
        limiter = RateLimiter()
        limiter.update(ID, SLOW, has_token=False)
        limiter.update(ID, SLOW, has_token=False)

        assert isinstance(limiter.take(ID), Quota)
        with pytest.raises(TooManyRequests):
            limiter.take(ID)

    def test_an_emptied_table_means_full_buckets(self, limited: ApiClient, never_denied: None) -> None:
        assert statuses(limited, 4)[-1] == 429
        with db.session.begin():  # the table is not logged: a crash of the server empties it
            db.session.execute(text("DELETE FROM rate_limit_buckets"))

        assert statuses(limited, 4) == [200, 200, 200, 429]


class TestFailures:
    def test_a_failed_lease_is_the_failure_of_the_request(
        self, limited: ApiClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limited.get(SEARCH)

        with monkeypatch.context() as patches:
            patches.setattr(rate_limits, "reading", self._failing)
            assert_error(limited.get(SEARCH), 503, "the database is not available")

        assert limited.get(SEARCH).status_code == 200

    def test_requests_that_wait_for_a_failing_lease_fail_with_it(
        self, limited: ApiClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        limiter, entered, failing, calls = RateLimiter(), threading.Event(), threading.Event(), 0
        limiter.update(ID, SLOW, has_token=True)

        @contextmanager
        def blocked() -> Iterator[Any]:
            nonlocal calls
            calls += 1
            entered.set()
            assert failing.wait(60)
            with self._failing() as connection:
                yield connection

        arrivals: list[float] = []
        clock = time.monotonic

        def arrive() -> float:
            arrivals.append(clock())
            return arrivals[-1]

        monkeypatch.setattr(rate_limits, "reading", blocked)
        monkeypatch.setattr(time, "monotonic", arrive)
        with ThreadPoolExecutor(5) as threads:
            first = threads.submit(limiter.take, ID)
            assert entered.wait(60)
            others = [threads.submit(limiter.take, ID) for _ in range(4)]
            while len(arrivals) < 5:
                time.sleep(0.01)
            failing.set()

        assert isinstance(first.exception(), psycopg.OperationalError)
        assert [type(other.exception()) for other in others] == [Unavailable] * 4
        assert calls == 1

    @staticmethod
    @contextmanager
    def _failing() -> Iterator[Any]:
        raise psycopg.OperationalError("the connection is lost")
        yield


class TestTelemetry:
    def test_refusals_are_counted_by_client(self, limited: ApiClient, anonymous: ApiClient) -> None:
        limited.get(SEARCH)
        name = "ctms_rate_limited_requests_total"
        before = values(anonymous.get("/metrics").text, name, client_id=ID)
        assert len(before) == 1  # the series starts with the first request of the client
        statuses(limited, 4)

        after = values(anonymous.get("/metrics").text, name, client_id=ID)

        assert sum(after.values()) - sum(before.values()) == 2
