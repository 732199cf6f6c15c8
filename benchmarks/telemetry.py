"""What telemetry costs: `python -m benchmarks.telemetry`.

First what it takes to note one request, and then to count and to log it, kept in files as `flask ctms serve` keeps it:
in a loop, so with everything in the processor's caches. Then requests to two servers in turns, the service as its users
start it and the same without telemetry (`benchmarks.silent`): how many each answers in a second, and how much processor
time one takes. The means over many short rounds are given with their standard errors: a round alone says little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks import data, load, servers
from benchmarks.kinds import KINDS, Kind
from benchmarks.turns import add_arguments, in_turns, median, ratios

_LIMIT_IN_MICROSECONDS = 30
_ROUNDS = 25
_TOGETHER = 100
"""About how many requests a busy process tells of at a time."""


def main(arguments: list[str] | None = None) -> int:
    """Measure as the command line says; returns 1 when a request's metrics take longer than they may."""
    options = _parser().parse_args(arguments)
    load.wrk()
    with tempfile.TemporaryDirectory() as folder:
        # Where metrics are kept is decided before prometheus_client is imported.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        noting, counting, logging = _loops(Path(folder))
    print(f"noting a request     {noting:7.1f} µs")
    print(f"counting a request   {counting:7.1f} µs (with noting, at the most {_LIMIT_IN_MICROSECONDS})")
    print(f"logging a request    {logging:7.1f} µs", flush=True)
    with (
        data.prepared(options.data_dir, options.contacts) as contacts,
        servers.service(contacts, options.workers) as service,
        servers.silent_service(contacts, options.workers) as silent,
    ):
        for name in options.kinds:
            _compare(KINDS[name], contacts, service, silent, options)
    return 1 if noting + counting > _LIMIT_IN_MICROSECONDS else 0


def _compare(
    kind: Kind, contacts: data.Contacts, service: servers.Server, silent: servers.Server, options: argparse.Namespace
) -> None:
    ours, its = in_turns((service, silent), kind, contacts, options, warm_up=3)
    less = [1 - ratio for ratio in ratios(ours, its)]
    worked = [(one.server - other.server) * 1000 for one, other in zip(ours, its, strict=True)]
    print(f"{kind.title}: {median(ours).rate:,.0f} requests a second, {median(its).rate:,.0f} without telemetry")
    print(f"  costs {_mean(less, 100):s} % of the requests, {_mean(worked):s} µs of processor each", flush=True)


def _mean(values: Sequence[float], factor: float = 1) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values) * factor:.1f} ± {error * factor:.1f}"


def _loops(folder: Path) -> tuple[float, float, float]:
    """Return how many microseconds it takes to note a request, to count and to log one of many together."""
    from ctms.pool import Pool  # noqa: PLC0415  after the environment is set
    from ctms.settings import Settings  # noqa: PLC0415
    from ctms.telemetry import journal  # noqa: PLC0415
    from ctms.telemetry.logs import init_logs, log_summaries  # noqa: PLC0415
    from ctms.telemetry.metrics import Metrics  # noqa: PLC0415
    from ctms.telemetry.requests import Answer, Finished  # noqa: PLC0415
    from ctms.telemetry.slots import Slots  # noqa: PLC0415

    init_logs(Settings())
    answer = Answer("GET", "/ctms/{email_id}", 200, "benchmark/1.0", "id_benchmark", True)
    finished = Finished(answer, 0.002, f"{1:032x}", time.time(), read=0.001)
    together = [finished] * _TOGETHER
    metrics = Metrics(Pool(_unconnected))
    account = journal.Journal(Slots(folder))
    with _silent():
        return (
            _cost(lambda: account.add(finished)),
            _cost(lambda: metrics.count(together)) / _TOGETHER,
            _cost(lambda: log_summaries(together)) / _TOGETHER,
        )


def _unconnected() -> Any:
    raise NotImplementedError


def _cost(call: Callable[[], object], times: int = 200) -> float:
    """Return how many microseconds of the processor a call takes: the median of several rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        started = time.thread_time()
        for _ in range(times):
            call()
        rounds.append((time.thread_time() - started) / times)
    return statistics.median(rounds) * 1e6


@contextmanager
def _silent() -> Iterator[None]:
    """Send standard error, where logs go, to nowhere."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    add_arguments(parser, seconds=1, rounds=40)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["read"], help="of requests (default: read)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
