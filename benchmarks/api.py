"""Compare the service with a baseline app that runs the same SQL: `python -m benchmarks.api`.

Prints for each kind of request the rate, the latency, the CPU time per request of the server (`cpu`) and of PostgreSQL
(`pg`), for both, and the ratio of the rates. Both run at the same time under the same server, each in two processes, on
one embedded PostgreSQL; measurements are interleaved, so that other load on the machine affects both.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks import data, load, servers
from benchmarks.interleaved import add_arguments, measure_interleaved, median, ratios
from benchmarks.kinds import KINDS, Kind
from benchmarks.load import Measurement
from benchmarks.servers import Server

# Requests per second; latency in milliseconds; CPU time of server and PostgreSQL in milliseconds.
_HEAD = f"{'req/s':>8}{'p50 ms':>8}{'p99 ms':>8}{'cpu ms':>9}{'pg ms':>9}"


@dataclass(frozen=True)
class Comparison:
    """The medians over the rounds for one kind of request."""

    kind: Kind
    service: Measurement
    baseline: Measurement
    ratio: float
    """The median of the rounds' ratios of the rates."""
    ratios: list[float]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark with the command line's options."""
    options = _parser().parse_args(arguments)
    if options.profile:
        profile(options)
        return
    load.wrk()
    try:
        found = measure(options)
    except load.WrongAnswer as error:
        raise SystemExit(f"no figures: {error}") from None
    if options.json:
        options.json.write_text(json.dumps(_report(options, found), indent=2) + "\n")


def measure(options: argparse.Namespace) -> list[Comparison]:
    """Start both, compare them kind by kind and print the results. Raises `WrongAnswer`."""
    found = []
    with (
        data.prepared(options.data_dir, options.contacts) as contacts,
        servers.service(contacts, options.workers) as service,
        servers.baseline_app(contacts, options.workers) as baseline,
    ):
        print(f"{options.contacts:,} contacts, {options.connections} connections, {options.workers} processes each")
        print(f"{'':16}{'service':^42}   {'baseline app':^42}")
        print(f"{'':16}{_HEAD}   {_HEAD}   ratio (its range)")
        for name in options.kinds:
            check_same_answer(KINDS[name], contacts, service, baseline)
            found.append(compare(KINDS[name], contacts, service, baseline, options))
            print(_line(found[-1]), flush=True)
    return found


def profile(options: argparse.Namespace) -> None:
    """Run `benchmarks.profile` in a subprocess, where metrics are stored as `flask ctms serve` stores them.

    The service's log is written to a file next to the database.
    """
    log = options.data_dir / "profile.log"
    options.data_dir.mkdir(parents=True, exist_ok=True)
    place = ["--data-dir", str(options.data_dir), "--contacts", str(options.contacts)]
    with tempfile.TemporaryDirectory() as metrics, log.open("w") as output:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.profile", *place, "--kinds", *options.kinds],
            env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": metrics},
            cwd=servers.PROJECT,
            stderr=output,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"the profile failed: see {log}")


def compare(
    kind: Kind, contacts: data.Contacts, service: Server, baseline: Server, options: argparse.Namespace
) -> Comparison:
    """Measure both, interleaved, and return the medians."""
    ours, its = measure_interleaved((service, baseline), kind, contacts, options, warm_up=options.warm_up)
    found = ratios(ours, its)
    return Comparison(kind, median(ours), median(its), statistics.median(found), found)


def check_same_answer(kind: Kind, contacts: data.Contacts, service: Server, baseline: Server) -> None:
    """Raise `WrongAnswer` unless both respond to a request of the kind with the same contacts."""
    count = 2 if kind.once else 1
    request = kind.requests(contacts, count)
    answers = []
    for server, sent in ((service, request[0]), (baseline, request[-1])):
        answer = requests.request(
            sent.method,
            f"{server.url}{sent.path}",
            data=sent.body or None,
            headers={**server.headers, **({"Content-Type": "application/json"} if sent.body else {})},
            timeout=30,
        )
        if answer.status_code != kind.status:
            raise load.WrongAnswer(f"{server.name}, {kind.title}: status {answer.status_code}")
        answers.append(comparable(kind, answer.json()))
    if answers[0] != answers[1]:
        raise load.WrongAnswer(f"{kind.title}: the service and the baseline app respond differently")


def comparable(kind: Kind, answer: Any) -> Any:
    """Return what must be equal in both responses: everything, or for a write the names of the members.

    Only the service has the envelope of a page and the `status` of a contact.
    """
    if isinstance(answer, dict):
        answer = answer.get("items", {name: value for name, value in answer.items() if name != "status"})
    return _names(answer) if kind.writes else answer


def _names(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _names(inner) for name, inner in value.items()}
    return [_names(inner) for inner in value] if isinstance(value, list) else None


def _line(found: Comparison) -> str:
    figures = "   ".join(
        f"{one.rate:8.0f}{one.p50:8.1f}{one.p99:8.1f}{one.server:9.2f}{one.database:9.2f}"
        for one in (found.service, found.baseline)
    )
    return f"{found.kind.title:16}{figures}   {found.ratio:.2f} ({min(found.ratios):.2f} to {max(found.ratios):.2f})"


def _report(options: argparse.Namespace, found: list[Comparison]) -> dict[str, Any]:
    return {
        "contacts": options.contacts,
        "connections": options.connections,
        "workers": options.workers,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "kinds": {
            one.kind.name: {
                "service": asdict(one.service),
                "baseline": asdict(one.baseline),
                "ratio": one.ratio,
                "ratios": one.ratios,
            }
            for one in found
        },
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.api", description=__doc__)
    data.add_arguments(parser)
    add_arguments(parser)
    parser.add_argument("--warm-up", type=int, default=1, help="seconds before the first (default: %(default)s)")
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="which to measure (default: all)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to this file")
    parser.add_argument("--profile", action="store_true", help="profile instead (benchmarks.profile)")
    return parser


if __name__ == "__main__":
    main()
