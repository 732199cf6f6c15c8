"""The cost of the history for writes: `python -m benchmarks.history`.

One server writes to one database, in interleaved rounds with the triggers that record events and deletions, and without
them. Prints the ratio of requests per second, and the CPU time per request of the service and of PostgreSQL.
"""

from __future__ import annotations

import argparse
import statistics
import sys

import psycopg

from benchmarks import data, load, servers
from benchmarks.interleaved import add_arguments, median, ratios
from benchmarks.kinds import KINDS
from benchmarks.load import Measurement
from ctms.database.pool import libpq_url

_TABLES = ("emails", "mofo", "newsletters", "waitlists")


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    add_arguments(parser, seconds=2, rounds=10)
    writes = [name for name, kind in KINDS.items() if kind.writes]
    parser.add_argument("--kinds", nargs="+", choices=writes, default=writes, help="kinds of requests (default: all)")
    options = parser.parse_args(arguments)
    with (
        data.prepared(options.data_dir, options.contacts) as contacts,
        servers.service(contacts, options.workers) as service,
    ):
        try:
            for name in options.kinds:
                _compare(name, contacts, service, options)
        finally:
            _set_triggers(contacts, enabled=True)
    return 0


def _compare(name: str, contacts: data.Contacts, service: servers.Server, options: argparse.Namespace) -> None:
    kind = KINDS[name]
    measured: dict[bool, list[Measurement]] = {True: [], False: []}
    load.measure(service, kind, contacts, seconds=3, connections=options.connections)
    for number in range(options.rounds):
        for enabled in (True, False) if number % 2 == 0 else (False, True):
            _set_triggers(contacts, enabled=enabled)
            measured[enabled].append(
                load.measure(service, kind, contacts, seconds=options.seconds, connections=options.connections)
            )
    with_it, without = median(measured[True]), median(measured[False])
    ratio = statistics.median(ratios(measured[True], measured[False]))
    print(f"{kind.title}: {with_it.rate:,.0f} requests/s, {without.rate:,.0f} without history; ratio {ratio:.2f}")
    for title, one, other in (
        ("service", with_it.server, without.server),
        ("PostgreSQL", with_it.database, without.database),
    ):
        print(f"  {title}: {one:.3f} ms of CPU time per request, {other:.3f} without history", flush=True)


def _set_triggers(contacts: data.Contacts, *, enabled: bool) -> None:
    """Enable or disable the triggers, not those of foreign keys."""
    action = "ENABLE" if enabled else "DISABLE"
    with psycopg.connect(libpq_url(contacts.url)) as connection:
        for table in _TABLES:
            connection.execute(f"ALTER TABLE {table} {action} TRIGGER USER")


if __name__ == "__main__":
    sys.exit(main())
