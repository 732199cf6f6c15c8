"""Clients that send too much, too deep, nonsense or nothing at all: a clear answer soon, and the memory stays flat."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import requests

from tests.contacts.factories import minimal
from tests.serving import Served
from tests.system.conftest import Connect

SOON = 60
"""Seconds, far more than a response takes even on a busy machine: a longer wait will not end."""
MEGABYTE = 1024 * 1024
JSON = {"Content-Type": "application/json"}


def chunks(count: int) -> Iterator[bytes]:
    yield b'{"email": "'
    for _ in range(count):
        yield b"x" * 65536
    yield b'"}'


def raw(served: Served, *parts: bytes) -> socket.socket:
    """Open a connection and send the parts."""
    host, _, port = served.url.removeprefix("http://").partition(":")
    client = socket.create_connection((host, int(port)), timeout=SOON)
    for part in parts:
        client.sendall(part)
    return client


def head(method: str, path: str, token: str, **headers: Any) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: ctms", f"Authorization: Bearer {token}"]
    return "\r\n".join([*lines, *[f"{name}: {value}" for name, value in headers.items()], "", ""]).encode("latin-1")


class TestSize:
    @pytest.mark.parametrize("size", [2, 10])
    def test_a_large_body(self, served: Served, session: requests.Session, size: int) -> None:
        body = b'{"email": "' + b"x" * (size * MEGABYTE) + b'"}'

        answer = session.post(f"{served.url}/ctms", data=body, headers=JSON, timeout=SOON)

        assert answer.status_code == 413
        assert answer.json() == {"detail": "Request Entity Too Large"}

    @pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
    def test_a_large_body_in_chunks(self, served: Served, session: requests.Session, method: str) -> None:
        path = "/ctms" if method == "POST" else "/ctms/x"

        answer = session.request(method, f"{served.url}{path}", data=chunks(160), headers=JSON, timeout=SOON)

        assert answer.status_code == 413

    def test_a_small_body_in_chunks_is_read(self, served: Served, session: requests.Session) -> None:
        parts = iter([b'{"email": ', json.dumps(minimal()["email"]).encode(), b"}"])

        assert session.post(f"{served.url}/ctms", data=parts, headers=JSON, timeout=SOON).status_code == 201

    def test_a_stranger_is_refused_before_the_body_is_read(self, served: Served) -> None:
        client = raw(served, head("POST", "/ctms", "x", **{"Content-Length": 10 * MEGABYTE}))

        assert client.recv(100).startswith(b"HTTP/1.1 401 ")
        client.close()

    def test_a_large_form(self, served: Served) -> None:
        answer = requests.post(f"{served.url}/token", data={"client_id": "x" * 10 * MEGABYTE}, timeout=SOON)

        assert answer.status_code == 413

    def test_many_newsletters(self, served: Served, session: requests.Session) -> None:
        contact = {**minimal(), "newsletters": [{"name": f"n{number}"} for number in range(10_000)]}

        answer = session.post(f"{served.url}/ctms", json=contact, timeout=SOON)

        assert answer.status_code == 422
        assert answer.json()["detail"][0]["loc"] == ["body", "newsletters"]

    def test_deep_json(self, served: Served, session: requests.Session) -> None:
        body = '{"email": ' + "[" * 100_000 + "]" * 100_000 + "}"

        answer = session.post(f"{served.url}/ctms", data=body, headers=JSON, timeout=SOON)

        assert answer.status_code == 422


class TestNonsense:
    @pytest.mark.parametrize(
        ("line", "statuses"),
        [
            ("DELETE /ctms/%ff%fe%ed%a0%80 HTTP/1.1", {404}),
            ("DELETE /ctms/%00 HTTP/1.1", {404}),
            ("GET /ctms?primary_email=%ff%00%ed%a0%80 HTTP/1.1", {422}),
            ("GET /ctms?primary_email=%ed%a0%80 HTTP/1.1", {200, 422}),
            ("GET /updates?start=%ff&after=%ff HTTP/1.1", {422}),
            (f"GET /ctms/{'x' * 20_000} HTTP/1.1", {422, 414}),
            (f"GET /ctms?primary_email={'x' * 50_000} HTTP/1.1", {200, 414}),
            ("GET /ctms\xff HTTP/1.1", {400, 404}),
        ],
    )
    def test_paths_and_queries(self, served: Served, token: str, line: str, statuses: set[int]) -> None:
        headers = f"Host: ctms\r\nAuthorization: Bearer {token}\r\n\r\n"

        with raw(served, f"{line}\r\n{headers}".encode("latin-1")) as client:
            status = int(client.recv(100).split()[1])

        assert status in statuses

    @pytest.mark.parametrize(
        "name", ["Authorization", "If-Match", "If-None-Match", "X-Request-Id", "Content-Type", "Cookie", "Accept"]
    )
    @pytest.mark.parametrize("value", ["\xff\xfe", "x" * 20_000, '"', "é, *, W/"])
    def test_headers(self, served: Served, session: requests.Session, name: str, value: str) -> None:
        path = session.post(f"{served.url}/ctms", json=minimal(), timeout=SOON).headers["Location"]

        answer = session.patch(f"{served.url}{path}", data="{}", headers={name: value.encode("latin-1")}, timeout=SOON)

        assert answer.status_code in {200, 401, 412, 422}, answer.text
        read = session.get(f"{served.url}{path}", headers={name: value.encode("latin-1")}, timeout=SOON)
        assert read.status_code in {200, 401}


def test_clients_that_go_away_leave_nothing_behind(
    served: Served, session: requests.Session, token: str, database: Connect
) -> None:
    body = json.dumps(minimal()).encode()
    gone = [
        [head("POST", "/ctms", token, **JSON, **{"Content-Length": 1000}), b'{"email"'],
        [head("PATCH", f"/ctms/{'0' * 32}", token, **JSON, **{"Transfer-Encoding": "chunked"}), b'5\r\n{"ema\r\n'],
        [head("POST", "/ctms", token, **JSON, **{"Content-Length": len(body)}), body],
        [head("GET", "/updates?start=2000-01-01&limit=1000", token)],
        [head("GET", "/updates?start=2000-01-01&limit=1000", token)[:30]],
    ]
    for _ in range(8):
        for client in [raw(served, *parts) for parts in gone]:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, not a polite end
            client.close()

    for _ in range(20):
        assert session.get(f"{served.url}/ctms?sfdc_id=x", timeout=SOON).status_code == 200
    with database() as connection:
        connection.autocommit = True  # a transaction sees the sessions as they were at its first look
        give_up = time.monotonic() + SOON
        open_ones = "SELECT * FROM pg_stat_activity WHERE application_name = 'ctms' AND xact_start IS NOT NULL"
        while left := connection.execute(open_ones).fetchall():
            assert time.monotonic() < give_up, left
            time.sleep(0.1)


def test_memory_stays_flat(served: Served, token: str) -> None:
    headers = {"Authorization": f"Bearer {token}", **JSON}
    deep = '{"email": ' + "[" * 100_000 + "]" * 100_000 + "}"
    many = json.dumps({**minimal(), "newsletters": [{"name": f"n{number}"} for number in range(10_000)]})
    problems = json.dumps({**minimal(), "newsletters": [{"lang": 1}] * 1000})
    fields = json.dumps({**minimal(), "waitlists": [{"name": "vpn", "fields": {f"f{n}": n for n in range(20_000)}}]})
    large = b'{"email": "' + b"x" * (10 * MEGABYTE) + b'"}'

    def attack(rounds: int) -> None:
        for _ in range(rounds):
            for body in (deep, many, problems, fields, large):
                answer = requests.post(f"{served.url}/ctms", data=body, headers=headers, timeout=SOON)
                assert answer.status_code in {413, 422}
            requests.post(f"{served.url}/ctms", data=chunks(40), headers=headers, timeout=SOON)
            requests.get(f"{served.url}/nothing/{time.monotonic()}", timeout=SOON)

    def memory() -> int:
        children = psutil.Process(served.process.pid).children(recursive=True)
        return sum(child.memory_info().rss for child in children if "python" in child.name())

    attack(8)
    before = memory()
    attack(24)

    assert memory() - before < 40 * MEGABYTE
