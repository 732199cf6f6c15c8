"""No log and no report ever holds anything of a person or any secret: the whole API and every command are tried."""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import psycopg
import pytest
import requests

from ctms.cli import ctms
from tests import forked
from tests.contacts.factories import full
from tests.serving import Served, serve
from tests.telemetry.sentry import Inbox, inbox
from tools.cli_reference import below

MARK = "janemarked"
ADDRESS = f"{MARK}@example.com"
UNKNOWN = "332de237-cab7-4461-bcc3-48e68f42bd5c"
SECRET = f"secret_{MARK}"
TALKATIVE = {"CTMS_LOGGING_LEVEL": "DEBUG", "CTMS_LOG_SQLALCHEMY": "true", "CTMS_PLUGINS_TRACE": "true"}


@pytest.fixture(params=["true", "false"], ids=["mozlog", "text"])
def watched(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Served, Inbox]]:
    """Run the service at its most verbose, and collect its output."""
    with (
        inbox() as reported,
        serve(
            tmp_path,
            SENTRY_DSN=reported.dsn,
            CTMS_USE_MOZLOG=request.param,
            CTMS_TOKEN_FAILURES_PER_MINUTE="3",
            **TALKATIVE,
        ) as running,
    ):
        yield running, reported


@contextmanager
def database(running: Served) -> Iterator[psycopg.Connection]:
    with psycopg.connect(running.database_url(), autocommit=True) as connection:
        yield connection


def marked() -> dict[str, Any]:
    """A contact whose every text is about the person."""
    contact = full()
    contact["email"].update(
        primary_email=ADDRESS, first_name=MARK, last_name=MARK, sfdc_id=MARK, unsubscribe_reason=MARK
    )
    contact["amo"].update(display_name=MARK, user_id=MARK, username=MARK)
    contact["fxa"].update(fxa_id=MARK, primary_email=f"{MARK}@example.org")
    contact["mofo"].update(mofo_email_id=MARK, mofo_contact_id=MARK)
    return contact


def call_everything(url: str, token: str) -> None:
    """Call every operation with valid, irregular and invalid requests full of marks."""
    document = requests.get(f"{url}/openapi.json", timeout=30).json()
    contact = marked()
    bodies: list[Any] = [
        contact,
        {"email": {"primary_email": MARK}, "newsletters": [{"name": 1}]},
        {"email": MARK},
        {"address": ADDRESS},
        {"address": f"*@{MARK}"},
        [ADDRESS],
    ]
    for path, operations in document["paths"].items():
        for method in (name for name in operations if name != "parameters"):
            for value in (contact["email"]["email_id"], ADDRESS, MARK, str(uuid.uuid4())):
                for body in bodies if method in {"post", "put", "patch"} else [None]:
                    for authorization in (f"Bearer {token}", f"Bearer {MARK}", f"Basic {MARK}"):
                        filled = path
                        for name in ("email_id", "primary_email", "erasure_id", "request_id", "version", "name"):
                            filled = filled.replace(f"{{{name}}}", value)
                        requests.request(
                            method,
                            f"{url}{filled}",
                            params={"primary_email": ADDRESS, "fxa_id": MARK, "start": MARK, "after": MARK},
                            json=body,
                            headers={"Authorization": authorization, "User-Agent": f"x/1 ({ADDRESS})"},
                            timeout=60,
                            allow_redirects=False,
                        )


def ask_for_tokens(url: str) -> None:
    for client_id in ("id_admin", f"id_{MARK}", ADDRESS):
        for _ in range(5):  # until it is limited
            requests.post(f"{url}/token", auth=(client_id, SECRET), timeout=60)
        requests.post(f"{url}/token", data={"client_id": client_id, "client_secret": SECRET, "scope": MARK}, timeout=60)
    requests.post(f"{url}/token", data={"grant_type": MARK, "client_secret": SECRET}, timeout=60)


def break_it(running: Served, headers: dict[str, str]) -> None:
    """Make PostgreSQL refuse a row, which it then repeats, and stop a statement that waits for a lock."""
    with database(running) as connection:
        connection.execute("ALTER TABLE emails ADD CONSTRAINT odd CHECK (first_name <> last_name) NOT VALID")
        answer = requests.post(f"{running.url}/ctms", json=marked(), headers=headers, timeout=60)
        assert answer.status_code == 500
        connection.execute("ALTER TABLE emails DROP CONSTRAINT odd")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    requests.get(f"{running.url}/__crash__", headers=headers, timeout=60)


def test_the_whole_api(watched: tuple[Served, Inbox]) -> None:
    running, reported = watched
    token = running.token()
    headers = {"Authorization": f"Bearer {token}"}

    break_it(running, headers)
    call_everything(running.url, token)
    ask_for_tokens(running.url)

    errors = reported.wait_for(2)
    assert running.stop() == 0
    log = running.output.read_text()
    assert "/ctms/{email_id}" in log
    assert "CheckViolation" in log
    assert {one["values"][-1]["type"] for error in errors if (one := error.get("exception"))} >= {
        "CheckViolation",
        "RuntimeError",
    }
    assert all(set(error["tags"]) == {"rid"} for error in errors if "exception" in error)
    for text in (log, reported.text()):
        assert MARK not in text
        assert token not in text
        assert "eyJ" not in text
        # Once by itself and once in the line to copy, on the first start only: that is no log.
        assert text.count(running.client_secret) == (2 if text is log else 0)


LISTS = {
    "list.csv": f"Email,Name,Weekly,Day\n{MARK}@example.com,{MARK},yes,\n{MARK},x,{MARK},{MARK}\n{MARK},x,y,z,{MARK}\n",
    "map.toml": 'email.primary_email = "Email"\nemail.first_name = "Name"\nnewsletters.weekly = "Weekly"\n'
    'amo.last_login = "Day"\n',
    "delete.txt": f"{ADDRESS}\nnobody-{ADDRESS}\n{MARK}\n",
    "retention.toml": f"[rules.old]\naction = 'erase'\nwhen.mailing_country = '{MARK}'\n",
    "opt-out.csv": f"Email,Date,Reason\n{ADDRESS},2020-01-01,{MARK}\n{MARK},x,y\n",
}
ARGUMENTS = {
    "settings": [],
    "db shell": ["--", "-c", "SELECT 1"],
    "clients create": ["id_new", f"{MARK}@example.com", "--role", "viewer"],
    "clients list": [],
    "clients show": ["id_new"],
    "clients disable": ["id_new"],
    "clients enable": ["id_new"],
    "contacts check-addresses": [],
    "clients grant": ["id_new", "admin"],
    "clients revoke": ["id_new", "admin"],
    "clients limit": ["id_new", "--rate", "100/s"],
    "clients rotate-secret": ["id_new", "--yes"],
    "clients delete": ["id_new", "--yes"],
    "permissions create": ["read_new"],
    "permissions list": [],
    "roles create": ["new"],
    "roles list": [],
    "roles show": ["new"],
    "roles grant": ["new", "read_new"],
    "roles revoke": ["new", "read_new"],
    "roles delete": ["new", "--yes"],
    "permissions delete": ["read_new", "--yes"],
    "plugins list": [],
    "plugins check": ["vpn"],
    "plugins purge": ["nobody", "--yes"],
    "plugins new": ["made", "--kind", "waitlist"],
    "backends list": [],
    **{f"backends {name}": ["nothing"] for name in ("pause", "resume", "errors", "retry", "verify")},
    "backends forget": ["nothing", "--yes"],
    "backends resync": ["nothing", "--email-file", "delete.txt"],
    "subject-access": [ADDRESS, "--output", "report"],
    "opt-out": ["--yes", "opt-out.csv"],
    "export": ["--output", "export", "--filter", json.dumps({"mailing_country": MARK})],
    "import": ["list.csv", "--map", "map.toml", "--mode", "upsert"],
    "documents build": [],
    "documents verify": ["--sample", "10"],
    "duplicates": [],
    "merge": [UNKNOWN, str(uuid.UUID(int=1)), "--yes"],
    "delete-bulk": ["--yes", "--forget", "--email", f"x-{ADDRESS}", "--email-file", "delete.txt"],
    "erasures list": [],
    "erasures find": [ADDRESS],
    "erasures show": [UNKNOWN],
    "erasures retry": [UNKNOWN],
    "erasures close": [UNKNOWN, "nothing", "--yes"],
    "retention check": [],
    "retention run": [],
    "retention runs": [],
    "retention statistics": [],
    "suppressions list": [],
    "suppressions add": [f"y-{ADDRESS}"],
    "suppressions check": [f"y-{ADDRESS}"],
    "suppressions remove": [f"y-{ADDRESS}"],
    "suppressions import": ["delete.txt"],
    "audit": [],
    "worker": ["--once"],
}
"""How every command is called, in this order; data that operators ask for go to standard output."""


def leaves(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[str]:
    if isinstance(command, click.Group):
        for name, child in below(command).items():
            yield from leaves(child, (*path, name))
    else:
        yield " ".join(path)


@pytest.mark.long
def test_every_command(served: Served, tmp_path: Path) -> None:
    assert set(ARGUMENTS) == set(leaves(ctms)) - {"serve"}, "say how the command is called"
    for name, text in LISTS.items():
        (tmp_path / name).write_text(text)
    headers = {"Authorization": f"Bearer {served.token()}"}
    created = requests.post(f"{served.url}/ctms", json=marked(), headers=headers, timeout=60)
    assert created.status_code == 201

    with inbox() as reported:
        environment = {**served.environment, **TALKATIVE, "SENTRY_DSN": reported.dsn}
        environment["CTMS_RETENTION_FILE"] = str(tmp_path / "retention.toml")
        done: dict[str, subprocess.CompletedProcess[str]] = {}
        for name, arguments in ARGUMENTS.items():
            done[name] = forked.run_flask("ctms", *name.split(), *arguments, environment=environment, cwd=tmp_path)

    secrets = {word for result in done.values() for word in result.stdout.split() if word.startswith("secret_")}
    assert len(secrets) == 2  # of the new client, and the one that it was given instead
    assert {name: result.stderr for name, result in done.items() if result.returncode not in {0, 3, 4}} == {}
    assert [name for name, result in done.items() if "Traceback" in result.stderr or MARK in result.stderr] == []
    written = "".join(result.stderr for result in done.values())
    assert not any(secret in written for secret in (*secrets, served.client_secret))
    assert done["delete-bulk"].returncode in {0, 3}
    gone = requests.get(f"{served.url}{created.headers['Location']}", headers=headers, timeout=60)
    assert gone.status_code == 404
    assert MARK not in reported.text()
    assert MARK not in served.output.read_text()
