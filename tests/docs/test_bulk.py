"""The examples of the pages about bulk commands work."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.contacts.factories import minimal
from tests.docs import pages
from tests.docs.pages import DOCS, ROOT
from tests.serving import Served

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
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    pages.run(page, {**served.environment, "PATH": path}, folder, says)


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


def test_contacts_that_are_no_longer_needed_are_deleted(served: Served, tmp_path: Path) -> None:
    page = HOW_TO / "retention.md"
    (tmp_path / "hold.txt").write_text(pages.marked(page, "file: hold.txt"))
    ages = {"ada@example.com": "1 year", "lin@example.com": "1 year", "grace@example.com": "6 years"}
    with served.session() as session:
        for address, age in ages.items():
            session.delete(f"{served.url}/ctms/{address}", timeout=30)
            contact = minimal(primary_email=address, double_opt_in=age == "6 years")
            assert session.post(f"{served.url}/ctms", json=contact, timeout=30).status_code == 201
            moment = f"create_timestamp = now() - interval '{age}', update_timestamp = now() - interval '{age}'"
            sql = f"UPDATE emails SET {moment} WHERE primary_email = '{address}'"
            served.flask("ctms", "db", "shell", "--", "-c", sql)

        run(page, served, tmp_path, "retention.toml")

        left = [session.get(f"{served.url}/ctms?primary_email={address}", timeout=30).json() for address in ages]
    assert [len(found) for found in left] == [1, 0, 0]


def test_opt_outs_are_taken_over(served: Served, tmp_path: Path) -> None:
    run(HOW_TO / "import-opt-outs.md", served, tmp_path, "bounces.csv", "grace@example.com")

    report = (tmp_path / "opt-outs.csv").read_text()
    assert "Grace@example.com,opted out," in report
