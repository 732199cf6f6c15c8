"""The cost of telemetry: `python -m benchmarks.telemetry`.

First the CPU time to buffer one request, and to count and log it in a batch, with metrics in files as in `flask ctms
serve`: in a loop, so with code and data in the CPU caches. Then two servers in interleaved rounds, the service as its
users start it and the service without telemetry (`benchmarks.no_telemetry`): their requests per second, and their CPU
time per request. The results are means over many short rounds with their standard errors.
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
from benchmarks.interleaved import add_arguments, measure_interleaved, median, ratios
from benchmarks.kinds import KINDS, Kind

_MAX_MICROSECONDS = 30
_ROUNDS = 25
_BATCH_SIZE = 100
"""About the number of requests that a busy process flushes at a time."""


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmark; return 1 if buffering and counting a request take longer than the limits."""
    options = _parser().parse_args(arguments)
    load.wrk()
    with tempfile.TemporaryDirectory() as folder:
        # prometheus_client reads it on import.
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        buffering, counting, logging = _measure_loops(Path(folder))
    print(f"buffering a request  {buffering:7.1f} µs")
    print(f"counting a request   {counting:7.1f} µs (with buffering, at most {_MAX_MICROSECONDS})")
    print(f"logging a request    {logging:7.1f} µs", flush=True)
    with (
        data.prepared(options.data_dir, options.contacts) as contacts,
        servers.service(contacts, options.workers) as service,
        servers.no_telemetry_service(contacts, options.workers) as no_telemetry,
    ):
        for name in options.kinds:
            _compare(KINDS[name], contacts, service, no_telemetry, options)
    return 1 if buffering + counting > _MAX_MICROSECONDS else 0


def _compare(
    kind: Kind,
    contacts: data.Contacts,
    service: servers.Server,
    no_telemetry: servers.Server,
    options: argparse.Namespace,
) -> None:
    with_it, without = measure_interleaved((service, no_telemetry), kind, contacts, options, warm_up=options.warm_up)
    lost = [1 - ratio for ratio in ratios(with_it, without)]
    cpu_time = [(one.server - other.server) * 1000 for one, other in zip(with_it, without, strict=True)]
    share = [1 - other.server / one.server for one, other in zip(with_it, without, strict=True) if one.server]
    print(f"{kind.title}: {median(with_it).rate:,.0f} requests/s, {median(without).rate:,.0f} without telemetry")
    print(f"  costs {_mean(lost, 100)} % of the requests per second")
    print(f"  costs {_mean(cpu_time)} µs of CPU time per request, {_mean(share, 100)} % of the server's", flush=True)


def _mean(values: Sequence[float], factor: float = 1) -> str:
    error = statistics.stdev(values) / len(values) ** 0.5
    return f"{statistics.mean(values) * factor:.1f} ± {error * factor:.1f}"


def _measure_loops(folder: Path) -> tuple[float, float, float]:
    """Return the microseconds of CPU time to buffer a request, and to count and log one in a batch."""
    from ctms.database.pool import Pool  # noqa: PLC0415  after the environment is set
    from ctms.settings import Settings  # noqa: PLC0415
    from ctms.telemetry.logs import init_logs, log_summaries  # noqa: PLC0415
    from ctms.telemetry.metrics import ApiMetrics  # noqa: PLC0415
    from ctms.telemetry.recorders import RequestBuffer  # noqa: PLC0415
    from ctms.telemetry.requests import RequestLabels, RequestRecord  # noqa: PLC0415
    from ctms.telemetry.slots import Slots  # noqa: PLC0415

    init_logs(Settings())
    labels = RequestLabels("GET", "/ctms/{email_id}", 200, "benchmark/1.0", "id_benchmark", True)
    record = RequestRecord(labels, 0.002, f"{1:032x}", time.time(), read_seconds=0.001)
    batch = [record] * _BATCH_SIZE
    metrics = ApiMetrics(Pool(_refuse_to_connect))
    buffer = RequestBuffer(Slots(folder))
    with _stderr_discarded():
        return (
            _cpu_microseconds(lambda: buffer.add(record)),
            _cpu_microseconds(lambda: metrics.count(batch)) / _BATCH_SIZE,
            _cpu_microseconds(lambda: log_summaries(batch)) / _BATCH_SIZE,
        )


def _refuse_to_connect() -> Any:
    raise NotImplementedError


def _cpu_microseconds(call: Callable[[], object], times: int = 200) -> float:
    """Return the microseconds of CPU time of a call: the median of several rounds."""
    rounds = []
    for _ in range(_ROUNDS):
        started = time.thread_time()
        for _ in range(times):
            call()
        rounds.append((time.thread_time() - started) / times)
    return statistics.median(rounds) * 1e6


@contextmanager
def _stderr_discarded() -> Iterator[None]:
    """Discard standard error, where logs go."""
    saved = os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data.add_arguments(parser)
    add_arguments(parser, seconds=1, rounds=40)
    parser.add_argument("--warm-up", type=int, default=3, help="seconds before the first (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=["read"], help="kinds of requests (default: read)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
