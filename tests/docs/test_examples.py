"""The examples of the docs work on a service as a reader would run it."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import requests

from ctms.database.pool import libpq_url
from tests.conftest import empty_database
from tests.docs import pages
from tests.docs.pages import DOCS, ROOT
from tests.forked_shell import activated
from tests.serving import Served, environment_for, free_port, run_flask, serve, serve_as_is, wait_until_up
from tests.waiting import wait_until

HOW_TO = DOCS / "how-to"
HERE = "http://127.0.0.1:8000"
SECRET_KEY = "the key of the deployment that the docs speak of"


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A service that only the docs use."""
    with serve_as_is(tmp_path_factory.mktemp("documented"), CTMS_WORKERS="2") as running:
        yield running


def with_database(postgres: str, name: str, folder: Path) -> dict[str, str]:
    """Return the environment of a deployment whose database is empty."""
    return environment_for(folder, CTMS_DB_URL=empty_database(postgres, name), CTMS_SECRET_KEY=SECRET_KEY)


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "tutorials" / "first-steps.md"], ids=pages.name)
def test_first_steps_work(page: Path, documented: Served, tmp_path: Path) -> None:
    here = {HERE: documented.url, "secret_…": documented.client_secret}

    pages.run(page, activated(documented.environment), tmp_path, here)


def test_a_front_end_is_kept_in_sync(documented: Served, tmp_path: Path) -> None:
    names = {**activated(documented.environment), "TOKEN": documented.token()}

    pages.run(DOCS / "tutorials" / "front-end.md", names, tmp_path, {HERE: documented.url})


def test_the_readme_shows_what_the_first_start_prints(documented: Served) -> None:
    shown = pages.marked(ROOT / "README.md", "shows: serve").replace(HERE, documented.url)

    printed = documented.output.read_text().split("/docs\n")[0] + "/docs"
    assert pages.matches(shown, printed), printed


def test_the_readme_has_the_two_commands(documented: Served) -> None:
    start = pages.marked(ROOT / "README.md", "command: serve").strip()
    test = pages.marked(ROOT / "README.md", "command: test").strip()

    assert "\n" not in start + test
    assert start.endswith(".venv/bin/flask ctms serve")
    assert test.endswith(".venv/bin/tox run-parallel")
    assert documented.process.args[1:] == start.split("&&")[-1].split()[1:]  # type: ignore[index]
    assert start in (DOCS / "tutorials" / "first-steps.md").read_text()


def test_a_secret_is_rotated(documented: Served, tmp_path: Path) -> None:
    documented.flask("ctms", "clients", "create", "id_example", "you@example.com", "--role", "viewer")

    pages.run(HOW_TO / "rotate-a-clients-secret.md", activated(documented.environment), tmp_path)

    assert '"enabled": false' in documented.flask("ctms", "clients", "show", "id_example", "--json").stdout


def test_a_client_is_limited(documented: Served, tmp_path: Path) -> None:
    documented.flask("ctms", "clients", "create", "id_example", "you@example.com", "--role", "viewer")

    pages.run(HOW_TO / "limit-a-client.md", activated(documented.environment), tmp_path)

    assert '"rate_limit": null' in documented.flask("ctms", "clients", "show", "id_example", "--json").stdout


def test_the_audit_log_is_read(documented: Served, tmp_path: Path) -> None:
    pages.run(HOW_TO / "read-the-audit-log.md", activated(documented.environment), tmp_path)


def test_duplicates_are_merged(documented: Served, tmp_path: Path) -> None:
    token = documented.token()
    account = {"primary_email": "account@example.com"}
    ids = []
    for number in "12":
        body = {"email": {"primary_email": f"duplicate{number}@example.com"}, "fxa": account}
        headers = {"Authorization": f"Bearer {token}"}
        created = requests.post(f"{documented.url}/ctms", json=body, headers=headers, timeout=60)
        ids.append(created.json()["email"]["email_id"])
    names = {"TARGET": ids[0], "SOURCE": ids[1], "CTMS": documented.url, "TOKEN": token}

    pages.run(HOW_TO / "merge-duplicates.md", {**activated(documented.environment), **names}, tmp_path)

    gone = requests.get(f"{documented.url}/ctms/{ids[1]}", headers=headers, timeout=60)
    assert gone.json()["merged_into"] == ids[0]


def test_contacts_are_exported(documented: Served, tmp_path: Path) -> None:
    names = {"CTMS": documented.url, "TOKEN": documented.token()}

    pages.run(HOW_TO / "export-contacts.md", {**activated(documented.environment), **names}, tmp_path)

    assert (tmp_path / "export" / "manifest.json").exists()
    assert (tmp_path / "canada.csv").read_text().startswith("email.email_id,email.primary_email,newsletters\n")


def test_contacts_are_imported(documented: Served, tmp_path: Path) -> None:
    for name in ("list.csv", "map.toml"):
        (tmp_path / name).write_text(pages.marked(HOW_TO / "import-contacts.md", f"file: {name}"))

    pages.run(HOW_TO / "import-contacts.md", activated(documented.environment), tmp_path)

    outcomes = [line.split(",")[1] for line in (tmp_path / "imported.csv").read_text().splitlines()]
    assert outcomes == ["outcome", "created", "created"]


def test_an_auditor_may_read_the_history(documented: Served, tmp_path: Path) -> None:
    pages.run(HOW_TO / "prove-consent.md", activated(documented.environment), tmp_path)

    shown = documented.flask("ctms", "roles", "show", "auditor", "--json").stdout
    assert '"view_history"' in shown
    assert '"id_audit"' in shown


def test_an_external_postgresql_is_set_up(postgres: str, tmp_path: Path) -> None:
    url = empty_database(postgres, "own")
    says = {"postgresql://ctms:password@db.example.com/ctms": url}

    pages.run(HOW_TO / "use-your-own-postgresql.md", activated(environment_for(tmp_path)), tmp_path, says)

    with serve(tmp_path, CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY, CTMS_ERASURE_KEY="k" * 32) as running:
        wait_until(lambda: requests.get(f"{running.url}/__heartbeat__", timeout=60).json()["status"] == "ok")


@pytest.mark.parametrize("page", ["use-your-own-postgresql.md", "deploy.md", "adopt-an-existing-database.md"])
def test_pages_that_set_the_signing_key_also_set_the_erasure_key(page: str) -> None:
    blocks = [block.text for block in pages.blocks(HOW_TO / page) if "CTMS_SECRET_KEY" in block.text]

    assert blocks
    assert all("CTMS_ERASURE_KEY" in block for block in blocks)


def test_an_existing_database_is_adopted_and_given_back(postgres: str, tmp_path: Path) -> None:
    environment = {**with_database(postgres, "existing", tmp_path), "FLASK_APP": "wsgi"}
    before = run_flask("db", "upgrade", "2b00e4069aea", environment=environment, cwd=tmp_path)
    assert before.returncode == 0, before.stderr
    add_client = (
        "INSERT INTO api_client (client_id, email, enabled, hashed_secret) VALUES ('id_legacy', 'l@x.org', true, 'x')"
    )
    execute(environment["CTMS_DB_URL"], add_client)

    pages.run(HOW_TO / "adopt-an-existing-database.md", activated(environment), tmp_path)

    roles = (
        "SELECT array_agg(name) FROM api_client_roles g JOIN roles r ON r.id = g.role_id"
        " WHERE api_client_id = 'id_legacy'"
    )
    assert execute(environment["CTMS_DB_URL"], roles) == [(["viewer"],)]


def test_the_embedded_database_is_opened(documented: Served, tmp_path: Path) -> None:
    command = pages.marked(HOW_TO / "deploy.md", "run: shell")

    printed = subprocess.check_output(
        ["bash", "-euc", command], env=activated(documented.environment), cwd=tmp_path, text=True
    )

    assert "(1 row)" in printed


@pytest.mark.parametrize("page", pages.PAGES, ids=pages.name)
def test_examples_need_no_new_curl_and_no_variable_of_flask(page: Path) -> None:
    for block in pages.blocks(page):
        assert not re.search(r"curl\b[^|\n]* --json\b", block.text), "curl has `--json` since 7.82 only"
        assert "FLASK_APP" not in block.text


def test_the_tables_are_upgraded(postgres: str, tmp_path: Path) -> None:
    environment = with_database(postgres, "upgraded", tmp_path)

    pages.run(HOW_TO / "upgrade.md", activated(environment), tmp_path)


def test_the_signing_key_is_rotated(postgres: str, tmp_path: Path) -> None:
    environment = with_database(postgres, "rotated", tmp_path)
    run_flask("db", "upgrade", environment={**environment, "FLASK_APP": "wsgi"}, cwd=tmp_path)
    made = run_flask("ctms", "clients", "create", "id_x", "x@example.com", "--role", "viewer", environment=environment)
    secret = made.stdout.split()[-1]

    page = HOW_TO / "rotate-the-signing-key.md"
    rotate = "\n".join(block.text for block in pages.blocks(page) if block.mark == "run")
    rotated = subprocess.run(
        ["bash", "-euc", f'{rotate}\nprintf \'%s %s\' "$CTMS_SECRET_KEY" "$CTMS_SECRET_KEY_FALLBACKS"'],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    new, old = rotated.split(" ", 1)

    assert new != old == SECRET_KEY
    read = "ctms?primary_email=nobody@example.com"
    with wsgi_server(environment, tmp_path) as url:
        token = requests.post(f"{url}/token", auth=("id_x", secret), timeout=30).json()["access_token"]
    authorization = {"Authorization": f"Bearer {token}"}
    with wsgi_server({**environment, "CTMS_SECRET_KEY": new, "CTMS_SECRET_KEY_FALLBACKS": old}, tmp_path) as url:
        assert requests.get(f"{url}/{read}", headers=authorization, timeout=30).status_code == 200
    with wsgi_server({**environment, "CTMS_SECRET_KEY": new}, tmp_path) as url:
        assert requests.get(f"{url}/{read}", headers=authorization, timeout=30).status_code == 401


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    """Run a statement on the database with this SQLAlchemy URL; returns its rows, if it has any."""
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchall() if cursor.description is not None else []


@contextmanager
def wsgi_server(environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Start the documented WSGI server outside the checkout, and yield its URL."""
    port = str(free_port())
    command = pages.marked(HOW_TO / "deploy.md", "run: granian").replace("--port 8000", f"--port {port}")
    assert port in command
    output = folder / f"granian-{port}.txt"
    with output.open("w") as file:
        process = subprocess.Popen(
            ["bash", "-euc", command.replace("\ngranian", "\nexec granian")],
            env={**activated(environment), "TMPDIR": str(folder)},
            cwd=folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_up(url, process, output)
        wait_for_workers(output)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=200)


def wait_for_workers(output: Path) -> None:
    """Wait until both processes are there: one that is still starting hears no SIGTERM, and is waited for."""
    give_up = time.monotonic() + 200
    while output.read_text().count("Started worker-") < 2:
        assert time.monotonic() < give_up, output.read_text()
        time.sleep(0.1)
