"""The examples of the pages about bulk commands work."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import psycopg

from ctms.database.pool import libpq_url
from tests.conftest import SECRET_KEY, empty_database
from tests.contacts.factories import minimal
from tests.docs import pages
from tests.docs.pages import DOCS, ROOT
from tests.forked_shell import activated
from tests.serving import Served, environment_for, run_flask

HOW_TO = DOCS / "how-to"


def run(
    page: Path, served: Served, folder: Path, file: str, *addresses: str, says: Mapping[str, str] | None = None
) -> None:
    """Run a page whose reader has this file, and contacts with these addresses."""
    with served.session() as session:
        for address in addresses:
            session.delete(f"{served.url}/ctms/{address}", timeout=30)  # another page's test may have created it
            made = session.post(f"{served.url}/ctms", json=minimal(primary_email=address), timeout=30)
            assert made.status_code == 201, made.text
    (folder / file).write_text(pages.marked(page, f"file: {file}"))
    pages.run(page, activated(served.environment), folder, says)


def test_many_are_erased(served: Served, tmp_path: Path) -> None:
    run(HOW_TO / "erase-in-bulk.md", served, tmp_path, "gone.txt", "ada@example.com", '"a, b"@example.com')


def test_many_are_erased_over_http(served: Served, tmp_path: Path) -> None:
    shutil.copy(ROOT / "bin" / "delete_bulk.py", tmp_path)
    says = {
        "https://ctms.example.com": served.url,
        "id_eraser": served.client_id,
        "secret_…": served.client_secret,
    }

    run(HOW_TO / "erase-over-http.md", served, tmp_path, "gone.txt", "lin@example.com", says=says)


def test_contacts_that_are_no_longer_needed_are_deleted(postgres: str, tmp_path: Path) -> None:
    """In a database of its own: the rules would match contacts of other tests, and delete them."""
    page, url = HOW_TO / "retention.md", empty_database(postgres, "retention")
    environment = environment_for(tmp_path, CTMS_DB_URL=url, CTMS_SECRET_KEY=SECRET_KEY, FLASK_APP="wsgi")
    assert run_flask("db", "upgrade", environment=environment).returncode == 0
    ages = {"ada@example.com": "1 year", "lin@example.com": "1 year", "grace@example.com": "6 years"}
    with psycopg.connect(libpq_url(url)) as connection:
        for address, age in ages.items():
            connection.execute(
                "INSERT INTO emails (primary_email, double_opt_in, create_timestamp, update_timestamp)"
                " SELECT %s, %s, moment, moment FROM (SELECT now() - %s::interval) AS past (moment)",
                (address, age == "6 years", age),
            )
    for name in ("hold.txt", "retention.toml"):
        (tmp_path / name).write_text(pages.marked(page, f"file: {name}"))

    pages.run(page, activated(environment), tmp_path)

    with psycopg.connect(libpq_url(url)) as connection:
        assert connection.execute("SELECT primary_email FROM emails").fetchall() == [("ada@example.com",)]


def test_opt_outs_are_taken_over(served: Served, tmp_path: Path) -> None:
    run(HOW_TO / "import-opt-outs.md", served, tmp_path, "bounces.csv", "grace@example.com")

    report = (tmp_path / "opt-outs.csv").read_text()
    assert "Grace@example.com,opted out," in report
