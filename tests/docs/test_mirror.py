"""The pages about mirrors: the example has what the service has, also after it has lost its place."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.contacts.factories import full, minimal
from tests.docs import pages
from tests.docs.pages import DOCS
from tests.forked_shell import activated
from tests.serving import Served


class Mirror:
    """The example as a reader runs it."""

    def __init__(self, served: Served, folder: Path) -> None:
        self._folder = folder
        self._environment = {**served.environment, "CTMS": served.url, "TOKEN": served.token()}
        (folder / "mirror.py").write_text(pages.marked(DOCS / "how-to" / "mirror-contacts.md", "run: mirror"))

    def run(self) -> dict[str, Any]:
        """Run it once, and return its copies."""
        command = [sys.executable, "-W", "error::SyntaxWarning", "mirror.py"]
        subprocess.run(command, cwd=self._folder, env=self._environment, check=True)
        database = sqlite3.connect(self._folder / "mirror.db")
        try:
            copies = database.execute("SELECT email_id, document FROM contacts").fetchall()
        finally:
            database.close()
        return {email_id: json.loads(document) for email_id, document in copies}


@pytest.fixture
def mirror(served: Served, tmp_path: Path) -> Mirror:
    return Mirror(served, tmp_path)


def everything(session: requests.Session, url: str) -> dict[str, Any]:
    """Return all contacts of the service."""
    link = f"{url}/updates?start=0001-01-01&limit=1000"
    found: dict[str, Any] = {}
    while link is not None:
        page = session.get(link, timeout=60).json()
        found |= {contact["email"]["email_id"]: contact for contact in page["items"]}
        link = page["next"]
    return found


def test_the_example_follows(served: Served, mirror: Mirror, tmp_path: Path) -> None:
    with served.session() as session:
        created = [session.post(f"{served.url}/ctms", json=full(), timeout=60).json()["email"] for _ in range(4)]

        first = mirror.run()
        assert first == everything(session, served.url)
        assert {email["email_id"] for email in created} <= first.keys()

        deleted, changed, returned, lost = created
        session.delete(f"{served.url}/ctms/{deleted['primary_email']}", timeout=60)
        session.patch(f"{served.url}/ctms/{changed['email_id']}", json={"email": {"first_name": "Ada"}}, timeout=60)
        session.delete(f"{served.url}/ctms/{returned['primary_email']}", timeout=60)
        session.put(
            f"{served.url}/ctms/{returned['email_id']}", json=minimal(email_id=returned["email_id"]), timeout=60
        )
        second = mirror.run()
        assert deleted["email_id"] not in second
        assert second == everything(session, served.url)

        session.delete(f"{served.url}/ctms/{lost['primary_email']}", timeout=60)
        restored = pages.marked(DOCS / "runbooks" / "follower-lost-its-place.md", "run: restored")
        subprocess.run(["bash", "-euc", restored], env=activated(served.environment), cwd=tmp_path, check=True)
        third = mirror.run()
        assert lost["email_id"] not in third
        assert third == everything(session, served.url)
