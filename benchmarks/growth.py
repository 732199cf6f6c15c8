"""Measure how the cost of requests grows with the number of contacts: `python -m benchmarks.growth`.

Fills a database of each size, and prints for each kind of request the rate, the latency, and the CPU time per request
of the server (`cpu`) and of PostgreSQL (`pg`); then the ratios of the CPU times to those of the smallest size, and the
space on disk per contact, by table, which a reused database has more of. All sizes run at the same time, and
measurements are interleaved, so that other load on the machine affects all alike.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import platformdirs

from benchmarks import data, load, servers
from benchmarks.interleaved import add_arguments, median
from benchmarks.kinds import KINDS, Kind, Request
from benchmarks.load import Measurement
from ctms.database.pool import Connection

SIZES = (20_000, 200_000, 2_000_000)

# Partitions count for their table.
_SPACE = """
    SELECT coalesce(parent.relname, c.relname), sum(pg_table_size(c.oid))::bigint, sum(pg_indexes_size(c.oid))::bigint
    FROM pg_class c
    LEFT JOIN pg_inherits i ON i.inhrelid = c.oid
    LEFT JOIN pg_class parent ON parent.oid = i.inhparent
    WHERE c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace
    GROUP BY 1 ORDER BY sum(pg_total_relation_size(c.oid)) DESC"""


@dataclass(frozen=True)
class Space:
    """The space on disk of a table and of its indexes, in bytes."""

    table: int
    indexes: int


@dataclass(frozen=True)
class Result:
    """The figures for one number of contacts: the medians by kind of request, and the space by table."""

    contacts: int
    kinds: dict[str, Measurement]
    space: Mapping[str, Space]


Target = tuple[servers.Server, data.Contacts]
"""A service and its database."""


def _search(_contacts: data.Contacts, _count: int) -> Iterator[Request]:
    body = {"filter": {"waitlists": "vpn"}, "limit": 100}
    return iter([Request("POST", "/ctms/search", json.dumps(body))])


ALL_KINDS = {**KINDS, "search": Kind("search", "search for 100", 200, _search)}


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark with the command line's options."""
    options = _parser().parse_args(arguments)
    load.wrk()
    try:
        results = measure(options)
    except load.WrongAnswer as error:
        raise SystemExit(f"no figures: {error}") from None
    print("\n".join([*growth(results), *space(results)]))
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in results], indent=2) + "\n")


def measure(options: argparse.Namespace) -> list[Result]:
    """Fill the databases or reuse them, measure kind by kind, and print the figures. Raises `WrongAnswer`."""
    results: list[Result] = []
    targets: list[Target] = []
    with ExitStack() as stack:
        for size in sorted(options.sizes):
            contacts = stack.enter_context(data.prepared(options.data_dir / str(size), size))
            with contacts.connect() as connection:
                results.append(Result(size, {}, _space(connection)))
            targets.append((stack.enter_context(servers.service(contacts, options.workers)), contacts))
        for name in options.kinds:
            print(f"\n{ALL_KINDS[name].title:<16}{'req/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'cpu ms':>10}{'pg ms':>10}")
            for result, found in zip(results, _measure_kind(targets, ALL_KINDS[name], options), strict=True):
                one = result.kinds[name] = median(found)
                figures = f"{one.rate:10.0f}{one.p50:10.1f}{one.p99:10.1f}{one.server:10.2f}{one.database:10.2f}"
                print(f"{result.contacts:<16,}{figures}", flush=True)
    return results


def _measure_kind(targets: Sequence[Target], kind: Kind, options: argparse.Namespace) -> list[list[Measurement]]:
    """Return the measurements of each size, in the rounds of the options after one second to warm up."""
    measured: list[list[Measurement]] = [[] for _ in targets]
    for number in range(options.rounds + 1):
        order = range(len(targets))
        for index in order if number % 2 else reversed(order):
            server, contacts = targets[index]
            seconds = options.seconds if number else 1
            one = load.measure(server, kind, contacts, seconds=seconds, connections=options.connections)
            if number:
                measured[index].append(one)
    return measured


def _space(connection: Connection) -> dict[str, Space]:
    rows = connection.execute(_SPACE).fetchall()
    return {name: Space(table, indexes) for name, table, indexes in rows if table + indexes}


def growth(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of the ratios of the CPU times to those of the smallest size."""
    yield f"\nCPU time of server and PostgreSQL (of PostgreSQL alone), of that with {results[0].contacts:,} contacts"
    yield _row("", [f"{one.contacts:,}" for one in results])
    for name in results[0].kinds:
        databases = [one.kinds[name].database for one in results]
        both = [one.kinds[name].server + one.kinds[name].database for one in results]
        ratios = [f"{_ratio(both, n)} ({_ratio(databases, n)})" for n in range(len(results))]
        yield _row(ALL_KINDS[name].title, ratios)


def _ratio(values: Sequence[float], index: int) -> str:
    return f"{values[index] / values[0]:.2f}" if values[0] else "-"


def space(results: Sequence[Result]) -> Iterator[str]:
    """Yield the lines of the space per contact, for the tables that take at least one byte of it."""
    yield "\nbytes per contact, table + indexes"
    yield _row("", [f"{one.contacts:,}" for one in results])
    largest = results[-1]
    for name in [*(one for one, used in largest.space.items() if _total(used) >= largest.contacts), "all tables"]:
        yield _row(name, [_per_contact(result, name) for result in results])


def _per_contact(result: Result, name: str) -> str:
    found = result.space.values() if name == "all tables" else [result.space.get(name, Space(0, 0))]
    table, indexes = sum(one.table for one in found), sum(one.indexes for one in found)
    return f"{table / result.contacts:,.0f} + {indexes / result.contacts:,.0f}"


def _total(used: Space) -> int:
    return used.table + used.indexes


def _row(title: str, values: Sequence[Any]) -> str:
    return f"{title:<24}" + "".join(f"{value:>16}" for value in values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=SIZES,
        metavar="CONTACTS",
        help="numbers of contacts (default: %(default)s)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=platformdirs.user_cache_path("ctms") / "growth",
        help="folder with a database for each size, which are reused (default: %(default)s)",
    )
    add_arguments(parser)
    parser.add_argument(
        "--kinds", nargs="+", choices=ALL_KINDS, default=list(ALL_KINDS), help="which to measure (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    return parser


if __name__ == "__main__":
    main()
