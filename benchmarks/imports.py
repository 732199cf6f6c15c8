"""Measure `flask ctms import`: `python -m benchmarks.imports`.

Imports a list, as a mailing service exports it, of people whom the database does not know; then the same list again,
which changes nothing; then with other names; then contacts with all parts. Prints the contacts per second of each, the
CPU time per contact of the command and of PostgreSQL, and the peak memory of the process that reads the file.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import bulk, data

MAP = """
email.primary_email = "Email Address"
email.first_name = "First Name"
email.last_name = "Last Name"
email.mailing_country = "CC"
email.email_lang = {value = "en"}

[newsletters.weekly]
subscribed = {column = "Weekly", values = {yes = true, no = false}}
source = {value = "https://lists.example.com/"}
"""
COLUMNS = ("Email Address", "First Name", "Last Name", "CC", "OPTIN_TIME", "MEMBER_RATING", "Weekly", "TAGS")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    parser.add_argument("--number", type=int, default=100_000, help="contacts to import (default: %(default)s)")
    parser.add_argument("--processes", type=int, help="of the import (default: that of the command)")
    options = parser.parse_args(arguments)
    with (
        data.prepared(options.data_dir, options.contacts) as contacts,
        tempfile.TemporaryDirectory(dir=options.data_dir) as folder,
    ):
        path, contact_map = Path(folder, "list.csv"), Path(folder, "map.toml")
        contact_map.write_text(MAP)
        processes = ["--processes", str(options.processes)] if options.processes else []
        mapped = [str(path), "--mode", "upsert", "--map", str(contact_map), *processes]
        for name, outcome, first_name in (
            ("new", "created", "First"),
            ("the same again", "unchanged", "First"),
            ("other names", "updated", "Other"),
        ):
            _write_csv(path, options.number, first_name)
            _measure(contacts, name, outcome, options.number, mapped)
        full = Path(folder, "list.ndjson")
        with full.open("w") as file:
            file.writelines(json.dumps(document) + "\n" for document in _documents(options.number // 4))
        whole = [str(full), "--mode", "create", *processes]
        _measure(contacts, "all parts", "created", options.number // 4, whole)
    return 0


def _measure(contacts: data.Contacts, name: str, outcome: str, number: int, arguments: list[str]) -> None:
    bulk.settle(contacts)
    print(f"{name}: ", end="")
    found = bulk.run(contacts, "import", *arguments)
    if found["summary"][outcome] != number:
        raise SystemExit("the import has other outcomes than expected")
    command, database = (found[kind] * 1000 / number for kind in ("cpu_time", "database"))
    rate = number / found["summary"]["seconds"]
    print(f"{name}: {rate:,.0f} contacts/s, CPU ms per contact: command {command:.2f}, PostgreSQL {database:.2f}")


def _write_csv(path: Path, number: int, first_name: str) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for one in range(number):
            name = f"{first_name} {one}"
            optin = "2020-01-02 08:00:00"
            weekly = "yes" if one % 5 else "no"
            rows.writerow([f"imported-{one}@example.com", name, f"Last {one}", "de", optin, 2, weekly, '"friend"'])


def _documents(number: int) -> Iterator[dict[str, Any]]:
    for one in range(number):
        yield {
            "email": {
                "primary_email": f"whole-{one}@example.com",
                "first_name": f"First {one}",
                "mailing_country": "de",
            },
            "amo": {"display_name": f"Fan {one}", "user_id": f"user-{one}", "last_login": "2020-01-27", "user": True},
            "fxa": {"fxa_id": f"imported-{one}", "primary_email": f"whole-{one}@example.com", "lang": "de"},
            "mofo": {"mofo_email_id": f"imported-{one}", "mofo_contact_id": f"donor-{one}", "mofo_relevant": True},
            "newsletters": [{"name": name, "lang": "de"} for name in ("common-voice", "hubs", "mozilla-foundation")],
            "waitlists": [{"name": "relay", "fields": {"geo": "ca"}}],
        }


if __name__ == "__main__":
    sys.exit(main())
