"""`bin/delete_bulk.py` as a process, without any package, against the served service."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests

from ctms.testing import ReceivedRequest, Reply, StubServer
from tests.serving import Served
from tests.system.conftest import Connect

SCRIPT = Path(__file__).parent.parent.parent / "bin" / "delete_bulk.py"
_FILL = """
    INSERT INTO emails (email_id, primary_email, email_format, email_lang, has_opted_out_of_email, double_opt_in)
    SELECT gen_random_uuid(), 'p' || i || %s, 'H', 'en', false, false FROM generate_series(1, %s) i"""

Change = Callable[[ReceivedRequest, Reply], Reply]


def environment(served: Served, **variables: str) -> dict[str, str]:
    """Return the variables of the script, and no others."""
    return {
        "CTMS_API_URL": served.url,
        "CTMS_CLIENT_ID": served.client_id,
        "CTMS_CLIENT_SECRET": served.client_secret,
        **variables,
    }


def begin(variables: dict[str, str], *arguments: str | Path) -> subprocess.Popen[bytes]:
    """Start the script without the packages of this environment."""
    return subprocess.Popen(
        [sys.executable, "-I", "-S", SCRIPT, *arguments],
        env=variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def run(variables: dict[str, str], *arguments: str | Path, typed: bytes = b"") -> tuple[int, str, str]:
    """Run the script to its end; returns exit status, output and errors."""
    process = begin(variables, *arguments)
    output, errors = process.communicate(typed, timeout=200)
    return process.returncode, output.decode(), errors.decode()


def numbers(output: str) -> dict[str, int]:
    """Return the summary."""
    return {name: int(number) for name, number in (line.split(":") for line in output.splitlines())}


@pytest.fixture
def domain() -> str:
    """The end of the addresses of this test."""
    return f"@{uuid.uuid4().hex}.example.com"


@pytest.fixture
def connection(database: Connect) -> psycopg.Connection:
    """A connection to the database of the service."""
    connection = database()
    connection.autocommit = True
    return connection


@pytest.fixture
def people(connection: psycopg.Connection, domain: str, tmp_path: Path) -> Path:
    """A list of 40 contacts."""
    connection.execute(_FILL, (domain, 40))
    path = tmp_path / "gone.txt"
    path.write_text("".join(f"p{number}{domain}\n" for number in range(1, 41)))
    return path


def left(connection: psycopg.Connection, domain: str) -> int:
    """Return how many contacts of this test there are."""
    row = connection.execute("SELECT count(*) FROM emails WHERE primary_email LIKE %s", (f"%{domain}",)).fetchone()
    assert row is not None
    return int(row[0])


def records(connection: psycopg.Connection) -> list[int]:
    """Return the numbers of contacts of all erasures, in their order."""
    query = "SELECT contacts FROM erasures WHERE origin = 'api' ORDER BY requested_at"
    return [row[0] for row in connection.execute(query)]


@pytest.fixture
def proxy(served: Served) -> Iterator[Callable[[Change], str]]:
    """Start a proxy to the service that may change its responses to erasures; returns its URL."""
    with StubServer() as server:

        def start(change: Change) -> str:
            def forward(request: ReceivedRequest) -> Reply:
                headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
                found = requests.post(f"{served.url}{request.path}", request.body, headers=headers, timeout=60)
                reply = Reply(found.status_code, {"Content-Type": "application/json"}, found.content)
                return change(request, reply) if request.path == "/erasures" else reply

            server.reply = forward
            return server.url

        yield start


def test_it_deletes_what_a_list_names_and_shows_no_address(
    served: Served, connection: psycopg.Connection, people: Path, domain: str, tmp_path: Path
) -> None:
    report = tmp_path / "report.jsonl"
    again = f'# asked for in May\n\n  P1{domain.upper()} \n"nobody{domain}"\nhidden text\n*{domain}\n'
    people.write_text(f"email\n{people.read_text()}{again}{'x' * 1_100_000}\nhidden text\n")
    arguments = (people, "--yes", "--report", report, "--batch-size", "7")

    status, output, errors = run(environment(served), *arguments)

    assert status == 3
    assert numbers(output) == {"erased": 40, "unknown": 1, "also known in": 0, "bad lines": 4, "not sent": 0}
    for number, problem in {46: "Input should be an e-mail", 47: "Input", 48: "too long", 49: "Input"}.items():
        assert f"bad line: {people}, line {number}: {problem}" in errors
    assert left(connection, domain) == 0
    written = report.read_text()
    assert domain[1:] not in (written + output + errors).lower()
    assert "hidden text" not in written + output + errors
    assert report.stat().st_mode & 0o777 == 0o600
    batches = [one for one in map(json.loads, written.splitlines()) if "batch" in one]
    assert len(batches) == 7
    with served.session() as session:
        found = session.get(f"{served.url}/erasures/{batches[0]['id']}", timeout=30).json()
    assert found["contacts"] == batches[0]["contacts"] == 7
    assert found["requested_by"] == f"client:{served.client_id}"


@pytest.mark.parametrize("compressed", [False, True])
def test_a_column_of_csv_from_standard_input(
    served: Served, connection: psycopg.Connection, people: Path, domain: str, compressed: bool
) -> None:
    rows = "".join(f'"Lee, Sam";{line};2024-05-24\r\n' for line in people.read_text().split())
    data = f"# export\nName;E-Mail;Date\r\n{rows}".encode("utf-8-sig")

    typed = gzip.compress(data) if compressed else data
    status, output, _ = run(environment(served), "-", "--column", "email", "--yes", typed=typed)

    assert (status, numbers(output)["erased"]) == (0, 40)
    assert left(connection, domain) == 0


def test_no_row_of_csv_is_lost(served: Served, connection: psycopg.Connection, people: Path, domain: str) -> None:
    listed = people.with_suffix(".csv")
    rows = [f"#1,p1{domain}", "#2", "#3,", f'"#4","p4{domain}"', ",,", f'5,"p5{domain}","two\nlines"', f"6,p6{domain}"]
    listed.write_bytes("\r".join(["Ticket,E-Mail,Note", *rows, ""]).encode())

    status, output, errors = run(environment(served), listed, "--column", "email", "--yes")

    assert (status, numbers(output)["erased"], numbers(output)["bad lines"]) == (3, 4, 2)
    assert [f"{listed}, line {number}: " in errors for number in range(2, 10)] == [
        number in {3, 4} for number in range(2, 10)
    ]
    assert left(connection, domain) == 36


def test_forget_and_include_fxa_are_passed_on(served: Served, domain: str, tmp_path: Path) -> None:
    listed = tmp_path / "gone.txt"
    listed.write_text(f"account{domain}\n")
    contact = {"email": {"primary_email": f"other{domain}"}, "fxa": {"primary_email": f"account{domain}"}}
    with served.session() as session:
        session.post(f"{served.url}/ctms", json=contact, timeout=30).raise_for_status()

        kept = run(environment(served), listed, "--yes")
        gone = run(environment(served), listed, "--yes", "--include-fxa", "--forget")

        contact["email"]["primary_email"] = f"account{domain}"
        refused = session.post(f"{served.url}/ctms", json=contact, timeout=30)
    assert numbers(kept[1])["also known in"] == 1
    assert numbers(gone[1])["erased"] == 1
    assert refused.status_code == 403  # suppressed


def test_killed_half_way_and_run_again_it_counts_each_contact_once(
    served: Served, connection: psycopg.Connection, people: Path, domain: str, proxy: Callable[[Change], str]
) -> None:
    process: list[subprocess.Popen[bytes]] = []
    sent: list[ReceivedRequest] = []

    def kill_after_two(request: ReceivedRequest, reply: Reply) -> Reply:
        sent.append(request)
        if len(sent) == 4:  # the service has deleted this batch, and the script never receives the response
            process[0].kill()
            return Reply(waits=True)
        return reply

    people.write_text("no address\n" + people.read_text())
    report = people.with_suffix(".jsonl")
    before = records(connection)
    variables = environment(served, CTMS_API_URL=proxy(kill_after_two))
    arguments = (people, "--yes", "--report", report, "--batch-size", "10")
    process.append(begin(variables, *arguments))
    process[0].communicate(timeout=200)
    assert process[0].returncode == -signal.SIGKILL
    assert left(connection, domain) == 11  # of 41 lines, 30 are sent, one is bad
    with report.open("a") as file:
        file.write('{"batch": 9, "contac')  # as a crash of the machine may leave it

    status, output, _ = run(variables, *arguments, "--resume")

    assert status == 3
    assert numbers(output) == {"erased": 40, "unknown": 0, "also known in": 0, "bad lines": 1, "not sent": 0}
    assert left(connection, domain) == 0
    assert sorted(records(connection)) == sorted([*before, 9, 10, 10, 10, 1])
    keys = [request.headers["Idempotency-Key"] for request in sent]
    assert keys[4] == keys[3]
    assert len(set(keys)) == len(keys) - 1


def test_sigterm_ends_it_after_the_current_batch(
    served: Served, connection: psycopg.Connection, people: Path, domain: str, proxy: Callable[[Change], str]
) -> None:
    process: list[subprocess.Popen[bytes]] = []

    def stop(_: ReceivedRequest, reply: Reply) -> Reply:
        process[-1].send_signal(signal.SIGTERM)
        return reply

    arguments = (people, "--yes", "--report", people.with_suffix(".jsonl"), "--batch-size", "15")
    process.append(begin(environment(served, CTMS_API_URL=proxy(stop)), *arguments))
    output, errors = process[0].communicate(timeout=200)

    assert process[0].returncode == 3
    assert numbers(output.decode())["not sent"] == 25
    assert b"stopped; run it again" in errors
    assert left(connection, domain) == 25


def test_it_waits_for_a_busy_service_and_renews_its_token(
    served: Served, connection: psycopg.Connection, people: Path, proxy: Callable[[Change], str]
) -> None:
    replies = [
        Reply(503, {"Retry-After": "1"}, {"detail": "busy"}),
        Reply(429, {"Retry-After": "1"}, {"detail": "busy"}),
        Reply(401, {"WWW-Authenticate": "Bearer"}, {"detail": "Could not validate credentials"}),
        Reply(sends=b"HTTP/1.1 202 Accepted\r\nContent-Length: 400\r\n\r\n{"),
    ]
    tokens = set()
    started = time.monotonic()

    def change(request: ReceivedRequest, reply: Reply) -> Reply:
        tokens.add(request.headers["Authorization"])
        time.sleep(1.1 if len(replies) == 2 else 0)  # tokens of the same second are equal
        return replies.pop(0) if replies else reply

    before = records(connection)
    status, output, errors = run(environment(served, CTMS_API_URL=proxy(change)), people, "--yes")

    assert (status, numbers(output)["erased"]) == (0, 40)
    assert records(connection) == [*before, 40]
    assert errors.count("waiting 1 s: it answers") == 2
    assert time.monotonic() - started >= 2
    assert len(tokens) == 2


@pytest.mark.parametrize(("answered", "status"), [(0, 1), (1, 3)])
def test_a_refusal_ends_it(
    served: Served, people: Path, proxy: Callable[[Change], str], answered: int, status: int
) -> None:
    replies = [None] * answered

    def refuse(_: ReceivedRequest, reply: Reply) -> Reply:
        if replies:
            replies.pop()
            return reply
        return Reply(403, {}, {"detail": "Permission delete_contacts is needed"})

    variables = environment(served, CTMS_API_URL=proxy(refuse))
    found, output, errors = run(variables, people, "--yes", "--batch-size", "20", "--wait", "0")

    assert found == status
    assert "refuses the request (403: Permission delete_contacts is needed)" in errors
    assert bool(output) == bool(answered)


def test_an_outage_that_lasts_ends_it(served: Served, people: Path, proxy: Callable[[Change], str]) -> None:
    url = proxy(lambda *_: Reply(503, {"Retry-After": "30"}))

    status, output, errors = run(environment(served, CTMS_API_URL=url), people, "--yes", "--wait", "5")

    assert status == 3  # whether the request was carried out is unknown
    assert "Error: the service cannot be used (it answers 503)" in errors
    assert numbers(output)["not sent"] == 40


def test_nothing_is_done(served: Served, connection: psycopg.Connection, people: Path, domain: str) -> None:
    wrong = environment(served, CTMS_CLIENT_SECRET="secret_wrong")
    nowhere = environment(served, CTMS_API_URL="http://127.0.0.1:1")
    unnamed = {**environment(served), "CTMS_CLIENT_ID": ""}

    assert run(wrong, people, "--yes")[::2] == (
        1,
        "Error: the service issues no token (400: Incorrect username or password)\n",
    )
    assert run(nowhere, people, "--yes", "--wait", "0")[0] == 1
    assert "pass --yes" in run(environment(served), people)[2]
    assert run(environment(served), people)[0] == 1
    assert run(environment(served), "-")[0] == 2
    assert "set CTMS_CLIENT_ID" in run(unnamed, people, "--yes")[2]
    assert run(environment(served, CTMS_API_URL="ftp://x"), people, "--yes")[0] == 2
    assert run(environment(served), people, "--yes", "--batch-size", "5001")[0] == 2
    assert run(environment(served), people, "--yes", "--resume")[0] == 2
    assert run(environment(served), os.devnull, "--yes")[0] == 0
    assert left(connection, domain) == 40


def test_a_redirect_is_not_followed(served: Served, people: Path) -> None:
    with StubServer() as elsewhere, StubServer() as server:
        server.reply = Reply(307, {"Location": f"{elsewhere.url}/token"})

        status, _, errors = run(environment(served, CTMS_API_URL=server.url), people, "--yes")

        assert status == 1
        assert "(307: a response that is not of CTMS)" in errors
        assert elsewhere.received == []


def test_a_report_is_neither_overwritten_nor_mixed_up(served: Served, people: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.jsonl"
    ready = (environment(served), people, "--yes", "--report", report)
    assert run(*ready)[0] == 0
    written = report.read_text()

    assert run(*ready)[0] == 10
    assert run(*ready, "--resume")[:2] == (0, run(*ready, "--resume")[1])
    for other in (["--forget"], ["--batch-size", "3"]):
        assert run(*ready, "--resume", *other)[0] == 2
    people.write_text(people.read_text() + "one.more@example.com\n")
    assert run(*ready, "--resume")[0] == 2
    assert report.read_text() == written
    report.write_text("{}\n")
    assert run(*ready, "--resume")[0] == 2
    assert run(*ready[:-1], tmp_path / "missing" / "report.jsonl")[0] == 1


@pytest.mark.parametrize(
    ("content", "arguments", "problem"),
    [
        (b"email,name\nada@example.com,Ada\n", [], "has columns, or an open quote"),
        (b"email,name\nada@example.com,Ada\n", ["--column", "mail"], "has no column mail"),
        (b'[{"email": "ada@example.com"}]', [], "is JSON"),
        (b"PK\x03\x04", [], "is a ZIP archive"),
        (gzip.compress(b"ada@example.com")[:-9], [], "cannot be read"),
        (None, [], "cannot be read"),
    ],
)
def test_what_is_no_list(
    served: Served, tmp_path: Path, content: bytes | None, arguments: list[str], problem: str
) -> None:
    listed = tmp_path / "list"
    if content is not None:
        listed.write_bytes(content)

    status, output, errors = run(environment(served), listed, "--yes", *arguments)

    assert (status, output) == (2, "")
    assert problem in errors
    assert "ada" not in errors.lower().replace(str(listed).lower(), "")


@pytest.mark.parametrize(("name", "message"), [("я" * 150, "unknown:       2500"), ("x" * 440, "(413): use a smaller")])
def test_a_large_batch(served: Served, tmp_path: Path, domain: str, name: str, message: str) -> None:
    """The first is small enough in UTF-8; with each letter escaped, it is too large."""
    listed = tmp_path / "list"
    listed.write_text("".join(f"{name} <p{number}{domain}>\n" for number in range(2_500)))

    _, output, errors = run(environment(served), listed, "--yes", "--batch-size", "5000")

    assert message in output + errors


@pytest.mark.parametrize("encoding", ["utf-16", "cp1252", "utf-8"])
def test_an_encoding(served: Served, tmp_path: Path, domain: str, encoding: str) -> None:
    listed = tmp_path / "list"
    listed.write_bytes(f"zoë{domain}\r\n".encode(encoding))
    body: dict[str, Any] = {"email": {"primary_email": f"zoë{domain}"}}
    with served.session() as session:
        session.post(f"{served.url}/ctms", json=body, timeout=30).raise_for_status()

    status, output, _ = run(environment(served), listed, "--yes")

    assert (status, numbers(output)["erased"]) == (0, 1)
