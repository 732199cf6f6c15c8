"""The series of `/metrics`: those that start at 0, their counts, and that requests cannot create arbitrary ones."""

from __future__ import annotations

import gzip
import random
import string
import time
from dataclasses import replace

import jwt
import pytest
from flask import Flask

from ctms.api.openapi import answers
from ctms.clients import secrets
from ctms.clients.attempt_limiter import init_attempt_limiter
from ctms.clients.refusals import AuthFailure, TokenFailure
from ctms.clients.registry import set_enabled
from ctms.clients.tokens import tokens
from ctms.settings import Settings
from ctms.telemetry.requests import METHODS, OTHER, UNMATCHED, format_template
from tests.clients.factories import QUICK_HASHER, SECRET, create_client
from tests.conftest import SECRET_KEY
from tests.contacts.factories import minimal
from tests.http import ApiClient
from tests.telemetry.scraped import series, total, values

ID = "332de237-cab7-4461-bcc3-48e68f42bd5c"


@pytest.fixture(autouse=True)
def quick(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make hashing fast, and forget the failed attempts of other tests."""
    monkeypatch.setattr(secrets, "_hasher", QUICK_HASHER)
    monkeypatch.setattr(secrets, "_dummy_hash", lambda: QUICK_HASHER.hash("nobody's"))
    monkeypatch.setitem(app.extensions, "ctms.attempt_limiter", None)
    init_attempt_limiter(app, app.extensions["ctms.settings"])


def scrape(client: ApiClient) -> str:
    return client.get("/metrics").text


def test_documented_responses_start_at_zero(app: Flask, anonymous: ApiClient) -> None:
    text = scrape(anonymous)

    documented = list(answers(app))
    assert len(documented) > 100
    for method, path, status in documented:
        labels = {"method": method, "path_template": path, "status_code_family": f"{status // 100}xx"}
        assert values(text, "ctms_requests_total", **labels, status_code=str(status))
        assert values(text, "ctms_requests_duration_seconds_count", **labels)
    assert values(text, "ctms_requests_total", path_template=UNMATCHED, status_code="404")
    for cause in TokenFailure:
        assert values(text, "ctms_token_failures_total", cause=cause)
    for reason in AuthFailure:
        assert values(text, "ctms_auth_failures_total", cause=reason)


def test_a_request_is_counted_once_for_its_client(app: Flask, api: ApiClient, anonymous: ApiClient) -> None:
    other = ApiClient(app.test_client(), tokens().issue(create_client("id_other", roles=["viewer"])))
    before = scrape(anonymous)

    for client, status in ((api, 404), (other, 404), (other, 404), (anonymous, 401)):
        assert client.get(f"/ctms/{ID}").status_code == status
    assert other.post("/ctms", minimal()).status_code == 403

    after = scrape(anonymous)
    labels = {"method": "GET", "path_template": "/ctms/{email_id}"}

    def grown(name: str, **more: str) -> float:
        return total(after, name, **more) - total(before, name, **more)

    assert grown("ctms_requests_total", **labels, status_code="404", status_code_family="4xx") == 3
    assert grown("ctms_requests_total", **labels, status_code="401", status_code_family="4xx") == 1
    assert grown("ctms_requests_duration_seconds_count", **labels, status_code_family="4xx") == 4
    assert grown("ctms_requests_duration_seconds_bucket", **labels, status_code_family="4xx", le="+Inf") == 4
    assert grown("ctms_api_requests_total", **labels, client_id="id_test", status_code_family="4xx") == 1
    assert grown("ctms_api_requests_total", **labels, client_id="id_other", status_code_family="4xx") == 2
    assert grown("ctms_api_requests_total", client_id="id_other", method="POST", path_template="/ctms") == 1
    assert grown("ctms_api_requests_total") == 4
    assert values(after, "ctms_api_requests_total", **labels, client_id="id_other") == {
        ("2xx",): 0,
        ("3xx",): 0,
        ("4xx",): 2,
        ("5xx",): 0,
    }


def test_buckets_are_the_documented_ones(anonymous: ApiClient) -> None:
    found = values(
        scrape(anonymous),
        "ctms_requests_duration_seconds_bucket",
        method="GET",
        path_template="/ctms",
        status_code_family="2xx",
    )

    assert sorted(float(bucket) for (bucket,) in found) == [0.01, 0.05, 0.1, 0.5, 1, 5, 10, float("inf")]


def test_failed_token_requests_are_counted_by_cause(app: Flask, anonymous: ApiClient) -> None:
    create_client("id_known")
    create_client("id_disabled")
    set_enabled("id_disabled", False)
    init_attempt_limiter(app, replace(app.extensions["ctms.settings"], token_failures_per_minute=2))
    before = scrape(anonymous)

    for form, status in (
        ({"client_id": "id_known", "client_secret": SECRET}, 200),
        ({"client_id": "id_known", "client_secret": "wrong"}, 400),
        ({"client_id": "id_known", "client_secret": "wrong"}, 400),
        ({"client_id": "id_known", "client_secret": "wrong"}, 429),
        ({"client_id": "id_disabled", "client_secret": SECRET}, 400),
        ({"client_id": "id_nobody", "client_secret": SECRET}, 400),
        ({}, 400),
        ({"grant_type": "password"}, 422),
    ):
        assert anonymous.request("POST", "/token", data=form).status_code == status

    after = scrape(anonymous)
    grown = {
        cause: total(after, "ctms_token_failures_total", cause=cause)
        - total(before, "ctms_token_failures_total", cause=cause)
        for cause in TokenFailure
    }
    assert grown == {
        TokenFailure.WRONG_SECRET: 2,
        TokenFailure.LIMITED: 1,
        TokenFailure.DISABLED_CLIENT: 1,
        TokenFailure.UNKNOWN_CLIENT: 2,
        TokenFailure.INVALID_REQUEST: 1,
    }


def test_failed_authentications_are_counted_by_cause(app: Flask, anonymous: ApiClient) -> None:
    create_client("id_disabled")
    set_enabled("id_disabled", False)
    expired = jwt.encode({"sub": "api_client:id_x", "exp": int(time.time()) - 1}, SECRET_KEY, algorithm="HS256")
    before = scrape(anonymous)

    for method in ("GET", "PATCH"):
        for token, status in (
            (None, 401),
            ("garbage", 401),
            (expired, 401),
            (tokens().issue("id_nobody"), 401),
            (tokens().issue("id_disabled"), 400),
            (tokens().issue(create_client(f"id_powerless_{method}")), 403),
        ):
            assert ApiClient(app.test_client(), token).request(method, f"/ctms/{ID}", json={}).status_code == status

    after = scrape(anonymous)
    for cause in AuthFailure:
        assert (
            total(after, "ctms_auth_failures_total", cause=cause)
            - total(before, "ctms_auth_failures_total", cause=cause)
            == 2
        )
    refused = {"client_id": "id_disabled", "status_code_family": "4xx"}
    assert total(after, "ctms_api_requests_total", **refused) - total(before, "ctms_api_requests_total", **refused) == 2
    assert total(after, "ctms_api_requests_total", client_id="id_nobody") == 0


def made_up(randomly: random.Random) -> str:
    return "".join(randomly.choices(string.ascii_letters + string.digits + "_-", k=randomly.randint(1, 20)))


def test_arbitrary_values_add_only_documented_series(app: Flask, api: ApiClient, anonymous: ApiClient) -> None:
    """Series have known methods, routes, statuses and clients, `other` or `unmatched`."""
    randomly = random.Random(6)  # noqa: S311
    init_attempt_limiter(app, replace(app.extensions["ctms.settings"], token_failures_per_minute=10_000))
    routes = [rule.rule for rule in app.url_map.iter_rules() if rule.rule != "/__heartbeat__"]
    before = series(scrape(anonymous))

    for _ in range(250):
        word = made_up(randomly)
        path = randomly.choice(
            [f"/{word}", f"/ctms/{word}", f"/ctms?{word}={word}", f"/identity/{word}/{word}", *routes]
        )
        method = randomly.choice([word.upper(), "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"])
        claims = {"sub": f"api_client:id_{word}", "exp": int(time.time()) + 60}
        token = randomly.choice(
            [
                word,
                jwt.encode(claims, f"{word:x<40}", algorithm="HS256"),
                jwt.encode(claims, SECRET_KEY, algorithm="HS256"),
            ]
        )
        ApiClient(app.test_client(), token).request(method, path, headers={"X-Request-Id": word, "User-Agent": word})
        anonymous.request(method, path)
        api.request(randomly.choice(["GET", word.upper()]), f"/{word}")
        anonymous.request("POST", "/token", data={"client_id": f"id_{word}", "client_secret": word, "grant_type": word})

    added = series(scrape(anonymous)).keys() - before.keys()
    templates = {format_template(rule.rule) for rule in app.url_map.iter_rules()} | {UNMATCHED}
    for name, labels in added:
        known = dict(labels)
        assert name.startswith(("ctms_requests_", "ctms_api_requests_")), name
        assert known["method"] in METHODS | {OTHER}
        assert known["path_template"] in templates
        assert known.get("client_id", "id_test") == "id_test"
        assert known.get("status_code", "200").isdecimal()
    # Each pair of method and route has a histogram of ten series, and the statuses that Flask itself answers.
    pairs = {(dict(labels)["method"], dict(labels)["path_template"]) for _, labels in added}
    assert len(added) <= len(pairs) * 3 * 11

    again = series(scrape(anonymous)).keys()
    for _ in range(50):
        word = made_up(randomly)
        anonymous.request(word.upper(), f"/{word}", headers={"Authorization": f"Bearer {word}"})
    assert series(scrape(anonymous)).keys() == again


@pytest.mark.parametrize(
    ("accept", "begins"),
    [
        ("", "text/plain; version=0.0.4"),
        ("application/openmetrics-text; version=1.0.0", "application/openmetrics-text"),
    ],
)
def test_content_negotiation(anonymous: ApiClient, accept: str, begins: str) -> None:
    answer = anonymous.get("/metrics", headers={"Accept": accept})

    assert answer.status_code == 200
    assert answer.content_type.startswith(begins)
    assert answer.text.endswith("# EOF\n") is ("openmetrics" in begins)
    assert "_created" not in answer.text


ACCEPT_OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


class TestCompression:
    @pytest.mark.parametrize("accepted", ["gzip", "GZip", "deflate, gzip;q=0.5", "gzip, deflate, br, zstd", "*"])
    @pytest.mark.parametrize("accept", [{}, ACCEPT_OPENMETRICS])
    def test_gzip_is_used_where_accepted(self, app: Flask, accepted: str, accept: dict[str, str]) -> None:
        plain = app.test_client().get("/metrics?name[]=ctms_token_failures_total", headers=accept)

        answer = app.test_client().get(
            "/metrics?name[]=ctms_token_failures_total", headers={**accept, "Accept-Encoding": accepted}
        )

        assert answer.headers["Content-Encoding"] == "gzip"
        assert int(answer.headers["Content-Length"]) == len(answer.data) < len(plain.data)
        assert gzip.decompress(answer.data) == plain.data
        assert answer.content_type == plain.content_type

    @pytest.mark.parametrize("accepted", [None, "", "identity", "br, zstd", "gzip;q=0", "gzip;q=0, *", "x-gzipped"])
    def test_gzip_is_not_used_otherwise(self, app: Flask, accepted: str | None) -> None:
        answer = app.test_client().get("/metrics", headers={} if accepted is None else {"Accept-Encoding": accepted})

        assert "Content-Encoding" not in answer.headers
        assert series(answer.text)

    @pytest.mark.parametrize("accepted", ["gzip", "identity"])
    def test_vary_header(self, app: Flask, accepted: str) -> None:
        answer = app.test_client().get("/metrics", headers={"Accept-Encoding": accepted})

        assert {name.strip() for name in answer.headers["Vary"].split(",")} == {"Accept", "Accept-Encoding"}


def test_selected_metrics(anonymous: ApiClient) -> None:
    answer = anonymous.get("/metrics?name[]=ctms_contacts_total&name[]=ctms_token_failures_total")

    assert answer.status_code == 200
    assert {name for name, _ in series(answer.text)} == {"ctms_contacts_total", "ctms_token_failures_total"}


def test_an_unavailable_database_leaves_the_other_metrics(settings: Settings) -> None:
    from ctms.app import create_app  # noqa: PLC0415

    app = create_app(replace(settings, db_url="postgresql+psycopg://nobody@127.0.0.1:1/nothing"), [])

    text = app.test_client().get("/metrics").text

    assert "ctms_requests_total" in text
    assert "ctms_contacts_total" not in text
    assert "ctms_erasures_open" not in text
